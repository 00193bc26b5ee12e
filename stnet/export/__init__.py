"""Exported models for servers: writing the folder, and using it again."""
