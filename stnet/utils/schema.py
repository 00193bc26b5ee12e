"""The form of the files that this project writes for itself and others: their key "schema".

It is in checkpoints' NAME.json, deploy.yaml, the results of eval and predict, and the reports of tools.dataset.
"""

from __future__ import annotations

from typing import Any

from stnet.utils.errors import UserError

# Raised when a key goes or changes its meaning. Files of version 0.1.0 do not have it, but are of the first form.
SCHEMA = 1


def refuse_newer(content: dict[str, Any], path: str) -> None:
    """Raise UserError if `content`, read from `path`, is of a form that this version does not know."""
    schema = content.get("schema", SCHEMA)
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise UserError(f"{path} has schema {schema!r:.20}, this version knows 1 to {SCHEMA}", "update the program")
