"""Configuration and class names saved with weights, read without importing Paddle."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
from typing import Any

from stnet import cli
from stnet.config import Config, ModelSection, parse_override
from stnet.models import model_section
from stnet.utils.files import StrPath, read_regular
from stnet.utils.parsing import parse_json

logger = logging.getLogger("stnet")

_JSON_BYTES = 1 << 26
COMPARED = ("num_classes", "seglen", "image_mean", "image_std")  # MODEL keys that any model's weights depend on
_SECTIONS = ("TRAIN", "VALID", "TEST", "INFER")


def saved_config(weights: StrPath) -> dict[str, Any] | None:
    """The configuration of the run that made a .pdparams file, as plain data; None without its metadata.

    Missing metadata is warned of: a .pdparams file that was copied alone gets another configuration and class names.
    The digest of the weights is compared when they are loaded.
    """
    base, suffix = os.path.splitext(os.fspath(weights))
    if suffix == ".pdparams" and os.path.isfile(weights) and not os.path.exists(f"{base}.json"):
        logger.warning(
            "%s.json, which says with which configuration and class names %s was trained, is missing: those that are "
            "set count", base, os.path.basename(weights),
        )  # fmt: skip
    description = _read(weights)
    if not isinstance(description.get("model"), dict):
        return None
    config = description.get("config")
    sections = config if isinstance(config, dict) else {}
    settings = {**{name: sections.get(name) or {} for name in _SECTIONS}, "MODEL": dict(description["model"])}
    if isinstance(settings["TRAIN"], dict):
        settings["TRAIN"] = {**settings["TRAIN"], "use_gpu": "auto"}  # this may be another machine
    return settings


def load_saved_config(args: argparse.Namespace) -> Config:
    """Load the configuration of a command that uses weights, with settings, flags and -o applied.

    The configuration saved with the weights replaces --config if that is not typed, or, with a warning, if it does not
    fit the weights. Values of -o stay, and are refused later if they do not fit.

    Raises:
        UserError: as stnet.cli.load_run_config.
    """
    saved = saved_config(args.weights)
    if saved is None or "config" not in dict(args.typed):
        return cli.load_run_config(args, model_section, saved)
    config = cli.load_run_config(args, model_section)
    typed = {parse_override(given)[0] for name, given in args.typed if name == "o"}
    common = {field.name for field in dataclasses.fields(ModelSection)}
    own = {field.name for field in dataclasses.fields(config.MODEL)} - common
    then = saved["MODEL"]
    differing = [
        f"{key} is {getattr(config.MODEL, key)} there and {then[key]!s:.60} in the weights"
        for key in (*COMPARED, *sorted(own))
        if key in then and then[key] != getattr(config.MODEL, key) and f"MODEL.{key}" not in typed
    ]
    if not differing or then.get("name") != config.MODEL.name:
        return config
    logger.warning(
        "config %s does not fit: %s; the one beside the weights counts in its place, with its lists and labels",
        args.config, "; ".join(differing),
    )  # fmt: skip
    return cli.load_run_config(args, model_section, saved)


def with_sizes_of(export: Config, config: Config) -> Config:
    """A configuration to evaluate an export, with the export's input sizes; the log says what they replace."""
    sections = {}
    for name, own, section, keys in (
        ("MODEL", export.MODEL, config.MODEL, COMPARED),
        ("TEST", export.section("infer"), config.section("test"), ("short_size", "target_size", "seg_num")),
    ):
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
