"""Few-shot learning on features of clips: classes from a few examples of each, and how many examples they need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from stnet.metrics.neighbors import unit_rows

SHOTS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # clips of a class
DRAWS = 5
STRENGTH = 1.0  # of the ridge penalty


class Head(NamedTuple):
    """A linear classifier: features @ weight + bias gives a score for each class."""

    weight: np.ndarray  # float64 [C, classes]
    bias: np.ndarray  # float64 [classes]

    def predict(self, features: np.ndarray) -> np.ndarray:
        """The class of the highest score: int64 [N]."""
        return np.asarray((features @ self.weight + self.bias).argmax(axis=1))


class Shots(NamedTuple):
    """Accuracy with a few clips of each class."""

    method: str  # one of METHODS
    clips: int  # of a class
    mean: float  # top-1 accuracy, mean over the draws
    spread: float  # its standard deviation over the draws
    short: int  # classes that have fewer clips, and give all


def nearest_mean(features: np.ndarray, labels: np.ndarray, num_classes: int) -> Head:
    """Fit the nearest class mean, by cosine similarity, of rows of length 1.

    Args:
        features: [N, C], rows of length 1.
        labels: int [N], 0 to num_classes - 1; a class without clips is never predicted.
        num_classes: K.
    """
    counts = np.bincount(labels, minlength=num_classes)
    means = one_hot(labels, num_classes).T @ features
    return Head(unit_rows(means).T.astype(np.float64), np.where(counts > 0, 0.0, -np.inf))


def ridge(features: np.ndarray, labels: np.ndarray, num_classes: int, strength: float = STRENGTH) -> Head:
    """Fit a linear head by ridge regression to one-hot targets, in closed form.

    Args:
        features: [N, C], of one scale, as rows of length 1 are; they are centred, and the head undoes it.
        labels: int [N], 0 to num_classes - 1; a class without clips is never predicted.
        num_classes: K.
        strength: of the penalty, relative to the mean square of the centred features' singular values.
    """
    mean, targets = features.mean(axis=0, dtype=np.float64), one_hot(labels, num_classes)
    rows, share = features - mean, targets.mean(axis=0)
    size = min(rows.shape)
    penalty = max(strength * float((rows**2).sum()) / size, 1e-12) * np.eye(size)
    if len(rows) <= rows.shape[1]:  # of the two equal forms, the smaller system
        weight = rows.T @ np.linalg.solve(rows @ rows.T + penalty, targets - share)
    else:
        weight = np.linalg.solve(rows.T @ rows + penalty, rows.T @ (targets - share))
    return Head(weight, np.where(share > 0, share - mean @ weight, -np.inf))


METHODS: dict[str, Callable[[np.ndarray, np.ndarray, int], Head]] = {"nearest mean": nearest_mean, "linear": ridge}


def learning_curve(
    features: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    held_out_labels: np.ndarray,
    seed: int = 0,
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
) -> list[Shots]:
    """Measure the accuracy on held-out clips with 1, 2, 5, ... training clips of each class.

    Clips without a label (-1) are left out. Clips are drawn at random by the seed alone; a class with fewer clips gives
    all of them. The largest number is that of the largest class.

    Args:
        features: [N, C], of the training clips.
        labels: int [N].
        held_out: [M, C], of other clips.
        held_out_labels: int [M].
        seed: of the draws.
        shots: numbers of clips, ascending.
        draws: of each number; every draw adds clips to those of the smaller number.

    Returns:
        a record for each method and number; none where either list has no labelled clip.
    """
    labels, held_out_labels = np.asarray(labels, np.int64), np.asarray(held_out_labels, np.int64)
    train, tested = np.flatnonzero(labels >= 0), np.flatnonzero(held_out_labels >= 0)
    if not len(train) or not len(tested):
        return []
    rows, test, truth = unit_rows(features), unit_rows(held_out[tested]), held_out_labels[tested]
    counts = np.bincount(labels[train])
    points = []
    for clips in [clips for clips in shots if clips <= counts.max()]:
        accuracy: dict[str, list[float]] = {method: [] for method in METHODS}
        for draw in range(draws):
            chosen = _drawn(labels, clips, np.random.RandomState([seed, draw]))
            for method, fit in METHODS.items():
                head = fit(rows[chosen], labels[chosen], len(counts))
                accuracy[method].append(float((head.predict(test) == truth).mean()))
        short = int(((counts > 0) & (counts < clips)).sum())
        points += [Shots(name, clips, float(np.mean(a)), float(np.std(a)), short) for name, a in accuracy.items()]
    return sorted(points, key=lambda point: [*METHODS].index(point.method))


def _drawn(labels: np.ndarray, clips: int, rng: np.random.RandomState) -> np.ndarray:
    """Draw up to `clips` clips of each class: their indices."""
    classes = np.unique(labels[labels >= 0])
    return np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:clips] for label in classes])


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Targets [N, num_classes]: 1 at the label, else 0."""
    return np.asarray(np.arange(num_classes) == np.asarray(labels)[:, None], np.float64)
