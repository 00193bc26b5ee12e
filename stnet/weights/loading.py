"""Load weights into a model, for inference or to start training from."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stnet.config import Config
from stnet.models import get_model
from stnet.models.model import Model
from stnet.reader.formats import FORMATS
from stnet.utils.errors import UserError
from stnet.weights.checkpoint import read_description
from stnet.weights.download import DownloadError, released, weights_home
from stnet.weights.formats import Weights, read_weights
from stnet.weights.metadata import COMPARED
from stnet.weights.state_dict import (
    compatible,
    compatible_for_finetuning,
    load_for_finetuning,
    load_weights,
    set_tensors,
    shapes_of,
)

logger = logging.getLogger("stnet")
START = "set --pretrain to a file, or --pretrain=none to start from random values"  # hint
Read = Callable[[str], Weights]  # by its path; raises UserError unless it fits


class Loaded(NamedTuple):
    """A model with its weights."""

    model: Model  # in evaluation mode
    path: str  # absolute, of the weights
    digest: str  # SHA-256 of the weights


def load_model(config: Config, mode: str, weights: str, labels: Sequence[str] | None = None) -> Loaded:
    """Build the model of a configuration and load weights.

    Args:
        mode: "test" or "infer".
        weights: file or folder; empty: the released weights, downloaded if need be.
        labels: class names to compare with those saved with the weights.

    Raises:
        UserError: no weights, damaged weights, or weights for another configuration.
    """
    FORMATS.get(config.MODEL.format)  # refuse an unknown clip format before any work
    model = get_model(config.MODEL.name, config, mode)
    names, shapes = model.original_names(), shapes_of(model.network)

    def described(path: str, digest: str) -> dict[str, Any] | None:
        description = read_description(path, digest)
        check_description(path, description, model, labels)
        return description

    def read(path: str) -> Weights:
        value = read_weights(path, names, described)
        compatible(value.path, value.tensors, shapes)
        return value

    value = read(weights) if weights else _read_released(model, read, "set --weights to a file")
    load_weights(model.network, value)
    logger.info("weights: %s", value.path)
    return Loaded(model, os.path.abspath(value.path), value.digest)


def start_training_from(model: Model, path: str) -> None:
    """Load the weights that training starts from into a model.

    Args:
        path: file or folder of the model itself or of its backbone; empty: the released backbone; "released": the
            released model, whose head is new for another number of classes; "none": random values stay.

    Raises:
        UserError: no such weights, or they do not fit.
    """
    weights = _weights_to_start_from(model, path)
    if weights is None:
        logger.info("starting from random values")
        return
    backbone = _fit_backbone(model, weights)
    if backbone is None:
        load_for_finetuning(model.network, weights, model.head)
        logger.info("starting from the %s in %s", model.config.MODEL.name.upper(), weights.path)
    else:
        set_tensors(model.network, backbone)
        logger.info("starting from the backbone in %s: %d tensors; all else is new", weights.path, len(backbone))


def _weights_to_start_from(model: Model, path: str) -> Weights | None:
    def read(file: str) -> Weights:
        value = read_weights(file, model.original_names())
        if _fit_backbone(model, value) is None:
            compatible_for_finetuning(value, shapes_of(model.network), model.head)
        return value

    if path.lower() == "none":
        return None
    if path.lower() == "released":
        return _read_released(model, read, START, any_head=True)
    if path and not os.path.exists(path) and os.path.basename(os.path.normpath(path)) in model.pretrained:
        logger.warning("%s is not there: taking the released weights of this name", path)  # as in original configs
        path = ""
    if path:
        return read(path)
    name = model.pretrained_name()
    return _read_once(name, read, START) if name else None


def _fit_backbone(model: Model, weights: Weights) -> dict[str, Any] | None:
    """The backbone's tensors in a file; None if the file is of the whole model."""
    shapes = shapes_of(model.network)
    backbone = model.backbone(weights.tensors, shapes)
    if backbone is None:
        return None
    return compatible(weights.path, backbone.tensors, {name: shapes[name] for name in backbone.names})


def _read_released(model: Model, read: Read, hint: str, any_head: bool = False) -> Weights:
    """Read the released weights of a model, from the cache or else from the server; `any_head`: for any classes."""
    needed = {key: value for key, value in model.released_for.items() if not (any_head and key == "num_classes")}
    settings = model.config.MODEL
    wrong = [f"{key} is {getattr(settings, key)}" for key, value in needed.items() if getattr(settings, key) != value]
    if not model.released:
        raise UserError(f"no weights of {settings.name} are published", hint)
    if wrong:
        fits = ", ".join(f"{key} {value}" for key, value in needed.items())
        raise UserError(f"the released weights ({fits}) do not fit: {', '.join(wrong)}", hint)
    for name in model.released:
        if os.path.exists(os.path.join(weights_home(), name)):
            return read(os.path.join(weights_home(), name))
    errors = []
    for name in model.released:
        try:
            return _read_once(name, read, hint)
        except DownloadError as error:
            errors.append(error)
    raise errors[0]


def _read_once(name: str, read: Read, hint: str) -> Weights:
    """Read a released file once, while it is downloaded, or from the cache."""
    downloads: list[Weights] = []

    def check(part: str) -> Weights:
        downloads.append(read(part))
        return downloads[-1]

    path = released(name, check, hint)
    return dataclasses.replace(downloads[-1], path=path) if downloads else read(path)


def check_description(
    path: str, description: dict[str, Any] | None, model: Model, labels: Sequence[str] | None = None
) -> None:
    """Compare the metadata of weights with the configuration.

    Settings of the network and class names must be equal. Other input settings, such as the size, are compared with
    the section of the same mode in the run's configuration, and differences are logged.

    Args:
        path: of the weights.
        description: see stnet.weights.checkpoint.read_description.

    Raises:
        UserError: lists the conflicts.
    """
    if description is None:
        return
    then = description["model"]
    now = {**model.own_settings(), **{key: getattr(model.config.MODEL, key) for key in COMPARED}}
    conflicts = [
        f"{key} is {value} in the config and {then[key]!s:.60} in the weights"
        for key, value in now.items()
        if key in then and then[key] != value
    ]
    saved = description.get("labels")
    if labels and saved and saved != labels and not conflicts:
        pairs = zip(labels, saved if isinstance(saved, list) else [])
        example = next((f", for example {a!r:.60} in MODEL.labels, {b!r:.60} there" for a, b in pairs if a != b), "")
        conflicts.append(f"class names differ{example}")
    if conflicts:
        raise UserError(f"weights {path} were trained with another configuration: {'; '.join(conflicts)}")
    differences = _input_differences(description, model.config, model.mode)
    if differences:
        logger.warning("weights %s: other input than in their run's configuration: %s", path, "; ".join(differences))


def _input_differences(description: dict[str, Any], config: Config, mode: str) -> list[str]:
    """Input settings of a mode that differ from those of the run which made the weights, for a message."""
    model, now = description["model"], config.section(mode)
    sections = description.get("config")
    then = sections.get(mode.upper()) if isinstance(sections, dict) else {}
    then = then if isinstance(then, dict) else {}
    differences = []
    for key in ("short_size", "target_size", "seg_num", "seglen"):
        value = then.get(key) or model.get(key)
        if value is not None and value != getattr(now, key):
            differences.append(f"{mode.upper()}.{key} is {getattr(now, key)} and was {value!s:.60}")
    if model.get("format", config.MODEL.format) != config.MODEL.format:
        differences.append(f"MODEL.format is {config.MODEL.format} and was {model['format']!s:.60}")
    return differences
