"""Timestamps that begin anew within a file, as in concatenated recordings, joined to ascending ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

_Item = TypeVar("_Item")

REORDERED = 16  # frames: no encoder moves one further from its place in the order of decoding
CLOCKED = ("mpegts", "mpeg")  # demuxers of timestamps of 33 bits: FFmpeg takes times that begin anew for an overflow
_HALF_CLOCK = 1 << 32  # half of those 33 bits, 13 hours: no gap of a recording is as long


class Part(NamedTuple):
    """Frames up to where the timestamps begin anew."""

    timestamps: Sequence[int]  # in the order of decoding
    step: int  # usual distance of two frames
    shift: int  # what is added to the timestamps, so that they follow those of the part before


def parts_of(timestamps: Sequence[int], container: str) -> list[Part]:
    """Cut timestamps where they begin anew: at a frame earlier than more before it than encoders reorder.

    Args:
        timestamps: in the order of decoding.
        container: FFmpeg's name of the demuxer.
    """
    begins = [0]
    for place in range(REORDERED, len(timestamps)):
        back = timestamps[place] < timestamps[place - REORDERED]
        overflow = container in CLOCKED and timestamps[place] - timestamps[place - 1] > _HALF_CLOCK
        if (back or overflow) and place - begins[-1] >= REORDERED:
            before, after = timestamps[place - REORDERED : place], timestamps[place : place + REORDERED]
            anew = timestamps[place] < min(before) and sorted(after)[len(after) // 4] < max(before)  # no lone error
            if anew or (overflow and min(after) - max(before) > _HALF_CLOCK):
                begins.append(place)
    parts: list[Part] = []
    for begin, end in zip(begins, [*begins[1:], len(timestamps)]):
        own = timestamps[begin:end] if len(begins) > 1 else timestamps
        ordered = sorted(own)
        steps = sorted(later - earlier for earlier, later in zip(ordered, ordered[1:]))
        shift = max(parts[-1].timestamps) + parts[-1].step + parts[-1].shift - ordered[0] if parts else 0
        parts.append(Part(own, steps[len(steps) // 2] if steps else 0, shift))
    return [Part(timestamps, 0, 0)] if len(parts) > 1 and is_disordered(joined(parts)) else parts


def joined(parts: Sequence[Part]) -> list[int]:
    """The timestamps of all parts, each shifted to follow the one before, in the order of decoding."""
    return [timestamp + part.shift for part in parts for timestamp in part.timestamps]


def follow(stamped: Iterable[tuple[int | None, _Item]], parts: Sequence[Part]) -> Iterator[tuple[int | None, _Item]]:
    """Shift timestamps of frames to ascend where they begin anew.

    Args:
        stamped: (timestamp or None, frame), in the order of presentation.
        parts: of the file.
    """
    place, last = 0, None
    for timestamp, item in stamped:
        if timestamp is None:
            yield None, item
            continue
        if last is not None and place + 1 < len(parts):
            back, overflow = last - timestamp > REORDERED // 2 * parts[place].step, timestamp - last > _HALF_CLOCK
            if back or overflow:
                place += 1
        last = timestamp
        yield timestamp + parts[place].shift, item


def is_disordered(timestamps: Sequence[int]) -> bool:
    """True if timestamps, in the order of decoding, go back further than encoders reorder."""
    order = sorted(range(len(timestamps)), key=timestamps.__getitem__)
    return any(abs(place - rank) > REORDERED for rank, place in enumerate(order))
