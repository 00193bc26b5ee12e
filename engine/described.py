"""What stands beside weights, read without Paddle: configuration and class names, for those who give no config."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from core.files import StrPath, read_regular

_JSON_BYTES = 1 << 26
_SECTIONS = ("TRAIN", "VALID", "TEST", "INFER")


def config_beside(weights: StrPath) -> dict[str, Any] | None:
    """The configuration of the run that made a .pdparams file, as plain data; None where none stands beside it.

    Whether description and weights belong together is looked at when the weights are loaded.
    """
    description = _read(weights)
    if not isinstance(description.get("model"), dict):
        return None
    config = description.get("config")
    sections = config if isinstance(config, dict) else {}
    settings = {**{name: sections.get(name) or {} for name in _SECTIONS}, "MODEL": dict(description["model"])}
    settings["TRAIN"] = {**settings["TRAIN"], "use_gpu": "auto"}  # whatever that machine had
    return settings


def settings_for(args: argparse.Namespace) -> dict[str, Any] | None:
    """`config_beside` the weights that a command names, if it names no --config."""
    return None if "config" in dict(args.typed) else config_beside(args.weights)


def labels_beside(weights: StrPath) -> list[str] | None:
    """The class names saved with a .pdparams file, or None."""
    labels = _read(weights).get("labels")
    is_names = isinstance(labels, list) and all(isinstance(name, str) for name in labels)
    return labels if is_names else None


def _read(weights: StrPath) -> dict[str, Any]:
    base, suffix = os.path.splitext(os.fspath(weights))
    if suffix != ".pdparams":
        return {}
    try:
        description = json.loads(read_regular(f"{base}.json", _JSON_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return description if isinstance(description, dict) else {}
