"""NAME.reject.json beside NAME.pdparams: the threshold, fitted by eval, below which a clip belongs to no class."""

from __future__ import annotations

import math
import os
import shlex
from typing import Any

from stnet.metrics.rejection import Rejection
from stnet.utils.atomic import write_json
from stnet.utils.errors import UserError
from stnet.utils.files import StrPath, read_regular
from stnet.utils.parsing import parse_json
from stnet.utils.schema import SCHEMA, refuse_newer

SUFFIX = ".reject.json"
_MAX_BYTES = 1 << 20


def rejection_path(weights: StrPath) -> str:
    """Path of the file that belongs to weights: a file, or a folder, of an export too."""
    return os.path.normpath(weights).removesuffix(".pdparams") + SUFFIX


def write_rejection(
    weights: StrPath, digest: str, rejection: Rejection, share: float, clips: int, filelist: str
) -> str:
    """Write the file of weights, atomically; returns its path.

    Args:
        digest: SHA-256 of the weights.
        share, clips, filelist: the share of so many clips of a list that was to stay.

    Raises:
        UserError: it cannot be written.
    """
    path = rejection_path(weights)
    facts = {**rejection._asdict(), "share": share, "clips": clips, "list": filelist, "sha256": digest}
    write_json(path, {"schema": SCHEMA, **facts})
    return path


def read_rejection(weights: StrPath, digest: str) -> Rejection | None:
    """Read the file of weights; None if there is none. Raises UserError as `checked_rejection`."""
    path = rejection_path(weights)
    try:
        facts = parse_json(read_regular(path, _MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", fit_hint(weights)) from None
    return checked_rejection(facts, path, weights, digest)


def checked_rejection(facts: Any, path: str, weights: StrPath, digest: str) -> Rejection:
    """Check the facts that a file at `path` holds about weights.

    Raises:
        UserError: they are damaged, of a newer schema, or of weights with another digest.
    """
    try:
        refuse_newer(facts, path)
        temperature, threshold, sha256 = (facts[key] for key in ("temperature", "threshold", "sha256"))
        for number in (temperature, threshold):
            if type(number) not in (int, float) or not math.isfinite(number):
                raise ValueError(f"expected a number, found {number!r:.20}")
        if not (temperature > 0 and 0 <= threshold <= 1):
            raise ValueError(f"temperature {temperature:g} and threshold {threshold:g}")
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"the threshold in {path} is damaged ({error})", fit_hint(weights)) from None
    if sha256 != digest:
        raise UserError(
            f"the threshold in {path} was fitted with other weights (SHA-256 {sha256!s:.12}) than "
            f"{os.fspath(weights)} (SHA-256 {digest:.12})",
            fit_hint(weights),
        )
    return Rejection(float(temperature), float(threshold))


def fit_hint(weights: StrPath) -> str:
    """Hint with the command that fits a threshold."""
    return f"fit one: python eval.py --weights={shlex.quote(os.fspath(weights))} --reject"
