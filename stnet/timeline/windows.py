"""Scores of the windows of a long video, which a child process reads."""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import current_process
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stnet.reader.errors import ClipError
from stnet.reader.windows import SHORTER, Chunk, Ending, Facts, Span, WindowReader
from stnet.utils.processes import Child, ChildDied

if TYPE_CHECKING:
    from stnet.backends.stages import StagedNetwork
    from stnet.config import ReaderSection

_AHEAD = 32  # answers that the child may prepare; it waits while pixels are not taken
_FAR = 0.2  # relative deviation of a window's length that is noted
_LARGE = 1 << 30  # bytes that are indexed within the time limit of an answer


class Window(NamedTuple):
    """A window of a video, and its logits."""

    start: float  # seconds
    end: float
    first_frame: int
    frames: int
    logits: np.ndarray  # [num_classes]


class Timeline:
    """Scores the windows of a video; a child process reads it once, and little more than a window is held in memory.

    Nothing is decoded before `windows` is called, so `facts` can be checked against limits first.

    Args:
        parts: stages of the model.
        path: the file.
        section: sizes and sampling; decode_timeout is the time limit of an answer of the child, in seconds.
        window, stride: seconds, see stnet.reader.windows.plan_windows.
        child: starts the process; by default a fresh one, or a forked one in a daemon.

    Attributes:
        facts: of the video.
        plan: of the windows.
        notes: for the user, complete after the last window.

    Raises:
        ClipError: it cannot be read, or reading hung or crashed.
        UserError: window or stride are invalid.
    """

    def __init__(
        self,
        stages: StagedNetwork,
        path: str,
        section: ReaderSection,
        window: float = 10,
        stride: float = 2,
        child: Callable[[Callable[[Any], Any]], Child] | None = None,
    ) -> None:
        self.stages, self.path, self.timeout = stages, path, section.decode_timeout
        if child is None:
            child = functools.partial(Child, fresh=not current_process().daemon)
        self.child = child(WindowReader(path, section, window, stride))
        try:
            self.child.send([path])
            size = 0
            with suppress(OSError, ValueError):  # the child reports it better
                size = os.path.getsize(path)
            self.facts: Facts = self._answer(self.timeout * (1 + size // _LARGE))
        except BaseException:
            self.close()
            raise
        self.plan = self.facts.plan
        by_time = ", its frames at uneven distances taken by their time" if self.facts.variable else ""
        self.notes: list[str] = [self.plan.description() + by_time]
        if self.facts.resets:
            where = "" if len(self.facts.resets) == 1 else f"{len(self.facts.resets)} times, first "
            self.notes.append(f"its times begin anew {where}at {self.facts.resets[0]:.2f} s: they go on from there")
        length = self.plan.frames / self.plan.rate
        if abs(length - window) > _FAR * window:
            self.notes.append(
                f"its windows are of {length:.2f} s, not of {window:g} s: a window has {self.plan.seg_num} segments of "
                f"whole frames, and there are {self.plan.rate:.2f} a second"
            )

    def close(self) -> None:
        """End the child; `windows` does so at its end."""
        self.child.kill()

    def windows(self) -> Iterator[Window]:
        """Yield each window as soon as it is computed. Closing the generator ends the child.

        Raises:
            ClipError: no frame can be read, or none has the right size; or reading hung or crashed.
        """
        scorer, given = self.stages.windows(), 0
        features: dict[int, np.ndarray] = {}  # by window
        spans: deque[Span] = deque()
        try:
            for chunk in self._chunks():
                for window, segments in chunk.windows:
                    scorer.add(window, segments)
                for segment, pixels in chunk.segments:
                    scorer.feed(segment, pixels)
                if chunk.ended:
                    scorer.flush()
                features.update(scorer.done())
                spans.extend(chunk.spans)
                while spans and spans[0].window in features:
                    span = spans.popleft()
                    yield Window(*span[1:], self.stages.streaming.logits(features.pop(span.window)))
                    given += 1
                if chunk.ended:
                    scorer = self.stages.windows()
            ending = chunk.last
            assert ending is not None
            if ending.clip:
                yield self._whole_video(ending, *ending.clip)
            self._note_end(ending, given)
        finally:
            self.close()

    def _chunks(self) -> Iterator[Chunk]:
        """Receive what the child reads, while it reads ahead."""
        assert not self.child.ended, "a timeline is read once"
        self.child.send([self.path] * _AHEAD)
        while True:
            chunk = self._answer(self.timeout)
            yield chunk
            if chunk.last:
                return
            self.child.send([self.path])

    def _answer(self, timeout: float) -> Any:
        try:
            return self.child.receive(timeout)
        except ChildDied as error:
            raise ClipError(str(error)) from None

    def _whole_video(self, ending: Ending, pixels: np.ndarray, frames: int) -> Window:
        """Score a video shorter than a window as predict does."""
        features = self.stages.features(pixels[None])[0]
        start, end = (ending.start, ending.end) if ending.frames else (0.0, frames / self.plan.rate)
        return Window(start, end, 0, frames, self.stages.streaming.logits(features))

    def _note_end(self, ending: Ending, windows: int) -> None:
        """Add notes of gaps, of damage, and of seconds in no window."""
        end, declared = ending.end, ending.declared
        if ending.gaps:
            first, last = max(ending.gaps, key=lambda gap: gap[1] - gap[0])
            which = "a gap" if len(ending.gaps) == 1 else f"{len(ending.gaps)} gaps, the longest"
            self.notes.append(f"it has {which} from {first:.2f} s to {last:.2f} s: no window crosses it")
        if ending.short:
            lengths = f"{min(ending.short):.2f} s to {max(ending.short):.2f} s"
            self.notes.append(f"{len(ending.short)} of its pieces between gaps are one short window each, of {lengths}")
        if ending.damage:
            self.notes.append(f"it cannot be read beyond {end:.2f} s ({ending.damage}): what comes after is left out")
        elif declared > end + SHORTER:
            self.notes.append(f"its video ends at {end:.2f} s, though its header promises {declared:.2f} s")
        elif self.facts.exact and ending.frames < self.facts.frames:
            self.notes.append(f"of its {self.facts.frames} frames {ending.frames} could be read in order")
        if not windows:
            self.notes.append("it is shorter than a window: taken as one clip")
        elif ending.unused and ending.gaps:
            self.notes.append(f"{ending.unused:.2f} s before gaps and at its end are too short for a window: in none")
        elif ending.unused:
            self.notes.append(f"its last {ending.unused:.2f} s are in no window: too short for another one")
