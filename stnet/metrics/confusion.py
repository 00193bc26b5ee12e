"""Confusion matrix, accuracy per class, most confused pairs."""

from __future__ import annotations

import numpy as np


def confusion_matrix(labels: np.ndarray, predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Clips by true class (rows) and predicted class (columns): int64 [num_classes, num_classes].

    A prediction of -1, which is none, is left out.
    """
    labels, predictions = np.asarray(labels, np.int64), np.asarray(predictions, np.int64)
    given = predictions >= 0
    cells = labels[given] * num_classes + predictions[given]
    return np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_accuracy(matrix: np.ndarray) -> np.ndarray:
    """Accuracy of each class (recall): float64 [num_classes], NaN where it has no clip."""
    clips = matrix.sum(axis=1)
    return np.where(clips > 0, matrix.diagonal() / np.maximum(clips, 1), np.nan)


def most_confused(matrix: np.ndarray, count: int = 20) -> list[tuple[int, int, int]]:
    """(true class, predicted class, clips) of the most confused pairs, most clips first, then by class numbers."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    cells = np.flatnonzero(wrong)
    cells = cells[np.argsort(-wrong.flat[cells], kind="stable")][:count]
    return [(*divmod(cell, len(matrix)), int(wrong.flat[cell])) for cell in cells.tolist()]
