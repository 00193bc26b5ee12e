"""The threshold below which a clip belongs to no class, and how well scores separate known clips from unknown ones."""

import numpy as np
import pytest

from stnet.metrics.calibration import COLDEST, HOTTEST, Temperature
from stnet.metrics.rejection import (
    Judgement,
    Rejection,
    auroc,
    coverage,
    scaled_confidence,
    threshold_for,
    usable_temperature,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("confidence", "share", "threshold"),
    [
        ([0.9, 0.5, 0.7, 0.8], 0.5, 0.8),
        ([0.9, 0.5, 0.7, 0.8], 0.51, 0.7),
        ([0.9, 0.5, 0.7, 0.8], 1, 0.5),
        ([0.9, 0.7, 0.7, 0.7, 0.2], 0.3, 0.7),  # ties: all of them stay
        ([0.9, 0.9, 0.9], 0.01, 0.9),
        ([NAN, 0.9, NAN, 0.5], 0.5, 0.9),  # shares are of the finite ones
        ([0.4], 0.95, 0.4),
        ([0.4], 0.01, 0.4),
    ],
)
def test_the_threshold_is_the_largest_that_keeps_the_share(confidence, share, threshold):
    confidence = np.array(confidence)
    assert threshold_for(confidence, share) == threshold
    finite = confidence[np.isfinite(confidence)]
    assert (finite >= threshold).mean() >= share > (finite >= np.nextafter(threshold, 1)).mean()


def test_shares_in_percent_are_exact():
    confidence = np.random.RandomState(0).rand(100)
    for percent in range(1, 101):  # 0.07 * 100 is above 7
        assert (confidence >= threshold_for(confidence, percent / 100)).sum() == percent


@pytest.mark.parametrize(("confidence", "share"), [([0.5], 0), ([0.5], 1.01), ([0.5], NAN), ([NAN], 0.5), ([], 0.5)])
def test_a_share_that_cannot_be_kept_is_refused(confidence, share):
    with pytest.raises(ValueError, match="expected a share|no confidence is finite"):
        threshold_for(np.array(confidence), share)


def test_confidence_is_the_largest_probability_of_the_scaled_logits():
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32))
    assert scaled_confidence(logits, 1.0) == pytest.approx([0.5, 0.8])
    assert scaled_confidence(logits, 0.5) == pytest.approx([0.25 / 0.38, 0.64 / 0.66])
    assert scaled_confidence(logits + 1000, 0.5) == pytest.approx([0.25 / 0.38, 0.64 / 0.66], rel=1e-3)


def test_logits_that_are_not_finite_have_no_confidence_and_are_unknown():
    logits = np.array([[NAN, 1], [np.inf, 1], [-np.inf, 1], [2, 2]], np.float32)
    assert np.isnan(scaled_confidence(logits, 1.0)).tolist() == [True, True, True, False]
    assert [judged.is_unknown for judged in Rejection(1.0, 0.0).judge(logits)] == [True, True, True, False]
    assert scaled_confidence(np.zeros((0, 2)), 1.0).tolist() == []


def test_a_clip_at_the_threshold_has_its_class():
    assert not Judgement(0.5, 0.5).is_unknown
    assert Judgement(np.nextafter(0.5, 0), 0.5).is_unknown


def test_a_temperature_at_a_bound_of_the_search_is_not_used():
    assert [usable_temperature(Temperature(t, [])) for t in (COLDEST, 1.7, HOTTEST)] == [1, 1.7, 1]
    assert usable_temperature(None) == 1


def test_coverage_has_the_accuracy_of_the_clips_that_each_threshold_keeps():
    curve = coverage(np.array([0.9, 0.8, 0.8, 0.3, NAN]), np.array([True, True, False, False, True]))
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.3]
    assert curve.kept.tolist() == [0.25, 0.75, 1]
    assert curve.accuracy == pytest.approx([1, 2 / 3, 0.5])
    assert [len(part) for part in coverage(np.array([NAN]), np.array([True]))] == [0, 0, 0]


def test_auroc_is_the_share_of_pairs_in_order_with_ties_by_half():
    assert auroc(np.array([0.9, 0.8]), np.array([0.1, 0.2, 0.3])) == 1
    assert auroc(np.array([0.1]), np.array([0.9])) == 0
    assert auroc(np.array([0.9, 0.5]), np.array([0.5, 0.7])) == pytest.approx((2 + 0.5) / 4)
    rng = np.random.RandomState(1)
    known, unknown = rng.randint(0, 20, 70) / 20, rng.randint(0, 15, 40) / 20
    pairs = [(k > u) + 0.5 * (k == u) for k in known for u in unknown]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize(("known", "unknown"), [([], [1.0]), ([1.0], []), ([NAN], [1.0])])
def test_auroc_needs_scores_of_both_kinds(known, unknown):
    with pytest.raises(ValueError, match="scores of both kinds"):
        auroc(np.array(known), np.array(unknown))
