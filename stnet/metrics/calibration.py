"""Calibration: reliability curve, expected calibration error (ECE), and temperature scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

BINS = 15
COLDEST, HOTTEST = 0.05, 20.0  # temperatures
_ROWS = 1024  # clips at once


@dataclass(frozen=True)
class Reliability:
    """Clips by the probability of their top class, in bins of equal width, (lower, upper]; 0 is in the first.

    Attributes:
        edges: float64 [bins + 1].
        counts: int64 [bins], clips.
        accuracy: float64 [bins], share of correct clips; NaN in an empty bin.
        confidence: float64 [bins], mean probability; NaN in an empty bin.
        ece: mean over clips of |accuracy - confidence| of their bin; NaN without clips.
    """

    edges: np.ndarray
    counts: np.ndarray
    accuracy: np.ndarray
    confidence: np.ndarray
    ece: float


class Half(NamedTuple):
    """A temperature fitted on one half of the clips, and the other half's scores before and after."""

    temperature: float
    ece_before: float
    ece_after: float
    nll_before: float  # mean cross entropy
    nll_after: float


@dataclass(frozen=True)
class Temperature:
    """A divisor of the logits that calibrates the probabilities."""

    temperature: float  # fitted on all clips
    halves: list[Half]  # fitted on the first and scored on the second, and the other way round


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Reliability:
    """Reliability curve and ECE of probabilities [N, num_classes]; rows that are not finite are left out."""
    finite = np.isfinite(probabilities).all(axis=1)
    confidence = probabilities.max(axis=1)[finite]
    return _binned(confidence, (probabilities.argmax(axis=1) == labels)[finite], bins)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature T that minimises the cross entropy of logits / T; rows that are not finite are left out.

    It is COLDEST if every clip is right, HOTTEST if chance is better than the logits, 1 if no T makes a difference.
    """
    margins, targets = _margins(logits, labels)
    if not margins.any():
        return 1.0
    low, high, inverse = 1 / HOTTEST, 1 / COLDEST, 1.0  # the cross entropy is convex in 1 / T
    if _slope(margins, targets, high)[0] <= 0:
        return COLDEST
    if _slope(margins, targets, low)[0] >= 0:
        return HOTTEST
    slope, curvature = _slope(margins, targets, inverse)
    for _ in range(100):
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        newton = inverse - slope / curvature if curvature > 0 else 0.0
        before, inverse = inverse, newton if low < newton < high else float(np.sqrt(low * high))
        if abs(inverse - before) < 1e-7 * before:
            break
        slope, curvature = _slope(margins, targets, inverse)
    return 1 / inverse


def cross_fitted_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature | None:
    """The temperature of all clips, and each half's, scored on the other. None for fewer than 2 clips.

    The halves are the even and the odd clips, sorted by class, so that both have clips of each class.
    """
    finite = np.isfinite(logits).all(axis=1)
    logits, labels = logits[finite], np.asarray(labels)[finite]
    if len(labels) < 2:
        return None
    order = np.argsort(labels, kind="stable")
    even, odd = np.sort(order[::2]), np.sort(order[1::2])
    halves = [_half(logits, labels, fitted, scored) for fitted, scored in ((even, odd), (odd, even))]
    return Temperature(fit_temperature(logits, labels), halves)


def _half(logits: np.ndarray, labels: np.ndarray, fitted: np.ndarray, scored: np.ndarray) -> Half:
    temperature = fit_temperature(logits[fitted], labels[fitted])
    ece_before, nll_before = _scores(logits[scored], labels[scored], 1.0)
    ece_after, nll_after = _scores(logits[scored], labels[scored], temperature)
    return Half(temperature, ece_before, ece_after, nll_before, nll_after)


def _scores(logits: np.ndarray, labels: np.ndarray, temperature: float) -> tuple[float, float]:
    """(ECE, mean cross entropy) of logits / temperature."""
    margins, targets = _margins(logits, labels)
    sums = np.concatenate([np.exp(rows / temperature).sum(axis=1) for rows in _pieces(margins)])
    losses = np.log(sums) - margins[np.arange(len(targets)), targets] / temperature
    return _binned(1 / sums, logits.argmax(axis=1) == labels, BINS).ece, float(losses.mean())


def _margins(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finite logits less the largest of each row, and their labels."""
    finite = np.isfinite(logits).all(axis=1)
    logits = logits[finite].astype(np.float64)
    return logits - logits.max(axis=1, keepdims=True), np.asarray(labels)[finite]


def _slope(margins: np.ndarray, targets: np.ndarray, inverse: float) -> tuple[float, float]:
    """First and second derivative of the summed cross entropy of margins * inverse, by inverse."""
    slope = -float(margins[np.arange(len(targets)), targets].sum(dtype=np.float64))
    curvature = 0.0
    for rows in _pieces(margins):
        powers = np.exp(rows * inverse)
        powers /= powers.sum(axis=1, keepdims=True)
        means = (powers * rows).sum(axis=1)
        slope += float(means.sum())
        curvature += float((powers * (rows - means[:, None]) ** 2).sum())
    return slope, curvature


def _pieces(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]


def _binned(confidence: np.ndarray, right: np.ndarray, bins: int) -> Reliability:
    confidence = confidence.astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    numbers = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(numbers, minlength=bins)
    hits = np.bincount(numbers, right, minlength=bins)
    sums = np.bincount(numbers, confidence, minlength=bins)
    clips = np.where(counts > 0, counts, np.nan)
    ece = float(np.abs(hits - sums).sum() / len(confidence)) if len(confidence) else float("nan")
    return Reliability(edges, counts, hits / clips, sums / clips, ece)
