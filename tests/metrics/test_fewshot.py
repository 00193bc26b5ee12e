"""Few-shot learning on Gaussian blobs, where the answer is known."""

import numpy as np
import pytest

from stnet.metrics.fewshot import METHODS, Shots, learning_curve, nearest_mean, ridge
from stnet.metrics.neighbors import unit_rows


def blobs(each, spread, seed, classes=4, size=16):
    """Clips of classes around directions at right angles."""
    labels = np.repeat(np.arange(classes), each)
    noise = np.random.RandomState(seed).randn(len(labels), size)
    return (5 * np.eye(size)[labels] + spread * noise).astype(np.float32), labels


def accuracy(points, method, clips):
    (point,) = [point for point in points if (point.method, point.clips) == (method, clips)]
    return point.mean


def test_classes_far_apart_need_one_clip_each():
    points = learning_curve(*blobs(10, 0.1, 0), *blobs(25, 0.1, 1))
    assert [(point.method, point.clips) for point in points] == [(m, k) for m in METHODS for k in (1, 2, 5, 10)]
    assert {(point.mean, point.spread, point.short) for point in points} == {(1.0, 0.0, 0)}


def test_more_clips_help_where_classes_overlap_and_noise_stays_at_chance():
    points = learning_curve(*blobs(100, 4, 0), *blobs(250, 4, 1))
    for method in METHODS:
        means = [accuracy(points, method, clips) for clips in (1, 10, 100)]
        assert 0.3 < means[0] < means[1] < means[2] < 0.85
    (features, labels), (other, other_labels) = blobs(100, 4, 2), blobs(250, 4, 3)
    noise = learning_curve(np.random.RandomState(4).permutation(features), labels, other, other_labels)
    assert all(abs(point.mean - 0.25) < 0.1 for point in noise)


def test_the_nearest_mean_is_that_of_least_squares_on_unit_vectors():
    features, labels = blobs(20, 3, 0)
    rows, test = unit_rows(features), unit_rows(blobs(50, 3, 1)[0])
    means = unit_rows(np.stack([rows[labels == label].mean(axis=0) for label in range(4)]))
    nearest = ((test[:, None] - means) ** 2).sum(axis=2).argmin(axis=1)
    assert nearest_mean(rows, labels, 4).predict(test).tolist() == nearest.tolist()


@pytest.mark.parametrize("clips", [3, 40])  # fewer than the 16 values of a clip in all, and more
def test_the_linear_head_is_scikit_learns_ridge_regression(clips):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = blobs(clips, 2, 0)
    squares = ((features.astype(np.float64) - features.mean(axis=0)) ** 2).sum()
    theirs = linear_model.Ridge(alpha=0.5 * squares / min(features.shape)).fit(features, np.eye(4)[labels])
    head, test = ridge(features, labels, 4, strength=0.5), blobs(30, 2, 1)[0]
    np.testing.assert_allclose(test @ head.weight + head.bias, theirs.predict(test), atol=1e-4)


def test_a_class_without_clips_is_never_predicted_and_equal_clips_are_no_error():
    features, labels = blobs(3, 1, 0)
    for fit in METHODS.values():
        assert set(fit(features, labels, 9).predict(blobs(50, 9, 1)[0])) <= set(range(4))
        assert fit(np.ones((4, 3), np.float32), np.array([0, 0, 1, 1]), 2).predict(np.ones((2, 3))).tolist() == [0, 0]


def test_draws_depend_on_the_seed_alone():
    given = (*blobs(30, 4, 0), *blobs(30, 4, 1))
    first = learning_curve(*given, seed=3)
    np.random.rand(5)
    assert learning_curve(*given, seed=3) == first
    assert learning_curve(*given, seed=4) != first
    assert first[0].spread > 0


def test_small_classes_give_all_they_have_and_clips_without_a_label_are_left_out():
    features, labels = blobs(6, 0.1, 0)
    labels[1:6] = -1  # one clip of class 0 is left
    points = learning_curve(features, labels, *blobs(5, 0.1, 1))
    assert [(point.clips, point.short) for point in points if point.method == "linear"] == [(1, 0), (2, 1), (5, 1)]
    assert points[-1] == Shots("linear", 5, 1.0, 0.0, 1)
    assert learning_curve(features, np.full(24, -1), features, labels) == []
    assert learning_curve(features, labels, features, np.full(24, -1)) == []


def test_held_out_clips_of_classes_that_are_not_trained_on_count_as_wrong():
    features, labels = blobs(4, 0.1, 0)
    points = learning_curve(features[labels < 2], labels[labels < 2], *blobs(10, 0.1, 1))
    assert {point.mean for point in points} == {0.5}
