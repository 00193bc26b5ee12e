"""Frames out of video files: those that a decoder shows which begins at the start, whoever decodes.

An index (reader.index) tells the frames apart by their time stamps. Where it is sound, decord decodes from the start on
what it can be trusted with, and PyAV seeks in long files. All else PyAV reads in order; where data turns out to be
damaged, OpenCV does, as the original: so a damaged clip gives the same frames as it did there.
"""

import functools
import os
from typing import NamedTuple

import numpy as np

from core.errors import UserError
from reader import decoders
from reader.containers import opened, utf8_name
from reader.decoders import Damaged, Missed
from reader.errors import ClipError
from reader.index import DAMAGED, Index, plan, read_index

DECODERS = ("decord", "pyav", "opencv")
_DECORD_CONTAINERS = ("mov", "matroska")  # told by their first bytes: older FFmpegs see the same in them
_DECORD_BYTES = 128 << 20  # of all frames: decord can hold nearly as many at a time
_SHORT = 1000  # packets: so few are decoded all, which no index can be wrong about
_DECORD_PIXELS = ("yuv420p", "yuvj420p")


class Video(NamedTuple):
    """What was read of a video file."""

    index: Index
    frames: int  # that a decoder shows
    decoder: str  # one of DECODERS
    in_order: str  # why it was read in order from the start to the end; "" if frames were got by their stamps


def read_frames(path, sink, decoder=""):
    """Decode the frames that a sink wants.

    Args:
        path: the file.
        sink: object with `begin(count)`, which turns the number of frames into the ascending numbers of those that
            are wanted and may be called again for another attempt, and `put(row, frame)`, which takes the row-th of
            them, uint8 [H, W, 3] RGB.
        decoder: one of DECODERS, and no other; "" asks the environment variable STNET_DECODER and else chooses.

    Returns:
        Video.

    Raises:
        ClipError: missing, empty or undecodable file, or one that `decoder` cannot be shown to decode rightly.
        UserError: STNET_DECODER names none of DECODERS.
    """
    decoder = decoder or _decoder_asked_for()
    with utf8_name(path) as name:
        return _read_frames(name, sink, decoder)


def _read_frames(path, sink, decoder):
    with opened(path) as (container, stream):
        index = read_index(container, stream)
    doubt = index.doubt
    if not doubt and decoder != "opencv":
        try:
            return Video(index, len(index.stamps), _by_index(path, index, sink, decoder), "")
        except (Damaged, Missed) as error:
            doubt = str(error) if isinstance(error, Missed) else f"{DAMAGED}: {error}"
    if decoder == "decord":
        raise ClipError(f"decord cannot be shown to give the right frames ({doubt})")
    return _in_order(path, index, sink, decoder, doubt or "OpenCV was asked for")


def _decoder_asked_for():
    asked = os.environ.get("STNET_DECODER", "")
    if asked and asked not in DECODERS:
        raise UserError(f"STNET_DECODER is {asked!r}; expected one of {', '.join(DECODERS)}, or nothing")
    return asked


def _by_index(path, index, sink, decoder):
    """Decode by stamp. Returns who did. Raises Damaged or Missed."""
    frames = sink.begin(len(index.stamps))
    unfit = _unfit_for_decord(index)
    if decoder == "decord" and unfit:
        raise Missed(unfit)
    if decoder == "decord" or not (decoder or unfit):
        try:
            decoders.by_decord(path, index, frames, sink.put)
            return "decord"
        except Missed:
            if decoder == "decord":
                raise
            sink.begin(len(index.stamps))
    if len(index.packets) <= _SHORT:
        raise Missed("so few frames that all are decoded")
    decoders.by_stamp(path, index, plan(index, frames), sink.put)
    return "pyav"


def _unfit_for_decord(index):
    """Why decord is not sure to give the right frames, or to open this file alone; "" if it is."""
    if not _has_decord():
        return "decord is not installed"
    if index.container.split(",")[0] not in _DECORD_CONTAINERS or index.streams > 1:
        return f"container {index.container}"
    if index.codec != "h264" or index.pixel_format not in _DECORD_PIXELS:
        return f"codec {index.codec} with {index.pixel_format}"
    if index.turned or index.resized or index.width % 2 or index.height % 2:
        return "turned, scaled or of an odd size"
    if 3 * index.width * index.height * len(index.stamps) > _DECORD_BYTES:
        return "too large"
    return "" if all(packet.shown for packet in index.packets) else "an edit list"


@functools.cache
def _has_decord():
    try:
        import decord  # noqa: F401 (it has no wheels for some machines)
    except (ImportError, OSError):
        return False
    return True


def _in_order(path, index, sink, decoder, reason):
    """Decode from the start to the end: PyAV if it can, OpenCV if data is damaged. Returns a Video."""
    frames_of = {
        "pyav": functools.partial(decoders.pyav_frames, path, index),
        "opencv": functools.partial(decoders.opencv_frames, path),
    }
    names = [decoder] if decoder else ["opencv"] if reason.startswith(DAMAGED) else ["pyav", "opencv"]
    failure = f" ({reason})" if reason.startswith(DAMAGED) else ""
    blackens = "opencv" in names and decoders.opencv_blackens_interlaced()
    if blackens and (index.interlaced or (reason.startswith(DAMAGED) and decoders.shows_interlaced(path))):
        names = [] if decoder else ["pyav"]
        failure = " (interlaced, which this OpenCV cannot convert)"
    for name in names:
        try:
            count = decoders.in_order(frames_of[name], len(index.stamps) or index.promised, sink)
        except Damaged as error:
            reason = f"{DAMAGED}: {error}"
            failure = f" ({reason})"
            continue
        if count:
            return Video(index, count, name, reason)
    raise ClipError(f"no frame can be decoded{failure}")


class Frames:
    """A sink that keeps all its frames.

    Args:
        pick: function from the number of frames to a list of numbers, which may repeat.
    """

    def __init__(self, pick):
        self.pick = pick

    def begin(self, count):
        """The distinct frames of `pick`."""
        wanted, self.places = np.unique(np.asarray(self.pick(count)), return_inverse=True)
        self.rows = [None] * len(wanted)
        return wanted.tolist()

    def put(self, row, frame):
        """Keep a frame."""
        self.rows[row] = frame


def read_video(path, pick, decoder=""):
    """(frames, places): distinct frames, uint8 [K, H, W, 3] RGB, and for each number of `pick` the row of its frame.

    Arguments and errors as read_frames; `pick` as for Frames.
    """
    sink = Frames(pick)
    read_frames(path, sink, decoder)
    return np.stack(sink.rows), sink.places.reshape(-1)


def read_pickle(path, pick):
    """Frames and label of a pickled clip. Arguments as `read_video`; returns (frames, places, label)."""
    from reader.pickles import decode_jpegs, load_clip_pickle, read_clip_file

    try:
        _, label, jpegs = load_clip_pickle(read_clip_file(path))
        wanted, places = np.unique(np.asarray(pick(len(jpegs))), return_inverse=True)
        return decode_jpegs([jpegs[i] for i in wanted]), places.reshape(-1), label
    except ValueError as error:
        raise ClipError(str(error)) from None
