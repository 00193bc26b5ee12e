"""What stands beside weights, read without Paddle: configuration and class names, for those who give no config."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from typing import TYPE_CHECKING, Any

from core.files import StrPath, read_regular
from core.parsing import parse_json

if TYPE_CHECKING:
    from core.config import Config

logger = logging.getLogger("stnet")

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
    if isinstance(settings["TRAIN"], dict):
        settings["TRAIN"] = {**settings["TRAIN"], "use_gpu": "auto"}  # whatever that machine had
    return settings


def settings_for(args: argparse.Namespace) -> dict[str, Any] | None:
    """`config_beside` the weights that a command names, if it names no --config."""
    return None if "config" in dict(args.typed) else config_beside(args.weights)


def with_sizes_of(export: Config, config: Config) -> Config:
    """A configuration to test an export by: it can take no other sizes than its own. The log says what it replaces."""
    sections = {}
    for name, own, keys in (
        ("MODEL", export.MODEL, ("num_classes", "seglen", "image_mean", "image_std")),
        ("TEST", export.section("infer"), ("short_size", "target_size", "seg_num")),
    ):
        section = config.MODEL if name == "MODEL" else config.section("test")
        others = {key: getattr(own, key) for key in keys if getattr(own, key) != getattr(section, key)}
        for key, value in others.items():
            logger.warning("%s.%s is %s, as the export has it, not %s", name, key, value, getattr(section, key))
        sections[name] = dataclasses.replace(getattr(config, name), **others)
    return dataclasses.replace(config, **sections)


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
        description = parse_json(read_regular(f"{base}.json", _JSON_BYTES))
    except (OSError, ValueError):
        return {}
    return description if isinstance(description, dict) else {}
