"""What every other package may use: configuration, the registry, user errors."""
