"""Spans: parts of a video between two times, as lines of lists name them."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from stnet.reader.errors import ClipError

_NUMBER = r"[-+]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?|nan|inf(?:inity)?)"
_AT_THE_END = re.compile(rf"[ \t]({_NUMBER})[ \t]+({_NUMBER})\Z", re.ASCII | re.IGNORECASE)


class Span(NamedTuple):
    """Part of a video: the frames whose presentation time is `start` or later, and before `end`."""

    start: float  # seconds from the first frame
    end: float

    def __str__(self) -> str:
        """Format for messages and result files, such as 3-5.5 s."""
        return f"{self.start:.15g}-{self.end:.15g} s"

    @property
    def problem(self) -> str:
        """Reason why it is no part of any video; "" if it may be one."""
        if not (math.isfinite(self.start) and math.isfinite(self.end)):
            return f"span {self}: expected START and END in seconds"
        if not 0 <= self.start < self.end:
            return f"span {self}: expected 0 <= START < END, in seconds"
        return ""

    def overlaps(self, other: Span) -> bool:
        """True if some time is in both."""
        return self.start < other.end and other.start < self.end

    def frames(self, times: Sequence[int], unit: Fraction) -> range:
        """Numbers of its frames in a video.

        Args:
            times: presentation timestamps of all frames, ascending.
            unit: seconds of 1 in a timestamp. Decimals are taken as they were written: a frame at 1/10 s is in 0.1-0.2.
        """
        if not times:
            return range(0)
        first, end = (bisect_left(times, times[0] + math.ceil(Fraction(repr(at)) / unit)) for at in self)
        return range(first, end)

    def without_frames(self, times: Sequence[int], unit: Fraction) -> ClipError:
        """Error of a video in which `frames` finds none."""
        last = float((times[-1] - times[0]) * unit) if times else 0.0
        if self.start > last:
            return ClipError(f"the span begins behind the last frame, which is shown at {last:.3f} s")
        return ClipError("no frame is shown within the span")


WHOLE = Span(0.0, math.inf)  # of a clip without a span, to compare


def split_span(text: str) -> tuple[str, Span] | None:
    """Split a stripped `PATH START END` into (path, span); None where its last words are not two numbers."""
    found = _AT_THE_END.search(text)
    return (text[: found.start()].rstrip(" \t"), Span(*map(float, found.groups()))) if found else None


def named(path: str, span: Span | None) -> str:
    """Name of a clip: the path, with the span where it has one, such as `a.mp4 [3-5.5 s]`."""
    return f"{path} [{span}]" if span else path


def times_shown(decoded: Sequence[int | None], times: Sequence[int]) -> Sequence[int]:
    """Presentation timestamps of the frames that a decoder shows in order.

    As many frames as packets are shown by rising timestamps, whatever the decoder says: some writers give packets the
    timestamps of the order of decoding. Otherwise the decoder's own count, if these are packets' and never go back.

    Args:
        decoded: timestamps that the decoder gives to its frames; None if missing.
        times: those of the packets, ascending.

    Raises:
        ClipError: the times of the frames cannot be told.
    """
    if times and len(decoded) == len(times):
        return times
    known = [time for time in decoded if time is not None]
    if len(known) < len(decoded) or known != sorted(known) or not set(times).issuperset(known):
        raise ClipError("its frames have no usable timestamps, by which a span could be found")
    return known
