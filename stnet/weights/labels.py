"""Class names."""

from __future__ import annotations

import logging
import os

from stnet.config import PACKAGE, ModelSection
from stnet.utils.errors import UserError
from stnet.utils.files import find_file, read_regular
from stnet.utils.parsing import parse_json
from stnet.weights.metadata import saved_labels

logger = logging.getLogger("stnet")
_SET_LABELS = "set MODEL.labels"
_MAX_BYTES = 1 << 24


class WrongNumber(UserError):
    """A labels file has another number of classes than the model."""


def load_labels(path: str, num_classes: int | None) -> list[str]:
    """Class names from a JSON file: a list, or a dict from name to class number.

    Args:
        path: file, relative to the working directory or to the project; empty: the names are the numbers.
        num_classes: expected number; None: any number, of a file.

    Raises:
        UserError: the file is missing or invalid, or has another number of classes.
    """
    if not path:
        return [str(i) for i in range(num_classes or 0)]
    path = find_file(path, PACKAGE, os.path.join(PACKAGE, "data"))  # ./dataset/... in the original of release 1.6
    try:
        names = parse_json(read_regular(path, _MAX_BYTES))
    except (OSError, ValueError) as error:
        raise UserError(f"labels file {path} cannot be read: {error}", hint=_SET_LABELS) from None
    if isinstance(names, dict) and sorted(names.values(), key=str) == sorted(range(len(names)), key=str):
        names = sorted(names, key=lambda name: names[name])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"labels file {path}: expected a list of class names, or a dict from name to 0..N-1")
    unwritable = [name for name in names if name.encode("utf-8", "replace").decode("utf-8") != name]
    if unwritable:
        raise UserError(
            f"labels file {path}: {unwritable[0]!a} is half a character, which no file can hold", _SET_LABELS
        )
    if num_classes is not None and len(names) != num_classes:
        raise WrongNumber(
            f"labels file {path} names {len(names)} classes, but MODEL.num_classes is {num_classes}",
            hint="set MODEL.labels to the names of your classes, or MODEL.num_classes",
        )
    return names


def labels_for(path: str, num_classes: int, weights: str) -> list[str]:
    """Class names of the file MODEL.labels, or, without it on this machine, those saved with the weights.

    Raises:
        UserError: neither is available, or their number is wrong.
    """
    try:
        return load_labels(path, num_classes)
    except UserError:
        saved = saved_labels(weights)
        if saved is None or len(saved) != num_classes:
            raise
        return saved


def labels_for_training(path: str, num_classes: int) -> list[str] | None:
    """Load the labels; None, with a warning, without a file of them, or with the names of Kinetics for other classes.

    Raises:
        UserError: the file names another number of classes, with which eval would refuse the weights.
    """
    try:
        return load_labels(path, num_classes)
    except WrongNumber as error:
        if path != ModelSection.labels:
            raise
        logger.warning("checkpoints will carry no class names: %s", error)
        return None
    except UserError as error:
        logger.warning("checkpoints will carry no class names: %s", error)
        return None
