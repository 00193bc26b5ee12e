"""How much a video may hold where it comes from strangers: decoding stops there, whatever the file's header says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from stnet.reader.errors import ClipError


class Bounds(NamedTuple):
    """The most that is read of a video."""

    seconds: float
    frames: int
    pixels: int  # of a frame


class BeyondBounds(ClipError):
    """A video holds more than is read; `bound` is the name of the one of Bounds."""

    def __init__(self, message: str, bound: str = "") -> None:
        super().__init__(message)
        self.bound = bound


_BOUNDS: ContextVar[Bounds | None] = ContextVar("bounds", default=None)


@contextmanager
def bounded(bounds: Bounds) -> Iterator[None]:
    """Have whatever is read raise BeyondBounds where it goes beyond the bounds."""
    token = _BOUNDS.set(bounds)
    try:
        yield
    finally:
        _BOUNDS.reset(token)


class Bounded:
    """A function of one item, called within bounds; it can be pickled if that can."""

    def __init__(self, bounds: Bounds, function: Callable[[Any], Any]) -> None:
        self.bounds, self.function = bounds, function

    def __call__(self, item: Any) -> Any:
        """What the function returns. Raises ClipError also where the memory does not suffice."""
        with bounded(self.bounds):
            try:
                return self.function(item)
            except MemoryError:
                raise ClipError("decoding it takes more memory than it may have") from None


def check_seconds(seconds: float) -> None:
    """Raise BeyondBounds where a video is too long."""
    bounds = _BOUNDS.get()
    if bounds and seconds > bounds.seconds:
        raise BeyondBounds(f"it is {seconds:.0f} s long, and at most {bounds.seconds:g} s are read", "seconds")


def check_frames(frames: int) -> None:
    """Raise BeyondBounds where there are so many frames, or more."""
    bounds = _BOUNDS.get()
    if bounds and frames > bounds.frames:
        raise BeyondBounds(f"it has {frames} frames or more, and at most {bounds.frames} are read", "frames")


def check_pixels(width: int, height: int) -> None:
    """Raise BeyondBounds where frames are too large."""
    bounds = _BOUNDS.get()
    if bounds and width * height > bounds.pixels:
        size = f"{width} x {height}"
        raise BeyondBounds(f"its frames are of {size} pixels, and at most {bounds.pixels} are read", "pixels")
