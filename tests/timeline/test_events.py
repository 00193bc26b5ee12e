"""stnet.timeline.events: the rule from windows to events."""

import numpy as np
import pytest

from stnet.timeline.events import Event, cells_of, events_of
from stnet.utils.errors import UserError


def spans(count, length=4.0, stride=1.0):
    return [(i * stride, i * stride + length) for i in range(count)]


def of_one_class(column):
    """Probabilities [windows, 2] of class 1; the other class never reaches a threshold."""
    return np.stack([np.zeros(len(column)), np.asarray(column)], axis=1)


def test_a_window_speaks_for_the_time_around_its_centre_and_the_outer_ones_to_their_ends():
    assert cells_of(spans(3)) == [(0, 2.5), (2.5, 3.5), (3.5, 6)]
    assert cells_of(spans(2, length=1, stride=5)) == [(0, 1), (5, 6)]
    assert cells_of([(0, 4)]) == [(0, 4)]
    assert cells_of([]) == []


def test_an_event_begins_at_the_threshold_and_goes_on_both_ways_while_it_holds():
    found = events_of(spans(7), of_one_class([0.1, 0.4, 0.9, 0.6, 0.4, 0.2, 0.4]), threshold=0.8, hold=0.4)
    assert found == [Event(2.5, 6.5, 1, pytest.approx((0.4 + 0.9 + 0.6 + 0.4) / 4))]


def test_below_the_threshold_nothing_is_claimed():
    assert events_of(spans(5), of_one_class([0.4, 0.49, 0.49, 0.4, 0.4]), threshold=0.5, hold=0.3) == []
    assert events_of([], np.zeros((0, 3))) == []


def test_what_is_shorter_than_the_shortest_is_no_event():
    row = of_one_class([0.0, 0.9, 0.0, 0.9, 0.9, 0.0])
    assert [(e.start, e.end) for e in events_of(spans(6), row)] == [(2.5, 3.5), (4.5, 6.5)]
    assert [(e.start, e.end) for e in events_of(spans(6), row, shortest=2)] == [(4.5, 6.5)]
    assert events_of(spans(6), row, shortest=2.1) == []


def test_an_event_does_not_cross_time_that_no_window_holds():
    found = events_of(spans(3, length=1, stride=5), of_one_class([0.9, 0.9, 0.1]))
    assert [(e.start, e.end) for e in found] == [(0, 1), (5, 6)]


def test_windows_that_touch_are_one_event_though_their_lengths_differ_by_the_grain_of_timestamps():
    rows = of_one_class([0.9, 0.9, 0.9])
    found = events_of([(0, 1.0), (1.0, 2.001), (2.001, 3.0)], rows)
    assert [(e.start, e.end) for e in found] == [(0, 3.0)]


def test_a_short_window_after_a_gap_takes_nothing_from_the_long_one_before_it():
    found = events_of([(0, 10), (2, 12), (15, 15.1)], of_one_class([0.9, 0.9, 0.9]))
    assert [(e.start, e.end) for e in found] == [(0, 12), (15, 15.1)]


def test_classes_are_judged_each_by_itself_and_given_in_the_order_of_time():
    rows = np.array([[0.1, 0.9], [0.45, 0.55], [0.6, 0.4], [0.9, 0.1]])
    found = events_of(spans(4), rows, threshold=0.6, hold=0.4)
    assert [(e.start, e.end, e.class_id) for e in found] == [(0, 4.5, 1), (2.5, 7, 0)]


@pytest.mark.parametrize("levels", [(0.3, 0.5), (1.5, 0.5), (0.5, 0)])
def test_levels_that_make_no_sense_are_refused(levels):
    with pytest.raises(UserError, match="expected 0 < hold <= threshold <= 1"):
        events_of(spans(1), of_one_class([0.9]), *levels)
