"""The windows of a long video, cut out of it in a process that can be killed."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from core.config import ReaderSection
from core.errors import UserError
from reader.clip import read_clip
from reader.containers import seconds_of_all
from reader.enlarging import CHUNK
from reader.errors import ClipError
from reader.sampling import sample_frames
from reader.stream import Paced, Segment, SegmentCutter, VideoStream, at_constant_rate
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

    def segments(self, window: int, frames: int = 0) -> list[Segment]:
        """The frames of a window's segments: those of a video that is this window and nothing else.

        Args:
            window: its number.
            frames: that it has, where a piece of the video is shorter than a window; 0: as any.
        """
        first = self.first(window)
        cut = sample_frames(frames or self.frames, self.seg_num, self.seglen)
        return [tuple(first + frame for frame in segment) for segment in cut]

    def description(self) -> str:
        """What came of the seconds that were asked for."""
        window, stride = self.frames / self.rate, self.stride * self.segment / self.rate
        return (
            f"windows of {window:.2f} s ({self.seg_num} segments of {self.segment} frames), one every {stride:.2f} s "
            f"({self.stride} segments), at {self.rate:.2f} frames a second"
        )


_LONGEST = 1e9  # seconds
SHORTER = 1.0  # seconds by which a video may be shorter than its header says, before that is worth a word
_GAP = 2.0  # seconds without a frame, or half a window if that is less: there a video is split


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
    variable: bool = False  # its frames come at uneven distances
    anew: Sequence[float] = ()  # seconds at which its timestamps begin anew

    @property
    def seconds(self) -> float:
        """By the header or by the frames, whichever is more."""
        return max(self.promised, self.frames / self.plan.rate)


class Span(NamedTuple):
    """A window all of whose frames have been read."""

    window: int  # its number in its piece
    start: float  # seconds from the start of the file
    end: float
    first_frame: int  # of the file
    frames: int


class Ending(NamedTuple):
    """What is known of a video after its last frame."""

    start: float  # seconds at which the first frame begins
    end: float  # and the last one ends; 0 if there is none
    frames: int  # of the file
    gaps: list[tuple[float, float]]  # from the end of a frame to the next one
    short: list[float]  # seconds of pieces that are shorter than a window, and one window each
    unheld: float  # seconds that are in no window, as too few come before a gap or the end
    promised: float  # seconds by the container's header; 0 if it does not say, or if that is another stream's
    damage: str  # why the last frame is not the end of the file; "" if it is
    clip: tuple[np.ndarray, int] | None  # without any window: all of it, [seg_num, 3 * seglen, H, W], and frames


class Stretch(NamedTuple):
    """The next frames of a video, and what came of them."""

    frames: int  # at the constant rate
    windows: list[tuple[int, list[Segment]]]  # that begin here
    segments: list[tuple[Segment, np.ndarray]]  # that are whole now, uint8 [3 * seglen, H, W]
    spans: list[Span]  # of windows that end here
    ended: bool = False  # a gap follows, or the end: windows and segments are numbered anew
    last: Ending | None = None  # there is nothing after it


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
        section = self.section
        assert section.seg_num and section.seglen  # Config.section has set them
        plan_windows(self.window, self.stride, 1.0, 1, 1)  # what makes no sense is refused first
        stream = VideoStream(self.path, min(_GAP, self.window / 2))
        plan = plan_windows(self.window, self.stride, stream.rate, section.seg_num, section.seglen)
        index, exact = stream.index, stream.count is not None
        frames = len(index.stamps) if exact else len(index.packets)
        variable = "variable_rate" in index.notes
        yield Facts(index.width, index.height, frames, exact, index.duration, plan, variable, tuple(stream.anew))
        pieces: list[Piece] = []
        paced = at_constant_rate(stream.frames(), plan.rate, stream.gap, stream.slack)
        for number, frames_of_piece in itertools.groupby(paced, lambda frame: frame.piece):
            pieces.append(Piece(plan, section, stream, is_split=number > 0 or len(stream.ends) > 1))
            yield from pieces[-1].read(frames_of_piece)
        yield Stretch(0, [], [], [], last=self._ending(stream, pieces))

    def _ending(self, stream: VideoStream, pieces: Sequence[Piece]) -> Ending:
        windows = sum(piece.given for piece in pieces)
        if len(pieces) > 1 and not windows:
            raise ClipError("none of its pieces between gaps can be read to its end")
        return Ending(
            start=pieces[0].start if pieces else 0.0,
            end=pieces[-1].end if pieces else 0.0,
            frames=stream.read,
            gaps=[(one.end, other.start) for one, other in zip(pieces, pieces[1:])],
            short=[piece.end - piece.start for piece in pieces if piece.given and piece.is_short],
            unheld=sum(piece.unheld for piece in pieces),
            promised=self._promised(stream.index.duration, pieces[-1].end if pieces else 0.0),
            damage=stream.damage,
            clip=None if windows else self._clip(),
        )

    def _promised(self, duration: float, end: float) -> float:
        """The duration that the header gives, unless the video ends earlier and another stream, as sound, does not."""
        return 0.0 if end + SHORTER < duration <= seconds_of_all(self.path) + SHORTER else duration

    def _clip(self) -> tuple[np.ndarray, int]:
        clip = read_clip(self.path, self.section)
        return to_super_images(clip.frames, self.section.seg_num or 1), clip.num_frames


class Piece:
    """A video, or what of it lies between two gaps, cut into windows.

    Args:
        plan: of the windows. Where there are gaps, a piece that is shorter than a window is one window.
        section: sizes.
        stream: what the index tells of it.
        is_split: there are gaps.

    Attributes:
        given: windows that have been read to their ends.
        is_short: it is shorter than a window.
        start, end: seconds of its first frame, and at which the last one so far ends.
        unheld: seconds at its end that are in no window.
    """

    def __init__(self, plan: Plan, section: ReaderSection, stream: VideoStream, is_split: bool) -> None:
        self.plan, self.stream, self.is_split, self.is_short = plan, stream, is_split, False
        self.frames = plan.frames  # of a window
        self.left: int | None = None  # frames of all windows together, where the index tells
        self.times = array("d")  # seconds of each frame
        self.sources = array("q")  # numbers that they have in the file
        self.cutter = SegmentCutter(section.short_size, section.target_size)
        self.start = self.end = 0.0
        self.begun = self.given = 0

    def _begin(self, seconds: float) -> None:
        """Take the time of the first frame."""
        self.start, left = seconds, self.stream.left(seconds)
        if left is not None and (self.is_split or self.stream.count is not None):
            self.left = left
            self.is_short = self.is_split and left < self.plan.frames
            self.frames = left if self.is_short else self.plan.frames

    @property
    def unheld(self) -> float:
        """See the class."""
        first = self.plan.first(self.given - 1) + self.frames if self.given else 0
        return self.end - self.times[first] if first < len(self.times) else 0.0

    def read(self, frames: Iterator[Paced]) -> Iterator[Stretch]:
        """All of it."""
        stretch = Stretch(0, [], [], [])
        for frame in frames:
            if not self.times:
                self._begin(frame.seconds)
            stretch = stretch._replace(frames=stretch.frames + 1)
            stretch.spans.extend(self._spans(frame.seconds))
            self.times.append(frame.seconds)
            self.sources.append(frame.source)
            self.end = frame.seconds + 1 / self.plan.rate
            stretch.windows.extend(self._windows())
            for segment in self.cutter.put(frame):
                stretch.segments.append(segment)
                if len(stretch.segments) * self.plan.seglen >= CHUNK:
                    yield stretch
                    stretch = Stretch(0, [], [], [])
            if stretch.segments or stretch.frames == CHUNK:
                yield stretch
                stretch = Stretch(0, [], [], [])
        for segment in self.cutter.flush():
            yield stretch._replace(segments=[segment])
            stretch = Stretch(0, [], [], [])
        yield stretch._replace(spans=[*stretch.spans, *self._spans(self.end)], ended=True)

    def _windows(self) -> Iterator[tuple[int, list[Segment]]]:
        """Windows that begin with the newest frame, but for those which the piece is too short for."""
        plan = self.plan
        while plan.first(self.begun) < len(self.times):
            if self.left is not None and plan.first(self.begun) + self.frames > self.left:
                return
            segments = plan.segments(self.begun, self.frames)
            self.cutter.want(segments)
            yield self.begun, segments
            self.begun += 1

    def _spans(self, end: float) -> Iterator[Span]:
        """Windows all of whose frames have been read, the last of them until the moment `end`."""
        while self.given < self.begun:
            first = self.plan.first(self.given)
            if first + self.frames > len(self.times):
                return
            first_frame, last_frame = self.sources[first], self.sources[first + self.frames - 1]
            yield Span(self.given, self.times[first], end, first_frame, last_frame + 1 - first_frame)
            self.given += 1
