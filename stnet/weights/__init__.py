"""Weight files: formats, downloads and their cache, checkpoints, and loading into a model."""
