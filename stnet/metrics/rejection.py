"""Rejection of clips that belong to no class: the largest probability of scaled logits, and a threshold for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from stnet.metrics.calibration import COLDEST, HOTTEST, Temperature

UNKNOWN = "unknown"  # answer to a clip that belongs to no class; a class may have this name, too: is_unknown tells
FACTS = ("answer", "is_unknown", "scaled_probability", "threshold")  # keys of Judgement.facts
SHARES = np.arange(1, 101) / 100  # of a coverage curve


class Judgement(NamedTuple):
    """The largest scaled probability of a clip, and the least with which the clip has a class."""

    scaled_probability: float
    threshold: float

    @property
    def is_unknown(self) -> bool:
        """True where the probability is below the threshold, or NaN."""
        return not self.scaled_probability >= self.threshold

    def facts(self, label_name: str) -> dict[str, Any]:
        """Plain data for a file or an answer, of a clip whose most probable class has this name."""
        answer = UNKNOWN if self.is_unknown else label_name
        return {"answer": answer, "is_unknown": self.is_unknown, **self._asdict()}


class Rejection(NamedTuple):
    """A clip is unknown if the largest probability of its logits / temperature is below the threshold."""

    temperature: float
    threshold: float

    def judge(self, logits: np.ndarray) -> list[Judgement]:
        """Judge clips by their logits [N, num_classes]."""
        return [Judgement(value, self.threshold) for value in scaled_confidence(logits, self.temperature).tolist()]


class Coverage(NamedTuple):
    """Clips that each of several thresholds keeps, of those with a finite confidence; thresholds fall."""

    thresholds: np.ndarray  # float64 [T]
    kept: np.ndarray  # float64 [T], share of the clips
    accuracy: np.ndarray  # float64 [T], share of right clips among those kept


def usable_temperature(fitted: Temperature | None) -> float:
    """The fitted temperature; 1 if there is none, or if it is a bound of the search.

    At a bound it says nothing about the clips: if all are right, the coldest lets all probabilities be 1.
    """
    if fitted is None or fitted.temperature in (COLDEST, HOTTEST):
        return 1.0
    return fitted.temperature


def scaled_confidence(logits: np.ndarray, temperature: float) -> np.ndarray:
    """The largest probability of logits / temperature: float64 [N]; NaN in a row that is not finite."""
    finite = np.isfinite(logits).all(axis=1)
    rows = logits[finite].astype(np.float64)
    confidence = np.full(len(logits), np.nan)
    confidence[finite] = 1 / np.exp((rows - rows.max(axis=1, keepdims=True)) / temperature).sum(axis=1)
    return confidence


def threshold_for(confidence: np.ndarray, share: float) -> float:
    """The largest threshold at which at least `share` of the finite confidences are at or above it.

    Raises:
        ValueError: not 0 < share <= 1, or no confidence is finite.
    """
    if not 0 < share <= 1:
        raise ValueError(f"expected a share above 0 and up to 1, found {share}")
    falling = -np.sort(-confidence[np.isfinite(confidence)])
    if not len(falling):
        raise ValueError("no confidence is finite")
    kept = np.arange(1, len(falling) + 1) / len(falling)  # 7 / 100 is 0.07, but 0.07 * 100 is more than 7
    return float(falling[np.searchsorted(kept, share)])


def coverage(confidence: np.ndarray, right: np.ndarray) -> Coverage:
    """Coverage and accuracy at the thresholds of 1% to 100% of the clips, each once.

    Args:
        confidence: float64 [N].
        right: bool [N], clips whose class is right.
    """
    finite = np.isfinite(confidence)
    confidence, right = confidence[finite], right[finite]
    values = {threshold_for(confidence, share) for share in SHARES} if len(confidence) else set()
    thresholds = np.array(sorted(values, reverse=True))
    kept = confidence >= thresholds[:, None]
    counts = kept.sum(axis=1)
    return Coverage(thresholds, counts / max(1, len(confidence)), (kept & right).sum(axis=1) / counts)


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """Area under the ROC curve: how often a score of `known` is above one of `unknown`, equal ones by half.

    Raises:
        ValueError: one of them is empty, or holds NaN.
    """
    if not len(known) or not len(unknown) or np.isnan(known).any() or np.isnan(unknown).any():
        raise ValueError("expected scores of both kinds, none of them NaN")
    rising = np.sort(unknown)
    below, up_to = (np.searchsorted(rising, known, side) for side in ("left", "right"))
    return float((below + up_to).sum() / 2 / len(known) / len(unknown))
