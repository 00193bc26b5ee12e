"""Events of a long video, from the probabilities of its windows.

1. The cell of a window is the time around its centre, halfway to the centres of the windows before and after it that
   overlap with it; at the ends of a video and at gaps it ends with the window. No cell crosses a gap.
2. An event of a class begins where a window has at least `threshold`, and extends, both ways, over adjacent windows
   with at least `hold`. Events of two classes overlap only where `hold` is below 1/2.
3. Events shorter than `shortest` seconds are dropped.
4. The probability of an event is the mean over its windows.

With rejection, a window that is unknown counts for no class: its probabilities are taken as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from stnet.metrics.rejection import Judgement
from stnet.utils.errors import UserError

THRESHOLD, HOLD = 0.8, 0.5  # default probabilities
_TOUCHING = 1e-6  # seconds


class Event(NamedTuple):
    """A class over a time span."""

    start: float  # seconds
    end: float
    class_id: int
    probability: float

    def named(self, label_name: str) -> NamedEvent:
        """Make the same event with the name of its class."""
        event = NamedEvent(*self)
        event.label_name = label_name
        return event


class NamedEvent(Event):
    """Event with the name of its class; as a tuple it has the four fields of Event.

    Attributes:
        label_name: name of the class.
    """

    label_name: str


class Events(list[Event]):
    """The events of a video, and its most probable window.

    Args:
        events: in order.
        highest: the window and class with the largest probability; an unknown one only where all are unknown.
        note: how many windows are unknown, and why; "" without rejection.
    """

    def __init__(self, events: Iterable[Event], highest: Event, note: str = "") -> None:
        super().__init__(events)
        self.highest, self.note = highest, note


def events_of(
    spans: Sequence[tuple[float, float]],
    probabilities: np.ndarray,
    threshold: float = THRESHOLD,
    hold: float = HOLD,
    shortest: float = 0.0,
) -> list[Event]:
    """Find the events of a video by the rule above, the earliest first.

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


def counted(probabilities: np.ndarray, judged: Sequence[Judgement]) -> np.ndarray:
    """Probabilities [windows, num_classes] with 0 in windows that are unknown; `judged`: [] without rejection."""
    if not judged:
        return probabilities
    return np.where(np.array([[window.is_unknown] for window in judged]), 0, probabilities)


def unknown_note(judged: Sequence[Judgement]) -> str:
    """Say how many windows are unknown, and why; "" without rejection."""
    if not judged:
        return ""
    unknown = sum(window.is_unknown for window in judged)
    return f"{unknown} of {len(judged)} windows are unknown: scaled probability below {judged[0].threshold:.6g}"


def cells_of(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Cell of each window, (start, end) in seconds."""
    cells = [list(span) for span in spans]
    for number, ((start, end), (other_start, other_end)) in enumerate(zip(spans, spans[1:])):
        if other_start < end:
            cells[number][1] = cells[number + 1][0] = ((start + end) / 2 + (other_start + other_end) / 2) / 2
    return [(start, end) for start, end in cells]


def _runs(held: np.ndarray, cells: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """(first, stop) of each run of held windows whose cells touch."""
    runs: list[tuple[int, int]] = []
    for i in np.flatnonzero(held).tolist():
        if runs and runs[-1][1] == i and cells[i][0] - cells[i - 1][1] <= _TOUCHING:
            runs[-1] = runs[-1][0], i + 1
        else:
            runs.append((i, i + 1))
    return runs
