"""Weights into a model: to use it, or to start training it."""

import logging
import os

from core.errors import UserError
from engine.checkpoint import read_description
from models import get_model
from reader.formats import FORMATS
from weights.download import DownloadError, released, weights_home
from weights.load import load_pretrained, load_weights

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
    FORMATS.get(config.MODEL.format)  # whether there is such a clip format, before any work
    model = get_model(config.MODEL.name, config, mode)

    def load(path):
        load_weights(model.network, path, model.original_names())

    weights = weights or _released(model, load, "set --weights to a file")
    check_description(weights, config, mode, labels)
    load(weights)
    logger.info("weights: %s", weights)
    return model, os.path.abspath(weights)


def start_training_from(model, path):
    """Load the weights that training starts from.

    Args:
        model: models.model.Model; its network gets the weights.
        path: file or folder of an ImageNet ResNet or of the model itself; empty: the released ResNet; "released": the
            released model, whose head starts anew for another number of classes; "none": random values stay.

    Raises:
        UserError: no such weights, or they do not fit.
    """
    if path.lower() == "none":
        logger.info("starting from random values")
        return
    advice = "set --pretrain to a file, or --pretrain=none to start from random values"

    def load(path):
        load_pretrained(model.network, path, model.original_names())

    if path.lower() == "released":
        load(_released(model, load, advice, any_head=True))
        return
    if path and not os.path.exists(path) and os.path.basename(os.path.normpath(path)) in model.pretrained.values():
        logger.warning("%s is not there: taking the released weights of this name", path)  # the original's config
        path = ""
    load(path or released(model.pretrained_name(), f", or {advice}", check=load))


def _released(model, check, advice, any_head=False):
    """The released weights of a model: those in the cache first, then what the server has.

    Args:
        check: loads a file into the network; raises UserError unless it fits.
        advice: how to go on without them, for messages.
        any_head: take them for another number of classes, too.
    """
    needed = {key: value for key, value in model.released_for.items() if not (any_head and key == "num_classes")}
    settings = model.config.MODEL
    wrong = [f"{key} is {getattr(settings, key)}" for key, value in needed.items() if getattr(settings, key) != value]
    if not model.released:
        raise UserError(f"no weights of {model.config.MODEL.name} are published; {advice}")
    if wrong:
        fits = ", ".join(f"{key} {value}" for key, value in needed.items())
        raise UserError(f"the released weights ({fits}) do not fit: {', '.join(wrong)}; {advice}")
    for name in model.released:
        if os.path.exists(os.path.join(weights_home(), name)):
            return os.path.join(weights_home(), name)
    first_error = None
    for name in model.released:
        try:
            return released(name, f", or {advice}", check)
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
