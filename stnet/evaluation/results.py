"""Results of an evaluation for every clip, over all ranks."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stnet import parallel
from stnet.metrics.calibration import Reliability, Temperature, cross_fitted_temperature, reliability
from stnet.metrics.confusion import confusion_matrix
from stnet.metrics.probabilities import softmax
from stnet.metrics.rejection import (
    Coverage,
    Rejection,
    coverage,
    scaled_confidence,
    threshold_for,
    usable_temperature,
)
from stnet.reader.bad_clips import BadClips
from stnet.reader.loader import Batch


@dataclass(frozen=True)
class FittedRejection:
    """A threshold below which clips are unknown, and what it does to the clips that it was fitted on."""

    rejection: Rejection
    share: float  # of clips that was to stay
    clips: int  # with finite logits
    kept: float  # share of clips that stays
    accuracy: float  # of those
    curve: Coverage

    @property
    def facts(self) -> dict[str, float]:
        """All but the curve, as plain data."""
        kept = {"share": self.share, "clips": self.clips, "kept": self.kept, "accuracy": self.accuracy}
        return {**self.rejection._asdict(), **kept}


@dataclass(frozen=True)
class Evaluation:
    """Clips of a list with their labels and logits, in the order of the list."""

    paths: list[str]  # with spans, of the N clips that could be read
    labels: np.ndarray  # int64 [N]
    logits: np.ndarray  # float32 [N, C]
    names: list[str]  # of the C classes
    unread: list[tuple[str, str]]  # (path, reason) of clips that could not be read
    reject_share: float | None = None  # share of clips that a threshold is to keep; None: no threshold

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """float32 [N, C]; NaN in a row whose logits are not finite."""
        with np.errstate(invalid="ignore"):
            probabilities = softmax(self.logits)
        probabilities[self.predictions < 0] = np.nan
        return probabilities

    @functools.cached_property
    def predictions(self) -> np.ndarray:
        """The class of the largest logit, of equal ones the smallest number: int64 [N]; -1 for logits not finite."""
        return np.where(np.isfinite(self.logits).all(axis=1), self.logits.argmax(axis=1), -1)

    @functools.cached_property
    def matrix(self) -> np.ndarray:
        """Confusion matrix, true classes in rows: int64 [C, C]."""
        return confusion_matrix(self.labels, self.predictions, len(self.names))

    @functools.cached_property
    def reliability(self) -> Reliability:
        """Reliability curve and expected calibration error."""
        return reliability(self.probabilities, self.labels)

    @functools.cached_property
    def temperature(self) -> Temperature | None:
        """Temperature of the logits, fitted and scored on halves; None for fewer than 2 clips."""
        return cross_fitted_temperature(self.logits, self.labels)

    @functools.cached_property
    def fitted_rejection(self) -> FittedRejection | None:
        """Threshold that keeps `reject_share` of the clips; None if that is None, or no clip has finite logits."""
        if self.reject_share is None or not (self.predictions >= 0).any():
            return None
        temperature = usable_temperature(self.temperature)
        confidence, right = scaled_confidence(self.logits, temperature), self.predictions == self.labels
        threshold = threshold_for(confidence, self.reject_share)
        kept, clips = confidence >= threshold, int(np.isfinite(confidence).sum())
        share, accuracy = float(kept.sum() / clips), float(right[kept].mean())
        curve = coverage(confidence, right)
        return FittedRejection(Rejection(temperature, threshold), self.reject_share, clips, share, accuracy, curve)


class Collector:
    """Collects labels and logits of this rank, batch by batch.

    Args:
        names: of the classes.
        bad: of the loader, with the clips of the list.
    """

    def __init__(self, names: Sequence[str], bad: BadClips) -> None:
        self.names, self.bad = list(names), bad
        self.indices: list[int] = []
        self.labels: list[np.ndarray] = []
        self.logits: list[np.ndarray] = []

    def add(self, batch: Batch, logits: np.ndarray) -> None:
        """Add a batch: logits [B, num_classes]."""
        self.indices += batch.indices
        self.labels.append(batch.labels.numpy())
        self.logits.append(np.asarray(logits, np.float32))

    def evaluation(self, reject_share: float | None = None) -> Evaluation:
        """Gather all ranks' clips; must be called on all ranks. `reject_share`: see Evaluation."""
        labels = np.concatenate([np.zeros(0, np.int64), *self.labels])
        logits = np.concatenate([np.zeros((0, len(self.names)), np.float32), *self.logits])
        ranks = parallel.gather((self.indices, labels, logits))
        indices = np.concatenate([np.array(indices, np.int64) for indices, *_ in ranks])
        order = np.argsort(indices)
        paths = [clip.name for clip in self.bad.clips]
        return Evaluation(
            [paths[index] for index in indices[order].tolist()],
            np.concatenate([labels for _, labels, _ in ranks])[order],
            np.concatenate([logits for *_, logits in ranks])[order],
            self.names,
            [(paths[index], reason) for index, reason in sorted(self.bad.reasons.items())],
            reject_share,
        )
