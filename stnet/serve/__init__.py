"""HTTP server: a page and an API for a model."""
