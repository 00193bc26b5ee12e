"""A model behind a page and an API."""
