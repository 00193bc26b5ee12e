"""Neighbours of clips by the cosine similarity of their features: search, near-duplicates, labels that do not fit.

All functions take features [N, C] of finite numbers, such as the clip features of predict --features. A zero vector has
similarity 0 to everything. All pairs are compared in blocks: memory grows with N, not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

NEAR = 0.1  # of the usual distance between neighbours, at which clips count as copies of each other
LEAST = 0.98  # similarity below which no clips do
NEIGHBORS = 10  # clips that vote on a label
FEW = 5  # clips below which a class is small, and its labels are not judged
BLOCK = 1024  # clips that are compared with as many others at once
_USUAL, _SAMPLE = 5, 1024  # the neighbour of the usual distance, and the clips of which it is taken
_DIGITS = 6  # of a similarity: in float32, equal vectors are similar by 1 only within these


class Duplicate(NamedTuple):
    """A clip that is nearly the same as another."""

    clip: int
    other: int  # the clip that it resembles most: an earlier one, or one of the other list
    similarity: float


class Suspect(NamedTuple):
    """A clip whose label its neighbours do not share."""

    clip: int
    label: int
    suggested: int  # most frequent label of the neighbours
    score: float  # share of the neighbours that have it


class Balance(NamedTuple):
    """Clips of each class."""

    counts: list[int]
    ratio: float  # clips of the largest class to those of the smallest that has any; 0 without clips
    small: list[int]  # classes of fewer than FEW clips


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Divide rows by their lengths: float32 [N, C]; a zero row stays zero."""
    rows = np.asarray(features, np.float32)
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    rows = rows / np.where(largest > 0, largest, 1)  # so that no square overflows or vanishes
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)


def most_similar(query: np.ndarray, features: np.ndarray, paths: Sequence[str], topk: int) -> list[tuple[int, float]]:
    """Find the clips that are most similar to a query [C]: (index, similarity), best first, equal ones by path."""
    similar = _rounded(unit_rows(features) @ unit_rows(query[None])[0])
    order = sorted(range(len(similar)), key=lambda i: (-similar[i], paths[i]))
    return [(i, similar[i]) for i in order[:topk]]


def duplicate_threshold(features: np.ndarray) -> float:
    """Similarity from which clips count as copies; networks differ in how similar they find different clips.

    It is NEAR times the median distance, 1 - similarity, of clips to their fifth neighbour below 1, but LEAST or more.
    """
    rows = unit_rows(features)
    count = len(rows)
    if count < 2:
        return LEAST
    sample = rows[np.linspace(0, count - 1, min(count, _SAMPLE)).astype(int)]
    fifth = min(_USUAL, count - 1)  # the most similar one is the clip itself
    distances = np.empty(len(sample))
    for first in range(0, len(sample), 64):
        piece = slice(first, first + 64)
        distances[piece] = 1 + np.partition(-(sample[piece] @ rows.T), fifth, axis=1)[:, fifth]
    return min(1.0, max(LEAST, 1 - NEAR * float(np.median(distances))))


def near_duplicates(
    features: np.ndarray, against: np.ndarray | None = None, threshold: float | None = None, block: int = BLOCK
) -> list[Duplicate]:
    """Find copies: clips of at least a similarity to an earlier clip or, with `against`, to a clip of another list.

    Each clip is named once, with the most similar other: a group of n copies in one list gives n - 1 of them.

    Args:
        features: [N, C].
        against: [M, C] of another list; None: each clip is compared with those before it.
        threshold: least similarity; None: duplicate_threshold of the features.
        block: clips compared at once.
    """
    threshold = duplicate_threshold(features) if threshold is None else threshold
    rows = unit_rows(features)
    others = rows if against is None else unit_rows(against)
    best = np.full(len(rows), -np.inf, np.float32)
    other: np.ndarray = np.zeros(len(rows), np.int64)
    for start, first, similar in _blocks(rows, others, block):
        if against is None:
            numbers = np.arange(first, first + similar.shape[1])
            similar[numbers >= np.arange(start, start + len(similar))[:, None]] = -np.inf  # itself and later ones
        nearest = similar.argmax(axis=1)
        values, here = similar[np.arange(len(similar)), nearest], slice(start, start + len(similar))
        better = values > best[here]
        best[here][better], other[here][better] = values[better], first + nearest[better]
    pairs = zip(range(len(rows)), other.tolist(), _rounded(best))
    return [Duplicate(*pair) for pair in pairs if pair[2] >= threshold]


def groups_of(count: int, duplicates: Sequence[Duplicate]) -> np.ndarray:
    """Number the groups of copies in one list: int64 [count], the index of each group's first clip."""
    groups = np.arange(count)
    for duplicate in duplicates:  # ascending, and `other` comes before
        groups[duplicate.clip] = groups[duplicate.other]
    return groups


def nearest_neighbors(
    features: np.ndarray, k: int = NEIGHBORS, groups: np.ndarray | None = None, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest neighbours of each clip among the others.

    Args:
        features: [N, C].
        k: neighbours.
        groups: int [N]; clips of one group are no neighbours of each other. Default: a group for each clip.
        block: clips compared at once.

    Returns:
        their indices, int64 [N, k], and similarities, float32 [N, k], best first; -1 and -inf where there are fewer.
    """
    rows = unit_rows(features)
    groups = np.arange(len(rows)) if groups is None else np.asarray(groups)
    indices: np.ndarray = np.full((len(rows), k), -1, np.int64)
    values: np.ndarray = np.full((len(rows), k), -np.inf, np.float32)
    for start, first, similar in _blocks(rows, rows, block):
        here, there = slice(start, start + len(similar)), slice(first, first + similar.shape[1])
        similar[groups[here, None] == groups[there]] = -np.inf
        others = np.where(similar > -np.inf, np.arange(first, first + similar.shape[1]), -1)
        candidates = np.concatenate([indices[here], others], axis=1)
        candidate_values = np.concatenate([values[here], similar], axis=1)
        kept = np.argpartition(-candidate_values, k - 1, axis=1)[:, :k]
        indices[here] = np.take_along_axis(candidates, kept, axis=1)
        values[here] = np.take_along_axis(candidate_values, kept, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(values, order, axis=1)


def suspicious_labels(
    features: np.ndarray,
    labels: np.ndarray,
    k: int = NEIGHBORS,
    groups: np.ndarray | None = None,
    block: int = BLOCK,
) -> list[Suspect]:
    """Find clips of which more than half of the k nearest neighbours have one other label; surest first.

    No clip votes on its own label. Clips without a label (-1) neither vote nor are judged; those of a class of fewer
    than FEW clips, whose own kind cannot outvote the others, vote alone.

    Args:
        features: [N, C].
        labels: int [N].
        k: neighbours, or all others where there are fewer.
        groups: as in nearest_neighbors: copies with one wrong label do not vouch for each other.
        block: clips compared at once.
    """
    labels = np.asarray(labels, np.int64)
    labelled = np.flatnonzero(labels >= 0)
    k = min(k, len(labelled) - 1)
    if k < 1:
        return []
    groups = None if groups is None else np.asarray(groups)[labelled]
    neighbors, _ = nearest_neighbors(features[labelled], k, groups, block)
    labels, suspects = labels[labelled], []
    counts = np.bincount(labels)
    for row, (label, voters) in enumerate(zip(labels.tolist(), neighbors)):
        votes = np.bincount(labels[voters[voters >= 0]], minlength=1)
        suggested = int(votes.argmax())
        if counts[label] >= FEW and suggested != label and votes[suggested] > k / 2:
            suspects.append(Suspect(int(labelled[row]), label, suggested, float(votes[suggested]) / k))
    return sorted(suspects, key=lambda suspect: -suspect.score)


def class_balance(labels: np.ndarray, num_classes: int) -> Balance:
    """Count the clips of each class; those without a label (-1) are left out."""
    labels = np.asarray(labels, np.int64)
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    some = counts[counts > 0]
    ratio = float(some.max() / some.min()) if len(some) else 0.0
    return Balance(counts.tolist(), ratio, np.flatnonzero(counts < FEW).tolist())


def _rounded(similar: np.ndarray) -> list[float]:
    return [round(value, _DIGITS) for value in np.minimum(similar, 1).astype(np.float64).tolist()]


def _blocks(rows: np.ndarray, others: np.ndarray, block: int) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (first row, first other, their similarities [block, block]) of all pairs."""
    for start in range(0, len(rows), block):
        for first in range(0, len(others), block):
            yield start, first, rows[start : start + block] @ others[first : first + block].T
