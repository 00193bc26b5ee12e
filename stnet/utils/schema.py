"""Version of the project's file formats, the key "schema": in NAME.json of checkpoints, deploy.yaml and results."""

from __future__ import annotations

from typing import Any

from stnet.utils.errors import UserError

# Raised when a key is removed or changes its meaning. Files of version 0.1.0 lack the key, and are of schema 1.
SCHEMA = 1


def refuse_newer(content: dict[str, Any], path: str) -> None:
    """Raise UserError if `content`, read from `path`, has a schema that this version does not know."""
    schema = content.get("schema", SCHEMA)
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise UserError(f"{path} has schema {schema!r:.20}, this version knows 1 to {SCHEMA}", "update the program")
