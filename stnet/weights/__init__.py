"""Weight files: formats, download cache, checkpoints, and loading into a model."""
