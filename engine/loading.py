"""A model with its weights, for the entries that only use it."""

import logging
import os

from core.errors import UserError
from engine.checkpoint import read_description
from models import get_model
from weights.download import DownloadError, released, weights_home
from weights.load import load_weights

logger = logging.getLogger("stnet")


def load_model(config, mode, weights, labels=None):
    """The model of a configuration, holding the weights of a file.

    Args:
        config: core.config.Config.
        mode: "test" or "infer".
        weights: file or folder; empty: the released weights, downloaded if need be.
        labels: class names that will be shown, to be checked against those saved with the weights.

    Returns:
        (models.model.Model in evaluation mode, absolute path of the weights).

    Raises:
        UserError: no weights, damaged weights, or weights for another configuration.
    """
    model = get_model(config.MODEL.name, config, mode)
    weights = weights or _released(model)
    check_description(weights, config, mode, labels)
    load_weights(model.network, weights, model.original_names())
    logger.info("weights: %s", weights)
    return model, os.path.abspath(weights)


def _released(model):
    """The released weights: those in the cache first, then what the server has."""
    settings = model.config.MODEL
    wrong = [f"{key} is {getattr(settings, key)}" for key, value in model.released_for.items()
             if getattr(settings, key) != value]  # fmt: skip
    if not model.released or wrong:
        fits = ", ".join(f"{key} {value}" for key, value in model.released_for.items())
        raise UserError(
            f"no weights given, and the released ones ({fits}) do not fit: {', '.join(wrong)}; set --weights"
        )
    for name in model.released:
        if os.path.exists(os.path.join(weights_home(), name)):
            return os.path.join(weights_home(), name)

    def check(path):
        load_weights(model.network, path, model.original_names())

    first_error = None
    for name in model.released:
        try:
            return released(name, ", or set --weights to a file", check)
        except DownloadError as error:
            first_error = first_error or error
    raise first_error


def check_description(weights, config, mode, labels=None):
    """Compare what was saved beside the weights with the configuration.

    What the network cannot do without is a conflict. What its input may differ in, such as its size, is compared with
    the section of the same mode in the run's configuration, as training's own may differ on purpose; the log says it.

    Raises:
        UserError: listing the conflicts.
    """
    about = read_description(weights)
    if about is None:
        return
    settings = config.as_dict()["MODEL"]
    compared = ("num_layers", "num_classes", "seglen", "image_mean", "image_std")
    conflicts = [
        f"{key} is {settings[key]} in the config and {about['model'][key]} in the weights"
        for key in compared
        if key in about["model"] and key in settings and about["model"][key] != settings[key]
    ]
    saved = about.get("labels")
    if labels and saved and saved != labels and not conflicts:
        pairs = zip(labels, saved if isinstance(saved, list) else [])
        example = next((f", for example {a!r} in MODEL.labels, {b!r} there" for a, b in pairs if a != b), "")
        conflicts.append(f"class names differ{example}")
    if conflicts:
        raise UserError(f"weights {weights} were trained with another configuration: {'; '.join(conflicts)}")
    differences = _input_differences(about, config, mode)
    if differences:
        logger.warning("weights %s: other input than in their run's configuration: %s", weights, "; ".join(differences))


def _input_differences(about, config, mode):
    """Words for what the section of a mode says otherwise than that of the run which made the weights."""
    then, now = about.get("config"), config.section(mode)
    then = then.get(mode.upper()) if isinstance(then, dict) else {}
    differences = []
    for key in ("short_size", "target_size", "seg_num", "seglen"):
        value = (then or {}).get(key) or about["model"].get(key)
        if value is not None and value != getattr(now, key):
            differences.append(f"{mode.upper()}.{key} is {getattr(now, key)} and was {value}")
    if about["model"].get("format", config.MODEL.format) != config.MODEL.format:
        differences.append(f"MODEL.format is {config.MODEL.format} and was {about['model']['format']}")
    return differences
