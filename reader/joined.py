"""Timestamps that begin anew within a file, as of files put together: where they do, and how they go on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

_Item = TypeVar("_Item")

REORDERED = 16  # frames: no encoder moves one further from its place in the order of decoding
CLOCKED = ("mpegts", "mpeg")  # demuxers of timestamps of 33 bits: FFmpeg takes times that begin anew for an overflow
_HALF_CLOCK = 1 << 32  # half of those 33 bits, 13 hours: no gap of a recording is as long


class Part(NamedTuple):
    """Frames up to where the timestamps begin anew."""

    stamps: Sequence[int]  # in the order of decoding
    step: int  # usual distance of two frames
    shift: int  # what is added to the timestamps, so that they follow those of the part before

    def is_left(self, last: int, stamp: int) -> bool:
        """Whether a frame is of the next part, where there is one, by the frame that is shown before."""
        return last - stamp > REORDERED // 2 * self.step or stamp - last > _HALF_CLOCK


def parts_of(stamps: Sequence[int], container: str) -> list[Part]:
    """Cut timestamps where they begin anew: where frames are earlier than all before by more than encoders reorder.

    Args:
        stamps: in the order of decoding.
        container: FFmpeg's name of the demuxer.
    """
    begins = [0]
    for place in range(REORDERED, len(stamps)):
        back = stamps[place] < stamps[place - REORDERED]
        overflow = container in CLOCKED and stamps[place] - stamps[place - 1] > _HALF_CLOCK
        if (back or overflow) and place - begins[-1] >= REORDERED:
            before, after = stamps[place - REORDERED : place], stamps[place : place + REORDERED]
            if max(after) < min(before) or (overflow and min(after) - max(before) > _HALF_CLOCK):
                begins.append(place)
    parts: list[Part] = []
    for begin, end in zip(begins, [*begins[1:], len(stamps)]):
        own = stamps[begin:end] if len(begins) > 1 else stamps
        ordered = sorted(own)
        steps = sorted(later - earlier for earlier, later in zip(ordered, ordered[1:]))
        shift = max(parts[-1].stamps) + parts[-1].step + parts[-1].shift - ordered[0] if parts else 0
        parts.append(Part(own, steps[len(steps) // 2] if steps else 0, shift))
    return [Part(stamps, 0, 0)] if len(parts) > 1 and is_disordered(joined(parts)) else parts


def joined(parts: Sequence[Part]) -> list[int]:
    """The timestamps of all parts, each shifted to follow the one before, in the order of decoding."""
    return [stamp + part.shift for part in parts for stamp in part.stamps]


def follow(stamped: Iterable[tuple[int | None, _Item]], parts: Sequence[Part]) -> Iterator[tuple[int | None, _Item]]:
    """Timestamps of frames, or of sound, that go on where they begin anew.

    Args:
        stamped: (timestamp or None, what has it), in the order of the file.
        parts: of the file.
    """
    place, last = 0, None
    for stamp, item in stamped:
        if stamp is None:
            yield None, item
            continue
        if last is not None and place + 1 < len(parts) and parts[place].is_left(last, stamp):
            place += 1
        last = stamp
        yield stamp + parts[place].shift, item


def is_disordered(stamps: Sequence[int]) -> bool:
    """Whether timestamps, in the order of decoding, go back further than encoders reorder."""
    order = sorted(range(len(stamps)), key=stamps.__getitem__)
    return any(abs(place - rank) > REORDERED for rank, place in enumerate(order))
