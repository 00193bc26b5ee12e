import math

import numpy as np
import pytest

from stnet.metrics import TopK, metric_classes


def test_hits_and_loss_by_hand():
    scores = TopK()
    logits = np.array([[3.0, 1, 0, 0, 0, 0], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]])
    scores.update(logits, np.array([0, 0, 4]))
    result = scores.result()
    assert result["TOP1_ACC"] == pytest.approx(1 / 3)
    assert result["TOP5_ACC"] == pytest.approx(2 / 3)
    by_hand = [math.log(sum(math.exp(v) for v in row)) - row[label] for row, label in zip(logits, (0, 0, 4))]
    assert result["loss"] == pytest.approx(sum(by_hand) / 3)
    assert result["count"] == 3


def test_batches_make_no_difference_to_the_last_bit():
    rng = np.random.RandomState(0)
    logits, labels = rng.randn(50, 10).astype("float32"), rng.randint(0, 10, 50)
    whole, parts = TopK(), TopK()
    whole.update(logits, labels)
    for rows in (range(30, 50), range(30)):
        parts.update(logits[list(rows)], labels[list(rows)])
    assert whole.result() == parts.result()


def test_equal_logits_are_no_hit_for_everyone():
    scores = TopK()
    scores.update(np.zeros((10, 10)), np.arange(10))
    assert (scores.hits[1], scores.hits[5]) == (1, 5)


@pytest.mark.parametrize("num_classes", [2, 4, 5, 10])
def test_logits_that_are_not_finite_are_no_hit(num_classes):
    scores = TopK()
    scores.update(np.full((2, num_classes), np.nan), np.array([0, 1]))
    assert scores.hits == {1: 0, 5: 0}


def test_no_sample_is_an_error():
    with pytest.raises(ValueError, match="no sample"):
        TopK().result()


def test_chosen_metrics_come_after_top_k_once_each():
    from stnet.utils.errors import UserError

    assert metric_classes([]) == metric_classes(["topk"]) == [TopK]
    with pytest.raises(UserError, match="unknown metric 'F1'; known: TOPK"):
        metric_classes(["F1"])
