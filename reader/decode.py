"""Decode frames of video files: the same frames whichever decoder is used.

An index (index.py) identifies the frames by their timestamps. Where it is reliable, decord decodes ordinary files from
the start, and PyAV seeks in long ones. PyAV reads all others in order. Damaged files are read by OpenCV, and so give
the same frames as in the original.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from stnet.reader import decoders
from stnet.reader.containers import opened, utf8_name
from stnet.reader.errors import ClipError, CorruptVideo, IndexMismatch
from stnet.reader.index import DAMAGED, Index, plan, read_index
from stnet.reader.joined import follow
from stnet.reader.spans import Span, times_shown
from stnet.utils.errors import UserError

DECODERS = ("decord", "pyav", "opencv")
_DECORD_CONTAINERS = ("mov", "matroska")  # recognised by their first bytes, by older FFmpegs too
_DECORD_BYTES = 128 << 20  # of all frames: decord can hold nearly as many at a time
_SHORT = 1000  # packets: shorter files are decoded in order, which needs no index
_DECORD_PIXELS = ("yuv420p", "yuvj420p")


class Sink(Protocol):
    """Receiver of decoded frames."""

    def begin(self, count: int) -> Sequence[int]:
        """Return the ascending numbers of the wanted frames, of `count`; called again for another attempt."""

    def put(self, row: int, frame: np.ndarray) -> None:
        """Take the row-th wanted frame, uint8 [H, W, 3] RGB, which must not change afterwards."""


class ClipSink(Sink, Protocol):
    """Sink of a clip, for stnet.reader.formats."""

    span: Span | None  # the only part that is wanted; set for formats that know spans
    video: Video | None  # index and decoder of a video; other formats leave it None


class Video(NamedTuple):
    """Index and decoder of a video file."""

    index: Index  # type: ignore[assignment]  # a tuple has a method of this name
    frames: int  # that a decoder shows
    decoder: str  # one of DECODERS
    in_order: str  # reason why it was read in order; "" if by timestamps
    damaged: bool  # its data is incomplete, and that is the reason
    first: int = 0  # number of the first frame of the span


def read_frames(path: str, sink: Sink, decoder: str = "", span: Span | None = None) -> Video:
    """Decode the frames that a sink wants.

    Args:
        path: the file.
        sink: says which frames it wants and takes them.
        decoder: the only one of DECODERS to use; "": STNET_DECODER in the environment, else the fastest exact one.
        span: the only part to read, whose frames the sink sees as those of a video of its own; None: all.

    Raises:
        ClipError: missing, empty or undecodable file, one that `decoder` may decode wrongly, or no frame in the span.
        UserError: STNET_DECODER names none of DECODERS.
    """
    decoder = decoder or decoder_asked_for()
    with utf8_name(path) as name:
        with opened(name) as (container, stream):
            index = read_index(container, stream)
        seek_problem, damaged = index.seek_problem, index.damaged
        if not seek_problem and decoder != "opencv":
            try:
                return _by_index(name, index, sink, decoder, span)
            except IndexMismatch as error:
                seek_problem = str(error)
            except CorruptVideo as error:
                seek_problem, damaged = f"{DAMAGED}: {error}", True
        if decoder == "decord":
            raise ClipError(f"decord cannot be shown to give the right frames ({seek_problem})")
        return _in_order(name, index, sink, decoder, span, seek_problem or "OpenCV was asked for", damaged)


def decoder_asked_for() -> str:
    """Decoder that STNET_DECODER names, or "". Raises UserError unless it is one of DECODERS."""
    asked = os.environ.get("STNET_DECODER", "")
    if asked and asked not in DECODERS:
        raise UserError(f"STNET_DECODER is {asked!r}; expected one of {', '.join(DECODERS)}, or nothing")
    return asked


def _by_index(path: str, index: Index, sink: Sink, decoder: str, span: Span | None) -> Video:
    """Decode by timestamp. Raises CorruptVideo or IndexMismatch."""
    part = span.frames(index.timestamps, index.time_base) if span else range(len(index.timestamps))
    if span and not part:
        raise span.without_frames(index.timestamps, index.time_base)
    frames = [part[number] for number in sink.begin(len(part))]
    read = Video(index, len(index.timestamps), "decord", "", False, part.start)
    unfit = _unfit_for_decord(index)
    if decoder == "decord" and unfit:
        raise IndexMismatch(unfit)
    if decoder == "decord" or not (decoder or unfit):
        try:
            decoders.by_decord(path, index, frames, sink.put)
            return read
        except IndexMismatch:
            if decoder == "decord":
                raise
            sink.begin(len(part))
    if len(index.packets) <= _SHORT:
        raise IndexMismatch("so few frames that all are decoded")
    decoders.by_timestamp(path, index, plan(index, frames), sink.put)
    return read._replace(decoder="pyav")


def _unfit_for_decord(index: Index) -> str:
    """Reason why decord may give wrong frames; "" if none."""
    if not _has_decord():
        return "decord is not installed"
    if index.container.split(",")[0] not in _DECORD_CONTAINERS or index.streams > 1:
        return f"container {index.container}"
    if index.codec != "h264" or index.pixel_format not in _DECORD_PIXELS:
        return f"codec {index.codec} with {index.pixel_format}"
    if index.rotation or index.resized or index.width % 2 or index.height % 2:
        return "turned, scaled or of an odd size"
    if 3 * index.width * index.height * len(index.timestamps) > _DECORD_BYTES:
        return "too large"
    return "" if all(packet.shown for packet in index.packets) else "an edit list"


@functools.cache
def _has_decord() -> bool:
    try:
        import decord  # noqa: F401 (it has no wheels for some platforms)
    except (ImportError, OSError):
        return False
    return True


def _in_order(
    path: str, index: Index, sink: Sink, decoder: str, span: Span | None, reason: str, damaged: bool
) -> Video:
    """Decode from the start to the end: by PyAV if it can, by OpenCV if data is damaged."""
    readers = {"pyav": decoders.timed_frames, "opencv": decoders.opencv_frames}
    names = ["opencv"] if damaged else ["pyav", "opencv"]
    if decoder:
        names = [decoder]
    failure = f" ({reason})" if damaged else ""
    blackens = "opencv" in names and decoders.opencv_blackens_interlaced()
    if blackens and (index.interlaced or (damaged and decoders.shows_interlaced(path))):
        names = [] if decoder else ["pyav"]
        failure = " (interlaced, which this OpenCV cannot convert)"
    for name in names:
        try:
            count, first = _read_all(functools.partial(readers[name], path, index), index, sink, span)
        except CorruptVideo as error:
            reason, damaged = f"{DAMAGED}: {error}", True
            failure = f" ({reason})"
            continue
        if count:
            return Video(index, count, name, reason, damaged, first)
    raise ClipError(f"no frame can be decoded{failure}")


def _read_all(
    frames_of: Callable[[], Iterator[decoders.TimedFrame]], index: Index, sink: Sink, span: Span | None
) -> tuple[int, int]:
    """Read a file in order, again where its number of frames, or their times, turn out to be others than expected.

    Args:
        frames_of: begins to read.
        index: of the file, which says what is expected.
        sink: says which frames it wants and takes them.
        span: the only part to read, or None.

    Returns:
        the number of frames, and that of the first one in the span.
    """
    unit = index.time_base
    part = span.frames(index.times, unit) if span else range(len(index.timestamps) or index.declared)
    while True:
        rows = {part[number]: row for row, number in enumerate(sink.begin(len(part)))} if part else {}
        decoded: list[int | None] = []
        for number, (time, frame) in enumerate(follow(frames_of(), index.parts)):
            if number in rows:
                sink.put(rows[number], frame())
            decoded.append(time)
        found = range(len(decoded))
        if span and decoded:
            times = times_shown(decoded, index.times)
            found = span.frames(times, unit)
            if not found:
                raise span.without_frames(times, unit)
        if not decoded or found == part:
            return len(decoded), found.start
        part = found


class Frames:
    """Sink that keeps its frames. `pick` returns, for the number of frames, the wanted ones, which may repeat."""

    def __init__(self, pick: Callable[[int], Sequence[int]]) -> None:
        self.pick = pick

    def begin(self, count: int) -> list[int]:
        """Return the distinct frames of `pick`."""
        numbers, self.places = np.unique(np.asarray(self.pick(count)), return_inverse=True)
        self.rows: list[np.ndarray] = [np.empty(0)] * len(numbers)
        return numbers.tolist()

    def put(self, row: int, frame: np.ndarray) -> None:
        """Keep a frame."""
        self.rows[row] = frame


def read_video(path: str, pick: Callable[[int], Sequence[int]], decoder: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Read frames of a video: (distinct frames, uint8 [K, H, W, 3] RGB, the row of each number of `pick`).

    Arguments and errors as read_frames; `pick` as for Frames.
    """
    sink = Frames(pick)
    read_frames(path, sink, decoder)
    return np.stack(sink.rows), sink.places.reshape(-1)
