"""Frames out of video files: those that a decoder shows which begins at the start, whoever decodes.

An index (index.py) tells the frames apart by their timestamps. Where it is sound, decord decodes from the start on
what it can be trusted with, and PyAV seeks in long files. All else PyAV reads in order; where data turns out to be
damaged, OpenCV does, as the original: so a damaged clip gives the same frames as it did there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from stnet.reader import decoders
from stnet.reader.containers import opened, utf8_name
from stnet.reader.errors import ClipError, CorruptVideo, IndexMismatch
from stnet.reader.index import DAMAGED, Index, plan, read_index
from stnet.utils.errors import UserError

DECODERS = ("decord", "pyav", "opencv")
_DECORD_CONTAINERS = ("mov", "matroska")  # told by their first bytes: older FFmpegs see the same in them
_DECORD_BYTES = 128 << 20  # of all frames: decord can hold nearly as many at a time
_SHORT = 1000  # packets: so few are decoded all, which no index can be wrong about
_DECORD_PIXELS = ("yuv420p", "yuvj420p")


class Sink(Protocol):
    """Who asks for frames, and takes them."""

    def begin(self, count: int) -> Sequence[int]:
        """The ascending numbers of the frames that are wanted, of `count`; called again for another attempt."""

    def put(self, row: int, frame: np.ndarray) -> None:
        """Take the row-th of them, uint8 [H, W, 3] RGB, which must not change afterwards."""


class ClipSink(Sink, Protocol):
    """A sink that also keeps how a video was read; other formats leave it None."""

    video: Video | None


class Video(NamedTuple):
    """What was read of a video file."""

    index: Index  # type: ignore[assignment]  # a tuple has a method of this name
    frames: int  # that a decoder shows
    decoder: str  # one of DECODERS
    in_order: str  # why it was read in order from the start to the end; "" if frames were got by their timestamps
    damaged: bool  # its data is not whole, and that is why


def read_frames(path: str, sink: Sink, decoder: str = "") -> Video:
    """Decode the frames that a sink wants.

    Args:
        path: the file.
        sink: wants and takes them.
        decoder: one of DECODERS, and no other; "" asks the environment variable STNET_DECODER and else chooses.

    Raises:
        ClipError: missing, empty or undecodable file, or one that `decoder` cannot be shown to decode rightly.
        UserError: STNET_DECODER names none of DECODERS.
    """
    decoder = decoder or decoder_asked_for()
    with utf8_name(path) as name:
        return _read_frames(name, sink, decoder)


def _read_frames(path: str, sink: Sink, decoder: str) -> Video:
    with opened(path) as (container, stream):
        index = read_index(container, stream)
    seek_problem, damaged = index.seek_problem, index.damaged
    if not seek_problem and decoder != "opencv":
        try:
            return Video(index, len(index.timestamps), _by_index(path, index, sink, decoder), "", False)
        except IndexMismatch as error:
            seek_problem = str(error)
        except CorruptVideo as error:
            seek_problem, damaged = f"{DAMAGED}: {error}", True
    if decoder == "decord":
        raise ClipError(f"decord cannot be shown to give the right frames ({seek_problem})")
    return _in_order(path, index, sink, decoder, seek_problem or "OpenCV was asked for", damaged)


def decoder_asked_for() -> str:
    """One of DECODERS that STNET_DECODER names, or "". Raises UserError."""
    asked = os.environ.get("STNET_DECODER", "")
    if asked and asked not in DECODERS:
        raise UserError(f"STNET_DECODER is {asked!r}; expected one of {', '.join(DECODERS)}, or nothing")
    return asked


def _by_index(path: str, index: Index, sink: Sink, decoder: str) -> str:
    """Decode by timestamp. Returns who did. Raises CorruptVideo or IndexMismatch."""
    frames = sink.begin(len(index.timestamps))
    unfit = _unfit_for_decord(index)
    if decoder == "decord" and unfit:
        raise IndexMismatch(unfit)
    if decoder == "decord" or not (decoder or unfit):
        try:
            decoders.by_decord(path, index, frames, sink.put)
            return "decord"
        except IndexMismatch:
            if decoder == "decord":
                raise
            sink.begin(len(index.timestamps))
    if len(index.packets) <= _SHORT:
        raise IndexMismatch("so few frames that all are decoded")
    decoders.by_timestamp(path, index, plan(index, frames), sink.put)
    return "pyav"


def _unfit_for_decord(index: Index) -> str:
    """Why decord is not sure to give the right frames, or to open this file alone; "" if it is."""
    if not _has_decord():
        return "decord is not installed"
    if index.container.split(",")[0] not in _DECORD_CONTAINERS or index.streams > 1:
        return f"container {index.container}"
    if index.codec != "h264" or index.pixel_format not in _DECORD_PIXELS:
        return f"codec {index.codec} with {index.pixel_format}"
    if index.turned or index.resized or index.width % 2 or index.height % 2:
        return "turned, scaled or of an odd size"
    if 3 * index.width * index.height * len(index.timestamps) > _DECORD_BYTES:
        return "too large"
    return "" if all(packet.shown for packet in index.packets) else "an edit list"


@functools.cache
def _has_decord() -> bool:
    try:
        import decord  # noqa: F401 (it has no wheels for some machines)
    except (ImportError, OSError):
        return False
    return True


def _in_order(path: str, index: Index, sink: Sink, decoder: str, reason: str, damaged: bool) -> Video:
    """Decode from the start to the end, for a reason: PyAV if it can, OpenCV if data is damaged."""
    frames_of = {
        "pyav": functools.partial(decoders.pyav_frames, path, index),
        "opencv": functools.partial(decoders.opencv_frames, path),
    }
    names = [decoder] if decoder else ["opencv"] if damaged else ["pyav", "opencv"]
    failure = f" ({reason})" if damaged else ""
    blackens = "opencv" in names and decoders.opencv_blackens_interlaced()
    if blackens and (index.interlaced or (damaged and decoders.shows_interlaced(path))):
        names = [] if decoder else ["pyav"]
        failure = " (interlaced, which this OpenCV cannot convert)"
    for name in names:
        try:
            count = decoders.in_order(frames_of[name], len(index.timestamps) or index.declared, sink)
        except CorruptVideo as error:
            reason, damaged = f"{DAMAGED}: {error}", True
            failure = f" ({reason})"
            continue
        if count:
            return Video(index, count, name, reason, damaged)
    raise ClipError(f"no frame can be decoded{failure}")


class Frames:
    """A sink that keeps all its frames.

    Args:
        pick: from the number of frames to the numbers of those that are wanted, which may repeat.
    """

    def __init__(self, pick: Callable[[int], Sequence[int]]) -> None:
        self.pick = pick

    def begin(self, count: int) -> list[int]:
        """The distinct frames of `pick`."""
        numbers, self.places = np.unique(np.asarray(self.pick(count)), return_inverse=True)
        self.rows: list[np.ndarray] = [np.empty(0)] * len(numbers)
        return numbers.tolist()

    def put(self, row: int, frame: np.ndarray) -> None:
        """Keep a frame."""
        self.rows[row] = frame


def read_video(path: str, pick: Callable[[int], Sequence[int]], decoder: str = "") -> tuple[np.ndarray, np.ndarray]:
    """(frames, places): distinct frames, uint8 [K, H, W, 3] RGB, and for each number of `pick` the row of its frame.

    Arguments and errors as read_frames; `pick` as for Frames.
    """
    sink = Frames(pick)
    read_frames(path, sink, decoder)
    return np.stack(sink.rows), sink.places.reshape(-1)


def read_pickle(path: str, pick: Callable[[int], Sequence[int]]) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames and label of a pickled clip. Arguments as `read_video`; returns (frames, places, label)."""
    from stnet.reader.pickles import decode_jpegs, load_clip_pickle, read_clip_file

    try:
        _, label, jpegs = load_clip_pickle(read_clip_file(path))
        numbers, places = np.unique(np.asarray(pick(len(jpegs))), return_inverse=True)
        return decode_jpegs([jpegs[i] for i in numbers]), places.reshape(-1), label
    except ValueError as error:
        raise ClipError(str(error)) from None
