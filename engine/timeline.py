"""A long video, window by window: what is in it, and when."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.processes import Child, FreshChild
from reader.errors import ClipError
from reader.isolate import ReaderDied, receive
from reader.windows import Facts, Stretch, WindowReader

if TYPE_CHECKING:
    from backends.parts import Parts
    from core.config import ReaderSection

_SHORTER = 1.0  # seconds by which a video may be shorter than its header says, before that is worth a word
_AHEAD = 32  # answers that the child may prepare: it waits as soon as it has pixels that are not taken
_LARGE = 1 << 30  # bytes whose packets are read within the time limit of an answer


class Window(NamedTuple):
    """A part of a video, and what the network says of it."""

    start: float  # seconds
    end: float
    first_frame: int
    frames: int
    logits: np.ndarray  # [num_classes]


class Timeline:
    """The windows of a video. It is read once, in a child process, and little more than a window is held.

    Nothing is decoded before `windows` is called: who has limits looks at `facts` first, and closes.

    Args:
        parts: of the model.
        path: the file.
        section: sizes and sampling; its decode_timeout is how many seconds the child may take for an answer.
        window, stride: seconds, see reader.windows.plan_windows.
        child: starts the process. One that is forked from this would keep what memory this one had, in vain.

    Attributes:
        facts: what is known of the video.
        plan: what is made of window and stride.
        notes: what should be said of the video, complete after the last window.

    Raises:
        ClipError: it cannot be read, or reading it hung or crashed.
        UserError: window or stride make no sense.
    """

    def __init__(
        self,
        parts: Parts,
        path: str,
        section: ReaderSection,
        window: float = 10,
        stride: float = 2,
        child: Callable[[Callable[[Any], Any]], Child] = FreshChild,
    ) -> None:
        self.parts, self.path, self.timeout = parts, path, section.decode_timeout
        self.child: Child | None = child(WindowReader(path, section, window, stride))
        try:
            self.child.send([path])
            self.facts: Facts = self._answer(self.timeout * (1 + _size(path) // _LARGE))
        except BaseException:
            self.close()
            raise
        self.plan = self.facts.plan
        self.seconds: list[float] = []  # of the frames
        self.notes: list[str] = [self.plan.description()]

    def close(self) -> None:
        """End the child, wherever it is; `windows` does so at its end."""
        child, self.child = self.child, None
        if child is not None:
            child.kill()

    def windows(self) -> Iterator[Window]:
        """Read the video, and give each window as soon as it is computed. Closing the generator ends the child.

        Raises:
            ClipError: not a frame can be read, or none that fits; or reading hung or crashed.
        """
        scorer, given = self.parts.windows(), 0
        features: dict[int, np.ndarray] = {}  # of windows that are computed
        try:
            for stretch in self._stretches():
                self.seconds += stretch.seconds
                for window, segments in stretch.windows:
                    scorer.add(window, segments)
                for segment, pixels in stretch.segments:
                    scorer.feed(segment, pixels)
                if stretch.last:
                    scorer.flush()
                    frames = len(self.seconds)
                    self.seconds += [self.seconds[-1] + 1 / self.plan.rate] if frames else []
                features.update(scorer.done())
                while given in features and len(self.seconds) > self.plan.end(given):
                    yield self._window(given, features.pop(given))
                    given += 1
            if stretch.clip:
                yield self._whole_video(*stretch.clip)
            self._note_end(frames, given, stretch.damage)
        finally:
            self.close()

    def _stretches(self) -> Iterator[Stretch]:
        """What the child reads, while it reads on."""
        assert self.child is not None, "a timeline is read once"
        self.child.send([self.path] * _AHEAD)
        while True:
            stretch = self._answer(self.timeout)
            yield stretch
            if stretch.last:
                return
            self.child.send([self.path])

    def _answer(self, timeout: float) -> Any:
        assert self.child is not None
        try:
            return receive(self.child, timeout)
        except ReaderDied as error:
            self.child = None
            raise ClipError(str(error)) from None

    def _window(self, window: int, features: np.ndarray) -> Window:
        first, end = self.plan.first(window), self.plan.end(window)
        logits = self.parts.streaming.logits(features)
        return Window(self.seconds[first], self.seconds[end], first, self.plan.frames, logits)

    def _whole_video(self, pixels: np.ndarray, frames: int) -> Window:
        """A video that is shorter than a window: what predict makes of it."""
        features = self.parts.features(pixels[None])[0]
        start, end = (self.seconds[0], self.seconds[-1]) if self.seconds else (0.0, frames / self.plan.rate)
        return Window(start, end, 0, frames, self.parts.streaming.logits(features))

    def _note_end(self, frames: int, windows: int, damage: str) -> None:
        """Notes of what could not be read, and of what no window holds."""
        end, promised = self.seconds[-1] if self.seconds else 0.0, self.facts.promised
        if damage:
            self.notes.append(f"it cannot be read beyond {end:.2f} s ({damage}): what comes after is left out")
        elif promised > end + _SHORTER:
            self.notes.append(f"its video ends at {end:.2f} s, though its header promises {promised:.2f} s")
        elif self.facts.exact and frames < self.facts.frames:
            self.notes.append(f"of its {self.facts.frames} frames {frames} could be read in order")
        if not windows:
            self.notes.append("it is shorter than a window: taken as one clip")
        elif frames > self.plan.end(windows - 1):
            left = end - self.seconds[self.plan.end(windows - 1)]
            self.notes.append(f"its last {left:.2f} s are too short for another window: in none")


def _size(path: str) -> int:
    """Bytes of a file; 0 if it cannot be had, which the reader says better."""
    with suppress(OSError, ValueError):
        return os.path.getsize(path)
    return 0
