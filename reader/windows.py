"""The windows of a long video, cut out of it in a process that can be killed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from core.config import ReaderSection
from core.errors import UserError
from reader.clip import read_clip
from reader.enlarging import CHUNK
from reader.sampling import sample_frames
from reader.stream import Segment, SegmentCutter, VideoStream
from reader.transforms import to_super_images


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

    def first(self, window: int) -> int:
        """Number of the first frame of a window."""
        return window * self.stride * self.segment

    def end(self, window: int) -> int:
        """Number of the first frame after a window."""
        return self.first(window) + self.frames

    def segments(self, window: int) -> list[Segment]:
        """The frames of a window's segments: those of a video that is this window and nothing else."""
        first = self.first(window)
        cut = sample_frames(self.frames, self.seg_num, self.seglen)
        return [tuple(first + frame for frame in segment) for segment in cut]

    def description(self) -> str:
        """What came of the seconds that were asked for."""
        window, stride = self.frames / self.rate, self.stride * self.segment / self.rate
        return (
            f"windows of {window:.2f} s ({self.seg_num} segments of {self.segment} frames), one every {stride:.2f} s "
            f"({self.stride} segments), at {self.rate:.2f} frames a second"
        )


_LONGEST = 1e9  # seconds


def plan_windows(window: float, stride: float, rate: float, seg_num: int, seglen: int) -> Plan:
    """Windows and strides of about so many seconds.

    A segment is a whole number of frames, a window `seg_num` segments, a stride a whole number of segments.

    Raises:
        UserError: window or stride are not above 0, or longer than any video.
    """
    if not (0 < window < float("inf") and 0 < stride < float("inf")):
        raise UserError(f"window and stride: expected more than 0 seconds, found {window:g} and {stride:g}")
    if max(window, stride) > _LONGEST:
        raise UserError(f"window and stride: expected at most {_LONGEST:g} seconds, found {window:g} and {stride:g}")
    segment = max(1, round(window * rate / seg_num))
    return Plan(rate, seg_num, seglen, segment, max(1, round(stride * rate / segment)))


class Facts(NamedTuple):
    """What is known of a video before its frames are decoded."""

    width: int
    height: int
    frames: int  # by its packets
    exact: bool  # there are exactly so many frames
    promised: float  # seconds, by the container's header; 0 if it does not say
    plan: Plan

    @property
    def seconds(self) -> float:
        """By the header or by the frames, whichever is more."""
        return max(self.promised, self.frames / self.plan.rate)


class Stretch(NamedTuple):
    """The next frames of a video, and what came of them."""

    seconds: list[float]  # of each frame, from the start of the file
    windows: list[tuple[int, list[Segment]]]  # that begin here
    segments: list[tuple[Segment, np.ndarray]]  # that are whole now, uint8 [3 * seglen, H, W]
    last: bool = False
    damage: str = ""  # why the last one is not the end of the file
    clip: tuple[np.ndarray, int] | None = None  # without any window: all of it, [seg_num, 3 * seglen, H, W], and frames


class WindowReader:
    """What a child process calls: the first call gives a video's Facts, the others its Stretches, and at last None.

    Args:
        path: the file.
        section: sizes and sampling.
        window, stride: seconds, see plan_windows.

    It can be pickled until it is called. It holds the segments that are begun and no more than CHUNK frames besides.
    """

    def __init__(self, path: str, section: ReaderSection, window: float, stride: float) -> None:
        self.path, self.section, self.window, self.stride = path, section, window, stride
        self.answers: Iterator[Facts | Stretch] | None = None

    def __call__(self, _: object) -> Facts | Stretch | None:
        """The next answer.

        Raises:
            ClipError: the file cannot be read, or no crop fits into its frames.
            UserError: as plan_windows.
        """
        if self.answers is None:
            self.answers = self._read()
        return next(self.answers, None)

    def _read(self) -> Iterator[Facts | Stretch]:
        stream, section = VideoStream(self.path), self.section
        assert section.seg_num and section.seglen  # Config.section has set them
        plan = plan_windows(self.window, self.stride, stream.rate, section.seg_num, section.seglen)
        index, exact = stream.index, stream.count is not None
        frames = len(index.stamps) if exact else len(index.packets)
        facts = Facts(index.width, index.height, frames, exact, index.duration, plan)
        yield facts
        yield from self._stretches(stream, facts)

    def _stretches(self, stream: VideoStream, facts: Facts) -> Iterator[Stretch]:
        cutter, plan = SegmentCutter(self.section.short_size, self.section.target_size), facts.plan
        stretch, begun, read = Stretch([], [], []), 0, 0
        for frame in stream.frames():
            stretch.seconds.append(frame.seconds)
            read = frame.number + 1
            while plan.first(begun) < read and not (facts.exact and plan.end(begun) > facts.frames):
                segments = plan.segments(begun)
                cutter.want(segments)
                stretch.windows.append((begun, segments))
                begun += 1
            for segment in cutter.put(frame):
                stretch.segments.append(segment)
                if len(stretch.segments) * plan.seglen >= CHUNK:
                    yield stretch
                    stretch = Stretch([], [], [])
            if stretch.segments or len(stretch.seconds) == CHUNK:
                yield stretch
                stretch = Stretch([], [], [])
        for segment in cutter.flush():
            yield stretch._replace(segments=[segment])
            stretch = Stretch([], [], [])
        clip = None if begun and read >= plan.end(0) else self._clip()
        yield stretch._replace(last=True, damage=stream.damage, clip=clip)

    def _clip(self) -> tuple[np.ndarray, int]:
        clip = read_clip(self.path, self.section)
        return to_super_images(clip.frames, self.section.seg_num or 1), clip.num_frames
