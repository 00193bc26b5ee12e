"""What stands beside weights, read without Paddle: configuration and class names, for those who give no config."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from collections.abc import Callable
from typing import Any

from stnet import cli
from stnet.config import Config, ModelSection, parse_override
from stnet.utils.files import StrPath, read_regular
from stnet.utils.parsing import parse_json

logger = logging.getLogger("stnet")

_JSON_BYTES = 1 << 26
COMPARED = ("num_classes", "seglen", "image_mean", "image_std")  # MODEL keys of every model that weights depend on
_SECTIONS = ("TRAIN", "VALID", "TEST", "INFER")


def saved_config(weights: StrPath) -> dict[str, Any] | None:
    """The configuration of the run that made a .pdparams file, as plain data; None where none stands beside it.

    Whether description and weights belong together is looked at when the weights are loaded. A description that is
    missing is said, as one that copies a .pdparams file alone gets another configuration and other class names.
    """
    base, suffix = os.path.splitext(os.fspath(weights))
    if suffix == ".pdparams" and os.path.isfile(weights) and not os.path.exists(f"{base}.json"):
        logger.warning(
            "%s.json, which says with which configuration and class names %s was trained, is missing: those that are "
            "set count",
            base,
            os.path.basename(weights),
        )
    description = _read(weights)
    if not isinstance(description.get("model"), dict):
        return None
    config = description.get("config")
    sections = config if isinstance(config, dict) else {}
    settings = {**{name: sections.get(name) or {} for name in _SECTIONS}, "MODEL": dict(description["model"])}
    if isinstance(settings["TRAIN"], dict):
        settings["TRAIN"] = {**settings["TRAIN"], "use_gpu": "auto"}  # whatever that machine had
    return settings


def load_saved_config(args: argparse.Namespace, model_section: Callable[[str], type[ModelSection]]) -> Config:
    """The configuration of a command that uses weights, with settings, flags and -o applied.

    What stands beside the weights takes the place of --config where that is not typed, as a default, and where it does
    not fit the weights, which the log says. What is typed by -o stays, and is refused later if it does not fit.

    Raises:
        UserError: as stnet.cli.load_run_config.
    """
    beside = saved_config(args.weights)
    if beside is None or "config" not in dict(args.typed):
        return cli.load_run_config(args, model_section, beside)
    config = cli.load_run_config(args, model_section)
    typed = {parse_override(given)[0] for name, given in args.typed if name == "o"}
    own = {field.name for field in dataclasses.fields(config.MODEL)} - {
        f.name for f in dataclasses.fields(ModelSection)
    }
    saved = beside["MODEL"]
    others = [
        f"{key} is {getattr(config.MODEL, key)} there and {saved[key]!s:.60} in the weights"
        for key in (*COMPARED, *sorted(own))
        if key in saved and saved[key] != getattr(config.MODEL, key) and f"MODEL.{key}" not in typed
    ]
    if not others or saved.get("name") != config.MODEL.name:
        return config
    logger.warning(
        "config %s does not fit: %s; the one beside the weights counts in its place, with its lists and labels",
        args.config,
        "; ".join(others),
    )
    return cli.load_run_config(args, model_section, beside)


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


def saved_labels(weights: StrPath) -> list[str] | None:
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
