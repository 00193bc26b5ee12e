"""Weight files: reading them, and putting them into a network, whole or not at all."""
