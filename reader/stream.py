"""Read a video once, in order, and build the segments of its windows.

Frames are taken by their timestamps: a video of variable rate is resampled to a constant one by repeating and dropping
frames, and split into pieces at long gaps. One of constant rate stays as it is.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from stnet.reader.containers import opened, utf8_name
from stnet.reader.decoders import timed_frames
from stnet.reader.errors import ClipError, CorruptVideo
from stnet.reader.index import read_index
from stnet.reader.joined import Part, follow, is_disordered, joined
from stnet.reader.resize import CHUNK
from stnet.reader.transforms import ClipBuilder

Segment = tuple[int, ...]  # numbers of its frames, in order
_GAP, _STEPS = 2.0, 4  # of a gap, at least: seconds without a frame, and multiples of the median distance of frames
_UNEVEN, _EVEN = 0.5, 4.0  # slack: AVI's first frames may have odd times though its packets are evenly spaced


class TimedFrame(NamedTuple):
    """Frame of a video."""

    number: int
    seconds: float  # from the start of the file
    rgb: Callable[[], np.ndarray]  # returns it, uint8 [H, W, 3]


class PacedFrame(NamedTuple):
    """Frame of a video at a constant rate."""

    number: int  # in its piece
    seconds: float  # from the start of the file
    rgb: Callable[[], np.ndarray]
    piece: int  # of the video, 0 up to its first gap
    source: int  # number of the frame in the file


class VideoStream:
    """The frames of a video, in order: those that stnet.reader.decode takes.

    Args:
        path: the file.
        gap: seconds; see the attribute.

    Attributes:
        rate: frames a second, on average, gaps left out.
        gap: seconds; where no frame comes for longer, the video is split. At least 4 times the median distance of its
            frames.
        ends: seconds of the last frame of each piece, if the index has them.
        count: number of frames, if the index is reliable; else None.
        start: seconds that are subtracted from all timestamps, so that none is negative.
        parts: of stnet.reader.joined: one, or more where timestamps begin anew.
        resets: seconds at which they do.
        damage: reason why reading ended early; "" if it did not.
        read: number of frames that have been read.
        slack: see at_constant_rate.

    Raises:
        ClipError: missing, empty or undecodable file.
    """

    def __init__(self, path: str, gap: float = _GAP) -> None:
        self.path, self.damage, self.read = path, "", 0
        with utf8_name(path) as name, opened(name) as (container, stream):
            self.index: Any = read_index(container, stream)
            self.start = max(0.0, (container.start_time or 0) / 1e6)
            self.rate = float(stream.average_rate or stream.guessed_rate or 0)
        self.count = None if self.index.seek_problem else len(self.index.timestamps)
        self.gap, self.ends = gap, list[float]()
        self.parts, self.resets = [Part((), 0, 0)], list[float]()
        self.slack = _UNEVEN if "variable_rate" in self.index.notes else _EVEN
        self._measure(gap)
        if not self.rate:
            raise ClipError("neither its packets nor its header say how many frames it has a second")

    def _measure(self, gap: float) -> None:
        """Set rate, gap, ends, start, parts and resets by the timestamps of the index, if these are reliable."""
        index, times = self.index, self.index.times
        if not times or is_disordered(joined(index.parts)):
            return
        self.parts = index.parts
        unit = index.time_base
        if times[0] < 0:
            self.start = float(times[0] * unit)
        steps = [later - earlier for earlier, later in zip(times, times[1:])]
        median = float(sorted(steps)[len(steps) // 2] * unit) if steps else 0.0
        self.gap = max(gap, _STEPS * median)
        within = [step for step in steps if step * unit <= self.gap]
        seconds = float(sum(within) * unit) * (len(within) + 1) / max(1, len(within))
        if seconds > 0 and not index.interlaced:
            self.rate = (len(within) + 1) / seconds
        last = [time for time, step in zip(times, steps) if step * unit > self.gap] + times[-1:]
        self.ends = [float(time * unit) - self.start for time in last]
        begins = [min(part.timestamps) + part.shift for part in self.parts[1:]]
        self.resets = [float(time * unit) - self.start for time in begins]

    def left(self, seconds: float) -> int | None:
        """Number of frames, at the constant rate, from a time to the end of its piece; None if unknown."""
        place = bisect.bisect_left(self.ends, seconds - 0.5 / self.rate)
        return round((self.ends[place] - seconds) * self.rate) + 1 if place < len(self.ends) else None

    def frames(self) -> Generator[TimedFrame, None, None]:
        """Decode from the start to the end, or to the first damage."""
        seconds, unit = -1 / self.rate, self.index.time_base
        with utf8_name(self.path) as name:
            try:
                for number, (time, rgb) in enumerate(follow(timed_frames(name, self.index), self.parts)):
                    shown = None if time is None else max(0.0, float(time * unit) - self.start)
                    if shown is None or (number and shown <= seconds):
                        seconds += 1 / self.rate
                    else:
                        seconds = shown
                    self.read = number + 1
                    yield TimedFrame(number, seconds, functools.partial(_converted, rgb))
            except CorruptVideo as error:
                self.damage = str(error)


def _converted(rgb: Callable[[], np.ndarray]) -> np.ndarray:
    try:
        return rgb()
    except CorruptVideo as error:
        raise ClipError(f"a frame cannot be converted ({error})") from None


def at_constant_rate(frames: Iterable[TimedFrame], rate: float, gap: float, slack: float = 0.5) -> Iterator[PacedFrame]:
    """Resample frames to a constant rate, in pieces between gaps: at each time the frame that is shown then.

    Args:
        frames: at ascending times.
        rate: frames a second. Frames that come at this rate are yielded once each.
        gap: seconds without a frame after which another piece begins.
        slack: places by which a frame may be early or late and is still the next one.
    """
    piece, begin, place = 0, 0.0, -1
    last: TimedFrame | None = None
    for frame in frames:
        if last is None or frame.seconds - last.seconds > gap:
            piece, begin, place = piece + (last is not None), frame.seconds, -1
        due = (frame.seconds - begin) * rate
        number = place + 1 if abs(due - place - 1) <= slack else round(due)
        for missing in range(place + 1, number):
            assert last is not None  # a piece begins with number 0
            yield PacedFrame(missing, begin + missing / rate, last.rgb, piece, last.number)
        if number > place:
            yield PacedFrame(number, frame.seconds, frame.rgb, piece, frame.number)
            place = number
        last = frame


class SegmentCutter:
    """Builds segments from the frames of a video as they come, scaled and cropped as by read_clip (see ClipBuilder)."""

    def __init__(self, short_size: int, target_size: int) -> None:
        self.sizes = short_size, target_size
        self.size: object = None  # of the scaled frames
        self.places: dict[int, list[tuple[Segment, int]]] = {}  # frame -> segments and positions in them
        self.begun: dict[Segment, tuple[np.ndarray, set[int]]] = {}  # pixels, and positions still empty
        self._begin_chunk()

    def want(self, segments: Sequence[Segment]) -> None:
        """Request segments, before the first of their frames comes."""
        side = self.sizes[1]
        for segment in segments:
            if segment in self.begun:
                continue
            pixels = np.empty((len(segment), 3, side, side), np.uint8)
            self.begun[segment] = pixels, set(range(len(segment)))
            for place, frame in enumerate(segment):
                self.places.setdefault(frame, []).append((segment, place))

    def put(self, frame: TimedFrame | PacedFrame) -> Iterator[tuple[Segment, np.ndarray]]:
        """Take the next frame. Yields the segments that are complete, uint8 [3 * seglen, H, W]. Raises ClipError."""
        if frame.number in self.places:
            try:
                self.builder.put(len(self.numbers), frame.rgb())
            except ValueError as error:
                raise ClipError(str(error)) from None
            self.numbers.append(frame.number)
            if len(self.numbers) == CHUNK:
                yield from self.flush()

    def flush(self) -> Iterator[tuple[Segment, np.ndarray]]:
        """Yield the segments that are complete with the frames taken so far."""
        numbers, builder = self.numbers, self.builder
        if not numbers:
            return
        if self.size not in (None, builder.size):
            raise ClipError(f"its frames change shape: {self.size} pixels after scaling, then {builder.size}")
        self.size = builder.size
        planes = builder.clip(np.arange(len(numbers))).transpose(0, 3, 1, 2)
        self._begin_chunk()
        for number, plane in zip(numbers, planes):
            for segment, place in self.places.pop(number):
                pixels, empty = self.begun[segment]
                pixels[place] = plane
                empty.remove(place)
                if not empty:
                    del self.begun[segment]
                    yield segment, pixels.reshape(-1, *pixels.shape[2:])

    def _begin_chunk(self) -> None:
        self.builder = ClipBuilder(CHUNK, *self.sizes)
        self.numbers: list[int] = []
