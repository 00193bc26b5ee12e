"""A long video, window by window: what is in it, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backends.export import clip_sizes
from core.errors import UserError
from reader.clip import read_clip
from reader.sampling import sample_frames
from reader.stream import Segment, SegmentCutter, Shown, VideoStream
from reader.transforms import to_super_images

if TYPE_CHECKING:
    from backends.parts import Parts
    from core.config import ReaderSection

_SHORTER = 1.0  # seconds by which a video may be shorter than its header says, before that is worth a word


class Window(NamedTuple):
    """A part of a video, and what the network says of it."""

    start: float  # seconds
    end: float
    first_frame: int
    frames: int
    logits: np.ndarray  # [num_classes]


class Plan(NamedTuple):
    """How a video is cut into windows, in whole frames and segments."""

    rate: float  # frames a second
    seg_num: int
    seglen: int
    segment: int  # frames
    stride: int  # segments

    @property
    def frames(self) -> int:
        """Frames of a window."""
        return self.seg_num * self.segment

    def segments(self, window: int) -> list[Segment]:
        """The frames of a window's segments: those of a video that is this window and nothing else."""
        first = window * self.stride * self.segment
        cut = sample_frames(self.frames, self.seg_num, self.seglen)
        return [tuple(first + frame for frame in segment) for segment in cut]

    def description(self) -> str:
        """What came of the seconds that were asked for."""
        window, stride = self.frames / self.rate, self.stride * self.segment / self.rate
        return (
            f"windows of {window:.2f} s ({self.seg_num} segments of {self.segment} frames), one every {stride:.2f} s "
            f"({self.stride} segments), at {self.rate:.2f} frames a second"
        )


def plan_windows(window: float, stride: float, rate: float, seg_num: int, seglen: int) -> Plan:
    """Windows and strides of about so many seconds.

    A segment is a whole number of frames, a window `seg_num` segments, a stride a whole number of segments.

    Raises:
        UserError: window or stride are not above 0.
    """
    if not (0 < window < float("inf") and 0 < stride < float("inf")):
        raise UserError(f"window and stride: expected more than 0 seconds, found {window:g} and {stride:g}")
    segment = max(1, round(window * rate / seg_num))
    return Plan(rate, seg_num, seglen, segment, max(1, round(stride * rate / segment)))


class Timeline:
    """The windows of a video. It is read once, and little more than a window is held.

    Args:
        parts: of the model.
        path: the file.
        section: sizes and sampling.
        window, stride: seconds, see plan_windows.

    Attributes:
        plan: what is made of window and stride.
        notes: what should be said of the video, complete after the last window.

    Raises:
        ClipError: it cannot be read.
    """

    def __init__(self, parts: Parts, path: str, section: ReaderSection, window: float = 10, stride: float = 2) -> None:
        self.parts, self.path, self.section = parts, path, section
        self.stream = VideoStream(path)
        seg_num, seglen, _ = clip_sizes(section)
        self.plan = plan_windows(window, stride, self.stream.rate, seg_num, seglen)
        self.seconds: list[float] = []  # of the frames
        self.notes: list[str] = [self.plan.description()]

    def windows(self) -> Iterator[Window]:
        """Read the video, and give each window as soon as it is computed.

        Raises:
            ClipError: not a frame can be read, or none that fits.
        """
        scorer, cutter = self.parts.windows(), SegmentCutter(self.section.short_size, self.section.target_size)
        features: dict[int, np.ndarray] = {}  # of windows that are computed
        announced = given = 0

        def given_in_order() -> Iterator[Window]:
            nonlocal given
            features.update(scorer.done())
            while given in features and len(self.seconds) > self._end(given):
                yield self._window(given, features.pop(given))
                given += 1

        for frame in self.stream.frames():
            self.seconds.append(frame.seconds)
            while self._begins(announced, frame):
                segments = self.plan.segments(announced)
                scorer.add(announced, segments)
                cutter.want(segments)
                announced += 1
            for segment, pixels in cutter.put(frame):
                scorer.feed(segment, pixels)
            yield from given_in_order()
        for segment, pixels in cutter.flush():
            scorer.feed(segment, pixels)
        scorer.flush()
        frames = len(self.seconds)
        if frames:
            self.seconds.append(self.seconds[-1] + 1 / self.plan.rate)
        yield from given_in_order()
        if not given:
            yield self._whole_video()
        self._note_end(frames, given)

    def _begins(self, window: int, frame: Shown) -> bool:
        """Whether a window has begun, and does not end beyond the video, as far as its end is known."""
        first = window * self.plan.stride * self.plan.segment
        return first <= frame.number and (self.stream.count is None or self._end(window) <= self.stream.count)

    def _end(self, window: int) -> int:
        """Number of the first frame after a window."""
        return window * self.plan.stride * self.plan.segment + self.plan.frames

    def _window(self, window: int, features: np.ndarray) -> Window:
        first, end = self._end(window) - self.plan.frames, self._end(window)
        logits = self.parts.streaming.logits(features)
        return Window(self.seconds[first], self.seconds[end], first, self.plan.frames, logits)

    def _whole_video(self) -> Window:
        """A video that is shorter than a window: what predict makes of it."""
        clip = read_clip(self.path, self.section)
        features = self.parts.features(to_super_images(clip.frames, self.plan.seg_num)[None])[0]
        start, end = (self.seconds[0], self.seconds[-1]) if self.seconds else (0.0, clip.num_frames / self.plan.rate)
        return Window(start, end, 0, clip.num_frames, self.parts.streaming.logits(features))

    def _note_end(self, frames: int, windows: int) -> None:
        """Notes of what could not be read, and of what no window holds."""
        end, promised = self.seconds[-1] if self.seconds else 0.0, self.stream.index.duration
        if self.stream.damage:
            self.notes.append(
                f"it cannot be read beyond {end:.2f} s ({self.stream.damage}): what comes after is left out"
            )
        elif promised > end + _SHORTER:
            self.notes.append(f"its video ends at {end:.2f} s, though its header promises {promised:.2f} s")
        elif self.stream.count is not None and frames < self.stream.count:
            self.notes.append(f"of its {self.stream.count} frames {frames} could be read in order")
        if not windows:
            self.notes.append("it is shorter than a window: taken as one clip")
        elif frames > self._end(windows - 1):
            left = end - self.seconds[self._end(windows - 1)]
            self.notes.append(f"its last {left:.2f} s are too short for another window: in none")
