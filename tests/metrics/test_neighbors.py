"""Neighbours by features, on vectors whose answer is known, and blocks against all pairs at once."""

import tracemalloc

import numpy as np
import pytest

from stnet.metrics import neighbors
from stnet.metrics.neighbors import (
    LEAST,
    class_balance,
    duplicate_threshold,
    groups_of,
    most_similar,
    near_duplicates,
    nearest_neighbors,
    suspicious_labels,
    unit_rows,
)


def circle(*degrees):
    """Unit vectors at angles: their similarities are cosines of the differences."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def blobs(count, seed=0, classes=3, size=8):
    """Clips around one direction for each class, far from each other."""
    rng, labels = np.random.RandomState(seed), np.arange(count) % classes
    return (10 * np.eye(size)[labels] + rng.randn(count, size)).astype(np.float32), labels


def all_pairs(features):
    rows = unit_rows(features).astype(np.float64)
    similar = rows @ rows.T
    np.fill_diagonal(similar, -np.inf)
    return similar


# Search ---------------------------------------------------------------------------------------------------------------


def test_the_most_similar_come_first_and_equal_ones_by_path():
    features = circle(0, 60, 60, 180, 30) * [[1], [2], [5], [1], [0.1]]  # the lengths do not matter
    found = most_similar(circle(0)[0] * 7, features, ["a", "c", "b", "e", "d"], 4)
    assert found == [(0, 1.0), (4, pytest.approx(0.866025)), (2, 0.5), (1, 0.5)]
    assert most_similar(circle(0)[0], features[:0], [], 4) == []


def test_zero_vectors_are_similar_to_nothing_and_huge_and_tiny_ones_neither_overflow_nor_vanish():
    features = np.float32([[0, 0], [3e38, 3e38], [1e-44, 0], [-1, 0]])
    with np.errstate(all="raise", under="ignore"):
        found = dict(most_similar(np.float32([1, 0]), features, list("abcd"), 4))
    assert found == {2: 1.0, 1: pytest.approx(0.707107), 0: 0.0, 3: -1.0}
    assert [value for _, value in most_similar(np.zeros(2), features, list("abcd"), 4)] == [0, 0, 0, 0]
    assert near_duplicates(np.zeros((3, 2)), threshold=0.9) == []
    halves = np.full((2, 2048), 300, np.float16)  # whose squares are beyond float16
    assert near_duplicates(halves, threshold=1.0) == [(1, 0, 1.0)]


# Near-duplicates ------------------------------------------------------------------------------------------------------


def test_each_copy_is_named_once_with_the_earlier_clip_that_it_resembles_most():
    found = near_duplicates(circle(0, 90, 1, 2, 91, 200), threshold=np.cos(np.deg2rad(1.5)))
    assert [(copy.clip, copy.other) for copy in found] == [(2, 0), (3, 2), (4, 1)]
    assert found[0].similarity == pytest.approx(np.cos(np.deg2rad(1)))
    assert groups_of(6, found).tolist() == [0, 1, 0, 0, 1, 5]


def test_copies_across_lists_are_named_by_the_clip_of_the_first():
    found = near_duplicates(circle(0, 50, 100), circle(101, 300, 0), threshold=0.999)
    assert [(copy.clip, copy.other) for copy in found] == [(0, 2), (2, 0)]
    assert near_duplicates(circle(0)[:0], circle(0), threshold=0.9) == []
    assert near_duplicates(circle(0), circle(0)[:0], threshold=0.9) == []


def test_equal_vectors_are_copies_even_at_a_similarity_of_one():
    features = np.random.RandomState(0).rand(20, 1000).astype(np.float32)
    found = near_duplicates(np.concatenate([features, features]), threshold=1.0, block=7)
    assert [(copy.clip, copy.other) for copy in found] == [(i + 20, i) for i in range(20)]
    assert {copy.similarity <= 1.0 for copy in found} == {True}


def test_the_threshold_follows_the_usual_distance_between_clips():
    rng = np.random.RandomState(0)
    apart = rng.randn(200, 16)
    alike = 100 + apart  # as of a network that was not trained: all similarities are close to 1
    for features in (apart, alike):
        copies = features[:3] + 0.05 * rng.randn(3, 16)
        found = near_duplicates(np.concatenate([features, copies]))
        assert [(copy.clip, copy.other) for copy in found] == [(200, 0), (201, 1), (202, 2)]
    assert duplicate_threshold(apart) == LEAST
    assert duplicate_threshold(alike) > 0.9999
    assert duplicate_threshold(apart[:1]) == LEAST
    assert near_duplicates(apart[:1]) == []


@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_find_what_all_pairs_at_once_show(block):
    features = np.random.RandomState(1).randn(50, 4).astype(np.float32)
    similar, earlier = all_pairs(features), np.tril(np.ones((50, 50), bool), -1)
    masked = np.where(earlier, similar, -np.inf)
    expected = [(i, int(masked[i].argmax())) for i in range(50) if masked[i].max() >= 0.9]
    found = near_duplicates(features, threshold=0.9, block=block)
    assert len(expected) > 10
    assert [(copy.clip, copy.other) for copy in found] == expected
    indices, values = nearest_neighbors(features, 4, block=block)
    assert indices.tolist() == np.argsort(-similar, axis=1)[:, :4].tolist()
    np.testing.assert_allclose(values, -np.sort(-similar, axis=1)[:, :4], atol=1e-6)


def test_memory_grows_with_the_block_and_not_with_the_square_of_the_clips():
    features = np.random.RandomState(2).randn(3000, 4).astype(np.float32)
    labels = np.arange(3000) % 10
    tracemalloc.start()
    near_duplicates(features, block=200)
    suspicious_labels(features, labels, 5, block=200)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 4 / 8  # bytes: an eighth of all pairs in float32


# Labels ---------------------------------------------------------------------------------------------------------------


def test_no_clip_is_its_own_neighbour_even_among_equal_ones():
    indices, values = nearest_neighbors(np.ones((4, 3)), 3)
    assert [sorted(row) for row in indices.tolist()] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    np.testing.assert_allclose(values, 1, atol=1e-6)
    indices, values = nearest_neighbors(np.eye(2), 3)
    assert indices.tolist() == [[1, -1, -1], [0, -1, -1]]
    assert values[0, 1] == -np.inf


def test_wrong_labels_are_found_with_the_right_one_and_right_ones_are_not():
    features, labels = blobs(90)
    given = labels.copy()
    given[[0, 31, 62]] = [1, 0, 0]
    found = suspicious_labels(features, given)
    assert {(suspect.clip, suspect.label, suspect.suggested) for suspect in found} == {
        (0, 1, 0),
        (31, 0, 1),
        (62, 0, 2),
    }
    assert all(suspect.score > 0.5 for suspect in found)
    assert [suspect.score for suspect in found] == sorted((suspect.score for suspect in found), reverse=True)
    assert suspicious_labels(features, labels) == []
    assert suspicious_labels(features, given, block=7) == found


def test_half_of_the_neighbours_are_not_enough():
    features = circle(0, 1, 2, 3, 4, *range(180, 190))
    labels = np.array([1, 1, 1, 0, 0, *10 * [1]])
    assert suspicious_labels(features, labels, k=4) == []
    labels[2] = 0
    assert [(s.clip, s.suggested, s.score) for s in suspicious_labels(features, labels, k=4)] == [
        (0, 0, 0.75),
        (1, 0, 0.75),
    ]


def test_copies_with_one_wrong_label_do_not_vouch_for_each_other():
    features, labels = blobs(30)
    features = np.concatenate([features, np.repeat(features[:1], 9, axis=0)])
    given = np.concatenate([labels, np.ones(9, int)])
    given[0] = 1  # ten equal clips of class 0, all with label 1
    assert {suspect.clip for suspect in suspicious_labels(features, given, 6)} & {0, *range(30, 39)} == set()
    groups = groups_of(39, near_duplicates(features, threshold=0.9999))
    assert {suspect.clip for suspect in suspicious_labels(features, given, 6, groups)} >= {0, *range(30, 39)}


def test_clips_without_a_label_and_of_small_classes_are_not_judged():
    features, labels = blobs(60)
    labels[0], labels[1] = -1, 3  # a class of one clip among those of class 1
    assert suspicious_labels(features, labels) == []
    labels[[1, 4, 7, 10, 13]] = 3
    assert [suspect.suggested for suspect in suspicious_labels(features, labels)] == [1] * 5
    assert suspicious_labels(features[:1], [0]) == suspicious_labels(features, [-1] * 60) == []


def test_balance_counts_classes_and_names_small_ones():
    balance = class_balance([0] * 12 + [1] * 4 + [-1, 3, 3, 3, 3, 3], 5)
    assert balance == ([12, 4, 0, 5, 0], 3.0, [1, 2, 4])
    assert class_balance([], 2) == ([0, 0], 0.0, [0, 1])
    assert neighbors.FEW == 5
