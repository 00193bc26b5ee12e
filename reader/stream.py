"""A video read once, in order, and the segments of its windows cut out of it on the way."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from reader.containers import opened, utf8_name
from reader.decoders import Damaged, stamped_frames
from reader.enlarging import CHUNK
from reader.errors import ClipError
from reader.index import read_index
from reader.transforms import ClipBuilder

Segment = tuple[int, ...]  # numbers of its frames, in order


class Shown(NamedTuple):
    """A frame of a video."""

    number: int
    seconds: float  # from the start of the file
    rgb: Callable[[], np.ndarray]  # gives it, uint8 [H, W, 3]


class VideoStream:
    """The frames of a video, in order: those that reader.decode takes.

    Args:
        path: the file.

    Attributes:
        rate: frames a second, on average.
        count: frames, where the index is sure of them; else None.
        damage: why reading ended before the end of the file; "" if it did not.

    Raises:
        ClipError: missing, empty or undecodable file.
    """

    def __init__(self, path: str) -> None:
        self.path, self.damage = path, ""
        with utf8_name(path) as name, opened(name) as (container, stream):
            self.index: Any = read_index(container, stream)
            self.start = max(0.0, (container.start_time or 0) / 1e6)
            declared = float(stream.average_rate or stream.guessed_rate or 0)
        if self.index.stamps and self.index.seconds > 0 and not self.index.interlaced:
            declared = len(self.index.stamps) / self.index.seconds
        if not declared:
            raise ClipError("neither its packets nor its header say how many frames it has a second")
        self.rate = declared
        self.count = None if self.index.doubt else len(self.index.stamps)

    def frames(self) -> Generator[Shown, None, None]:
        """Decode from the start to the end, or to where the data is damaged."""
        seconds, unit = -1 / self.rate, self.index.time_base
        with utf8_name(self.path) as name:
            try:
                for number, (stamp, rgb) in enumerate(stamped_frames(name, self.index)):
                    shown = None if stamp is None else float(stamp * unit) - self.start
                    seconds = seconds + 1 / self.rate if shown is None or (number and shown <= seconds) else shown
                    yield Shown(number, seconds, rgb)
            except Damaged as error:
                self.damage = str(error)


class SegmentCutter:
    """Builds segments from the frames of a video as they come; each frame is scaled and cropped as read_clip does.

    Args:
        short_size, target_size: pixels, see reader.transforms.ClipBuilder.
    """

    def __init__(self, short_size: int, target_size: int) -> None:
        self.sizes = short_size, target_size
        self.size: object = None  # of the scaled frames
        self.places: dict[int, list[tuple[Segment, int]]] = {}  # frame -> the segments that have it, and where
        self.begun: dict[Segment, tuple[np.ndarray, set[int]]] = {}  # pixels, and the places that are still empty
        self._begin_chunk()

    def want(self, segments: Sequence[Segment]) -> None:
        """Announce segments, before the first of their frames comes."""
        side = self.sizes[1]
        for segment in segments:
            if segment in self.begun:
                continue
            pixels = np.empty((len(segment), 3, side, side), np.uint8)
            self.begun[segment] = pixels, set(range(len(segment)))
            for place, frame in enumerate(segment):
                self.places.setdefault(frame, []).append((segment, place))

    def put(self, frame: Shown) -> Iterator[tuple[Segment, np.ndarray]]:
        """Take the next frame. Yields the segments that are whole now, uint8 [3 * seglen, H, W].

        Raises:
            ClipError: no crop fits, or the frames change their shape.
        """
        if frame.number in self.places:
            try:
                self.builder.put(len(self.numbers), frame.rgb())
            except ValueError as error:
                raise ClipError(str(error)) from None
            self.numbers.append(frame.number)
            if len(self.numbers) == CHUNK:
                yield from self.flush()

    def flush(self) -> Iterator[tuple[Segment, np.ndarray]]:
        """The segments that are whole now."""
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
