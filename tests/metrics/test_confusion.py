"""Confusion matrix and accuracy of classes, against scikit-learn's."""

import numpy as np
import pytest

from stnet.metrics.confusion import class_accuracy, confusion_matrix, most_confused


@pytest.mark.parametrize(("clips", "num_classes"), [(1000, 7), (500, 400), (1, 2)])
def test_matrix_and_accuracy_are_scikit_learns(clips, num_classes):
    from sklearn import metrics as sklearn_metrics  # late: parity on the oldest Paddle collects this file without it

    rng = np.random.RandomState(clips)
    labels, predictions = rng.randint(0, num_classes, (2, clips))
    predictions[::2] = labels[::2]
    matrix = confusion_matrix(labels, predictions, num_classes)
    classes = range(num_classes)
    assert matrix.dtype == np.int64
    assert np.array_equal(matrix, sklearn_metrics.confusion_matrix(labels, predictions, labels=classes))
    recall = sklearn_metrics.recall_score(labels, predictions, labels=classes, average=None, zero_division=0)
    accuracy = class_accuracy(matrix)
    there = np.isin(classes, labels)
    np.testing.assert_allclose(accuracy[there], recall[there])
    assert np.isnan(accuracy[~there]).all()


def test_pairs_come_most_clips_first_then_by_class_and_never_the_right_ones():
    matrix = np.array([[50, 2, 0], [3, 0, 2], [0, 2, 9]])
    assert most_confused(matrix) == [(1, 0, 3), (0, 1, 2), (1, 2, 2), (2, 1, 2)]
    assert most_confused(matrix, 2) == [(1, 0, 3), (0, 1, 2)]
    assert most_confused(np.eye(3, dtype=int)) == []


def test_a_clip_that_was_given_no_class_is_in_no_column():
    assert confusion_matrix(np.array([1, 0]), np.array([-1, 1]), 2).tolist() == [[0, 1], [0, 0]]
