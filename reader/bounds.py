"""Limits on the length and size of untrusted videos: decoding stops there, whatever the file's header says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from stnet.reader.errors import ClipError


class Bounds(NamedTuple):
    """Limits on a video."""

    seconds: float
    frames: int
    pixels: int  # of a frame


class BeyondBounds(ClipError):
    """A video exceeds a limit; `bound` is its name in Bounds."""

    def __init__(self, message: str, bound: str = "") -> None:
        super().__init__(message)
        self.bound = bound


_BOUNDS: ContextVar[Bounds | None] = ContextVar("bounds", default=None)


@contextmanager
def bounded(bounds: Bounds) -> Iterator[None]:
    """Context in which reading a video raises BeyondBounds where it exceeds the limits."""
    token = _BOUNDS.set(bounds)
    try:
        yield
    finally:
        _BOUNDS.reset(token)


class Bounded:
    """Calls a function of one item within limits; it can be pickled if the function can."""

    def __init__(self, bounds: Bounds, function: Callable[[Any], Any]) -> None:
        self.bounds, self.function = bounds, function

    def __call__(self, item: Any) -> Any:
        """Call the function. Raises ClipError also where memory runs out."""
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
    """Raise BeyondBounds where there are more frames than are read."""
    bounds = _BOUNDS.get()
    if bounds and frames > bounds.frames:
        raise BeyondBounds(f"it has {frames} frames or more, and at most {bounds.frames} are read", "frames")


def check_pixels(width: int, height: int) -> None:
    """Raise BeyondBounds where frames are too large."""
    bounds = _BOUNDS.get()
    if bounds and width * height > bounds.pixels:
        size = f"{width} x {height}"
        raise BeyondBounds(f"its frames are of {size} pixels, and at most {bounds.pixels} are read", "pixels")
