"""The reliability curve, ECE, and the temperature that mends it."""

import numpy as np
import pytest

from stnet.metrics.calibration import cross_fitted_temperature, fit_temperature, reliability


def drawn(clips, num_classes, seed=0, scale=1.0):
    """Logits, and labels drawn by the probabilities that these say."""
    rng = np.random.RandomState(seed)
    logits = rng.randn(clips, num_classes) * 2
    noise = rng.gumbel(size=logits.shape)
    return (logits * scale).astype(np.float32), (logits + noise).argmax(axis=1)


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def ece_by_hand(probabilities, labels, bins):
    confidence, right = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    ece = 0.0
    for i in range(bins):
        lower, upper = i / bins, (i + 1) / bins
        inside = (confidence > lower) & (confidence <= upper)
        if i == 0:
            inside |= confidence == 0
        if inside.any():
            ece += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return ece


@pytest.mark.parametrize("bins", [1, 4, 15])
@pytest.mark.parametrize("num_classes", [2, 6, 100])
def test_ece_is_that_of_ten_lines(num_classes, bins):
    logits, labels = drawn(500, num_classes, seed=bins, scale=3)
    probabilities = softmax(logits)
    curve = reliability(probabilities, labels, bins)
    assert curve.ece == pytest.approx(ece_by_hand(probabilities, labels, bins), abs=1e-12)
    assert curve.counts.sum() == 500
    assert (np.isnan(curve.accuracy) == (curve.counts == 0)).all()


def test_confidences_of_0_and_1_and_on_edges_are_in_the_bin_below():
    top = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    probabilities = np.stack([top, np.zeros(6)], axis=1)
    labels = np.array([1, 0, 0, 1, 0, 1])
    curve = reliability(probabilities, labels, 4)
    assert curve.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert curve.counts.tolist() == [2, 1, 1, 2]
    assert curve.accuracy.tolist() == [0.5, 1, 0, 0.5]
    assert curve.confidence.tolist() == [0.125, 0.5, 0.75, 1]
    assert curve.ece == pytest.approx((2 * 0.375 + 0.5 + 0.75 + 2 * 0.5) / 6)
    assert curve.ece == pytest.approx(ece_by_hand(probabilities, labels, 4))


def test_rows_that_are_not_finite_and_no_rows_have_no_part():
    probabilities = np.array([[0.9, 0.1], [np.nan, np.nan]])
    assert reliability(probabilities, np.array([0, 0])).ece == pytest.approx(0.1)
    assert np.isnan(reliability(np.zeros((0, 2)), np.zeros(0, int)).ece)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("num_classes", [2, 50])
def test_a_known_temperature_is_found_again(num_classes, temperature):
    logits, labels = drawn(4000, num_classes, scale=temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)
    steps = temperature * np.array([0.97, 1, 1.03])
    fitted = fit_temperature(logits, labels)
    losses = [-np.log(softmax(logits / t)[np.arange(4000), labels]).mean() for t in [*steps * fitted / temperature]]
    assert losses[1] < min(losses[0], losses[2])


def test_where_no_temperature_is_best_it_is_at_its_bounds():
    logits = np.array([[3.0, 1.0, 0.0]])
    assert fit_temperature(logits, np.array([0])) == 0.05  # right: the lower, the better
    assert fit_temperature(logits, np.array([2])) == 20  # worse than chance: the higher, the better
    assert fit_temperature(np.zeros((4, 3)), np.arange(4) % 3) == 1  # no difference
    assert fit_temperature(np.full((1, 3), np.nan), np.array([0])) == 1
    assert fit_temperature(logits * 1e30, np.array([0])) == 0.05


def test_each_half_is_fitted_without_the_clips_that_it_is_scored_on():
    logits, labels = drawn(1000, 5, scale=3)
    order = np.argsort(labels, kind="stable")
    halves = order[::2], order[1::2]
    assert set(halves[0]) & set(halves[1]) == set()
    classes = [np.bincount(labels[half]) for half in halves]
    assert abs(classes[0] - classes[1]).max() <= 1
    cross = cross_fitted_temperature(logits, labels)
    assert cross.temperature == pytest.approx(fit_temperature(logits, labels))
    for (fitted, scored), half in zip((halves, halves[::-1]), cross.halves):
        assert half.temperature == pytest.approx(fit_temperature(logits[fitted], labels[fitted]))
        before, after = softmax(logits[scored]), softmax(logits[scored] / half.temperature)
        assert half.ece_before == pytest.approx(ece_by_hand(before, labels[scored], 15), abs=1e-6)
        assert half.ece_after == pytest.approx(ece_by_hand(after, labels[scored], 15), abs=1e-6)
        rows = np.arange(len(scored))
        assert half.nll_before == pytest.approx(-np.log(before[rows, labels[scored]]).mean(), rel=1e-5)
        assert half.nll_after == pytest.approx(-np.log(after[rows, labels[scored]]).mean(), rel=1e-5)
        assert half.ece_after < half.ece_before / 2


def test_one_clip_has_no_halves_and_two_have():
    logits = np.array([[2.0, 0.0], [0.0, 2.0]])
    assert cross_fitted_temperature(logits[:1], np.array([0])) is None
    assert cross_fitted_temperature(np.array([[np.nan, 0], [1, 0]]), np.array([0, 0])) is None
    assert [half.temperature for half in cross_fitted_temperature(logits, np.array([0, 0])).halves] == [0.05, 20]
