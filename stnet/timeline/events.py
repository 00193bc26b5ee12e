"""What happens when in a long video: a rule from the probabilities of its windows to events.

1. A window speaks for the time around its centre, halfway to the centres of the windows before and after it that it
   overlaps; where it overlaps none, at the ends of a video and at gaps, up to its own start or end. So no window speaks
   for time that it does not hold, and no event spans a gap.
2. An event of a class begins where a window gives the class at least `threshold`, and goes on, both ways, over the
   windows next to it that give it at least `hold`.
3. An event that is shorter than `shortest` seconds is none.
4. Its probability is the mean over its windows.

Where no class reaches the threshold, nothing is claimed. Events of two classes overlap only where `hold` is below 1/2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from stnet.utils.errors import UserError

THRESHOLD, HOLD = 0.8, 0.5  # probabilities, where nothing else is asked for
_TOUCHING = 1e-6  # seconds


class Event(NamedTuple):
    """A class over some time."""

    start: float  # seconds
    end: float
    class_id: int
    probability: float

    def named(self, label_name: str) -> NamedEvent:
        """The same event, with the name of its class."""
        event = NamedEvent(*self)
        event.label_name = label_name
        return event


class NamedEvent(Event):
    """An event that knows the name of its class; as a tuple it has the four fields of Event.

    Attributes:
        label_name: name of the class.
    """

    label_name: str


class Events(list[Event]):
    """The events of a video, and what comes nearest where there are none.

    Args:
        events: in order.
        highest: the largest probability of any class in any window, and when.
    """

    def __init__(self, events: Iterable[Event], highest: Event) -> None:
        super().__init__(events)
        self.highest = highest


def events_of(
    spans: Sequence[tuple[float, float]],
    probabilities: np.ndarray,
    threshold: float = THRESHOLD,
    hold: float = HOLD,
    shortest: float = 0.0,
) -> list[Event]:
    """The events of a video by the rule above, the earliest first.

    Args:
        spans: (start, end) of each window in seconds, in order.
        probabilities: [windows, num_classes].

    Raises:
        UserError: not 0 < hold <= threshold <= 1.
    """
    if not 0 < hold <= threshold <= 1:
        raise UserError(f"threshold and hold: expected 0 < hold <= threshold <= 1, found {threshold:g} and {hold:g}")
    cells = cells_of(spans)
    events = []
    for class_id in np.flatnonzero((probabilities >= threshold).any(axis=0)) if len(cells) else ():
        column = probabilities[:, class_id]
        for first, stop in _runs(column >= hold, cells):
            row = column[first:stop]
            event = Event(cells[first][0], cells[stop - 1][1], int(class_id), float(row.mean()))
            if row.max() >= threshold and event.end - event.start >= shortest - _TOUCHING:
                events.append(event)
    return sorted(events)


def cells_of(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The time that each window speaks for."""
    cells = [list(span) for span in spans]
    for number, ((start, end), (other_start, other_end)) in enumerate(zip(spans, spans[1:])):
        if other_start < end:
            cells[number][1] = cells[number + 1][0] = ((start + end) / 2 + (other_start + other_end) / 2) / 2
    return [(start, end) for start, end in cells]


def _runs(held: np.ndarray, cells: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """(first, stop) of each row of windows that are held and whose cells touch."""
    runs: list[tuple[int, int]] = []
    for i in np.flatnonzero(held).tolist():
        if runs and runs[-1][1] == i and cells[i][0] - cells[i - 1][1] <= _TOUCHING:
            runs[-1] = runs[-1][0], i + 1
        else:
            runs.append((i, i + 1))
    return runs
