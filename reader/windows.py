"""Cut the windows of a long video, in a child process."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from stnet.config import ReaderSection
from stnet.reader.clip import read_clip
from stnet.reader.containers import seconds_of_all
from stnet.reader.errors import ClipError
from stnet.reader.resize import CHUNK
from stnet.reader.sampling import sample_frames
from stnet.reader.stream import PacedFrame, Segment, SegmentCutter, VideoStream, at_constant_rate
from stnet.reader.transforms import to_super_images
from stnet.utils.errors import UserError


class Plan(NamedTuple):
    """Windows of a video, in whole frames and segments."""

    rate: float  # frames a second
    seg_num: int
    seglen: int
    segment: int  # length in frames
    stride: int  # in segments

    @property
    def frames(self) -> int:
        """Length of a window in frames."""
        return self.seg_num * self.segment

    def first(self, window: int) -> int:
        """Number of the first frame of a window."""
        return window * self.stride * self.segment

    def end(self, window: int) -> int:
        """Number of the first frame after a window."""
        return self.first(window) + self.frames

    def segments(self, window: int, frames: int = 0) -> list[Segment]:
        """Frames of a window's segments, as of a video that is this window alone.

        Args:
            window: its number.
            frames: of a shorter window, which is a whole piece of the video; 0: of all others.
        """
        first = self.first(window)
        cut = sample_frames(frames or self.frames, self.seg_num, self.seglen)
        return [tuple(first + frame for frame in segment) for segment in cut]

    def description(self) -> str:
        """Text with the actual seconds of window and stride."""
        window, stride = self.frames / self.rate, self.stride * self.segment / self.rate
        return (
            f"windows of {window:.2f} s ({self.seg_num} segments of {self.segment} frames), one every {stride:.2f} s "
            f"({self.stride} segments), at {self.rate:.2f} frames a second"
        )


_LONGEST = 1e9  # seconds
SHORTER = 1.0  # seconds by which a video may be shorter than its header says, without a note
_GAP = 2.0  # seconds without a frame, or half a window if that is less, at which a video is split


def plan_windows(window: float, stride: float, rate: float, seg_num: int, seglen: int) -> Plan:
    """Round window and stride, in seconds, to whole segments of whole frames; a window has `seg_num` of them.

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
    """Properties of a video before its frames are decoded."""

    width: int
    height: int
    frames: int  # by its packets
    exact: bool  # the number of frames is exact
    declared: float  # seconds by the container's header; 0 if missing
    plan: Plan
    variable: bool = False  # its frames come at uneven distances
    resets: Sequence[float] = ()  # seconds at which its timestamps begin anew

    @property
    def seconds(self) -> float:
        """Duration by the header or by the frames, whichever is longer."""
        return max(self.declared, self.frames / self.plan.rate)


class Span(NamedTuple):
    """Window all of whose frames have been read."""

    window: int  # its number in its piece
    start: float  # seconds from the start of the file
    end: float
    first_frame: int  # of the file
    frames: int


class Ending(NamedTuple):
    """Properties of a video after its last frame."""

    start: float  # seconds at which the first frame begins
    end: float  # and the last one ends; 0 if there is none
    frames: int  # of the file
    gaps: list[tuple[float, float]]  # from the end of a frame to the next one
    short: list[float]  # seconds of pieces that are shorter than a window, and one window each
    unused: float  # seconds in no window: too few before a gap or the end
    declared: float  # seconds by the container's header; 0 if missing, or of another stream
    damage: str  # reason why reading ended early; "" if it did not
    clip: tuple[np.ndarray, int] | None  # without any window: the whole clip, [seg_num, 3 * seglen, H, W], and frames


class Chunk(NamedTuple):
    """Next frames of a video, with the windows and segments that begin or end in them."""

    frames: int  # at the constant rate
    windows: list[tuple[int, list[Segment]]]  # that begin here
    segments: list[tuple[Segment, np.ndarray]]  # that are complete now, uint8 [3 * seglen, H, W]
    spans: list[Span]  # of windows that end here
    ended: bool = False  # a gap follows, or the end: windows and segments are numbered from 0
    last: Ending | None = None  # of the last one


class WindowReader:
    """Reader for a child process: its first call returns the Facts of a video, the others Chunks, and at last None.

    Args:
        path: the file.
        section: sizes and sampling.
        window, stride: seconds, see plan_windows.

    It can be pickled until it is called. It holds the segments that are begun, and at most CHUNK frames.
    """

    def __init__(self, path: str, section: ReaderSection, window: float, stride: float) -> None:
        self.path, self.section, self.window, self.stride = path, section, window, stride
        self.answers: Iterator[Facts | Chunk] | None = None

    def __call__(self, _: object) -> Facts | Chunk | None:
        """Return the next answer. Raises ClipError, or UserError as plan_windows."""
        if self.answers is None:
            self.answers = self._read()
        return next(self.answers, None)

    def _read(self) -> Iterator[Facts | Chunk]:
        section = self.section
        assert section.seg_num and section.seglen  # Config.section has set them
        plan_windows(self.window, self.stride, 1.0, 1, 1)  # raises before the file is opened
        stream = VideoStream(self.path, min(_GAP, self.window / 2))
        plan = plan_windows(self.window, self.stride, stream.rate, section.seg_num, section.seglen)
        index, exact = stream.index, stream.count is not None
        frames = len(index.timestamps) if exact else len(index.packets)
        variable = "variable_rate" in index.notes
        yield Facts(index.width, index.height, frames, exact, index.duration, plan, variable, tuple(stream.resets))
        pieces: list[Piece] = []
        paced = at_constant_rate(stream.frames(), plan.rate, stream.gap, stream.slack)
        for number, frames_of_piece in itertools.groupby(paced, lambda frame: frame.piece):
            pieces.append(Piece(plan, section, stream, is_split=number > 0 or len(stream.ends) > 1))
            yield from pieces[-1].read(frames_of_piece)
        yield Chunk(0, [], [], [], last=self._ending(stream, pieces))

    def _ending(self, stream: VideoStream, pieces: Sequence[Piece]) -> Ending:
        windows = sum(piece.given for piece in pieces)
        if len(pieces) > 1 and not windows:
            raise ClipError("none of its pieces between gaps can be read to its end")
        end = pieces[-1].end if pieces else 0.0
        declared = stream.index.duration
        if end + SHORTER < declared <= seconds_of_all(self.path) + SHORTER:
            declared = 0.0  # of another stream, such as sound
        whole = None
        if not windows:
            clip = read_clip(self.path, self.section)
            whole = to_super_images(clip.frames, self.section.seg_num or 1), clip.num_frames
        return Ending(
            start=pieces[0].start if pieces else 0.0,
            end=end,
            frames=stream.read,
            gaps=[(one.end, other.start) for one, other in zip(pieces, pieces[1:])],
            short=[piece.end - piece.start for piece in pieces if piece.given and piece.is_short],
            unused=sum(piece.unused for piece in pieces),
            declared=declared,
            damage=stream.damage,
            clip=whole,
        )


class Piece:
    """Part of a video between two gaps, or all of it, cut into windows.

    Args:
        plan: of the windows. With gaps, a piece that is shorter than a window is one window.
        section: sizes.
        stream: of the video.
        is_split: the video has gaps.

    Attributes:
        given: number of windows that have been read to their ends.
        is_short: it is shorter than a window.
        start, end: seconds at which its first frame begins, and the last one so far ends.
    """

    def __init__(self, plan: Plan, section: ReaderSection, stream: VideoStream, is_split: bool) -> None:
        self.plan, self.stream, self.is_split, self.is_short = plan, stream, is_split, False
        self.frames = plan.frames  # of a window
        self.left: int | None = None  # frames of all windows together; None if unknown
        self.times = array("d")  # seconds of each frame
        self.sources = array("q")  # their numbers in the file
        self.cutter = SegmentCutter(section.short_size, section.target_size)
        self.start = self.end = 0.0
        self.begun = self.given = 0

    def _begin(self, seconds: float) -> None:
        """Set start and lengths by the time of the first frame."""
        self.start, left = seconds, self.stream.left(seconds)
        if left is not None and (self.is_split or self.stream.count is not None):
            self.left = left
            self.is_short = self.is_split and left < self.plan.frames
            self.frames = left if self.is_short else self.plan.frames

    @property
    def unused(self) -> float:
        """Seconds at its end that are in no window."""
        first = self.plan.first(self.given - 1) + self.frames if self.given else 0
        return self.end - self.times[first] if first < len(self.times) else 0.0

    def read(self, frames: Iterator[PacedFrame]) -> Iterator[Chunk]:
        """Read the whole piece."""
        chunk = Chunk(0, [], [], [])
        for frame in frames:
            if not self.times:
                self._begin(frame.seconds)
            chunk = chunk._replace(frames=chunk.frames + 1)
            chunk.spans.extend(self._spans(frame.seconds))
            self.times.append(frame.seconds)
            self.sources.append(frame.source)
            self.end = frame.seconds + 1 / self.plan.rate
            chunk.windows.extend(self._windows())
            for segment in self.cutter.put(frame):
                chunk.segments.append(segment)
                if len(chunk.segments) * self.plan.seglen >= CHUNK:
                    yield chunk
                    chunk = Chunk(0, [], [], [])
            if chunk.segments or chunk.frames == CHUNK:
                yield chunk
                chunk = Chunk(0, [], [], [])
        for segment in self.cutter.flush():
            yield chunk._replace(segments=[segment])
            chunk = Chunk(0, [], [], [])
        yield chunk._replace(spans=[*chunk.spans, *self._spans(self.end)], ended=True)

    def _windows(self) -> Iterator[tuple[int, list[Segment]]]:
        """Windows that begin with the newest frame and fit into the piece."""
        plan = self.plan
        while plan.first(self.begun) < len(self.times):
            if self.left is not None and plan.first(self.begun) + self.frames > self.left:
                return
            segments = plan.segments(self.begun, self.frames)
            self.cutter.want(segments)
            yield self.begun, segments
            self.begun += 1

    def _spans(self, end: float) -> Iterator[Span]:
        """Windows all of whose frames have been read; the last one ends at `end` seconds."""
        while self.given < self.begun:
            first = self.plan.first(self.given)
            if first + self.frames > len(self.times):
                return
            first_frame, last_frame = self.sources[first], self.sources[first + self.frames - 1]
            yield Span(self.given, self.times[first], end, first_frame, last_frame + 1 - first_frame)
            self.given += 1
