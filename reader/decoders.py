"""Three decoders that give the same frames: decord and PyAV by an index, PyAV and OpenCV in order.

`put(row, frame)` takes the row-th of the wanted frames, uint8 [H, W, 3] RGB (decode.Sink).
"""

from __future__ import annotations

import bisect
import functools
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from stnet.reader.bounds import check_frames, check_pixels
from stnet.reader.containers import DEMUXERS, opened
from stnet.reader.errors import CorruptVideo, IndexMismatch, decoded, decoding
from stnet.reader.index import Index, Run

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Put = Callable[[int, np.ndarray], None]
TimedFrame = tuple[Optional[int], Callable[[], np.ndarray]]  # presentation timestamp, and a function that returns it

_BT601 = 5  # FFmpeg's number of the colour matrix
_MATRICES = (0, 1, 4, 5, 6, 7, 9)  # of swscale: RGB, BT.709, FCC, BT.601 twice, SMPTE 240M, BT.2020
_BT2020_CONSTANT, _BT2020 = 10, 9  # one table of swscale, which newer ones take by the second name only
_UNSPECIFIED = 2
_FULL_RANGE = 2
_ROTATIONS = {90: 0, 180: 1, 270: 2}  # degrees -> cv2.ROTATE_90_CLOCKWISE, ROTATE_180, ROTATE_90_COUNTERCLOCKWISE
_FFMPEG_8 = 62  # the major version of its libavcodec


def by_decord(path: str, index: Index, frames: Sequence[int], put: Put) -> None:
    """Decode by decord, without its inexact seeks. Raises IndexMismatch if it fails or contradicts the index."""
    import decord  # late: opened in the worker process

    try:
        with decoding():
            video = decord.VideoReader(os.path.abspath(path), num_threads=1)
            count, keys = len(video), sorted(video.get_key_indices())
        if count != len(index.timestamps):
            raise IndexMismatch(f"decord counts {count} frames")
        seconds = np.array([float(index.timestamps[frame] * index.time_base) for frame in frames])
        with decoding():
            timestamps = video.get_frame_timestamp(frames)[:, 0]
        if not np.allclose(timestamps, seconds, rtol=1e-6, atol=1e-3):
            raise IndexMismatch("decord has other timestamps")
        place = 0
        for row, frame in enumerate(frames):
            with decoding():
                _advance(video, keys, place, frame)
                native = video.next()
                # read-only and not copied, unless NumPy is older than 1.22
                array = np.from_dlpack(_DLPack(native)) if hasattr(np, "from_dlpack") else native.asnumpy()
            if array.shape != (index.height, index.width, 3):
                raise IndexMismatch(f"decord gives frames of shape {array.shape}")
            put(row, array)
            place = frame + 1
    except CorruptVideo as error:
        raise IndexMismatch(str(error).rsplit("] ", 1)[-1]) from None  # without the source position in front


def _advance(video: Any, keys: Sequence[int], place: int, frame: int) -> None:
    """Skip from `place` to `frame` without a seek, which skip_frames makes where it passes a key frame."""
    for key in keys[bisect.bisect_right(keys, place) : bisect.bisect_right(keys, frame)]:
        if key - 1 > place:
            video.skip_frames(key - 1 - place)
        video.next()
        place = key
    if frame > place:
        video.skip_frames(frame - place)


def by_timestamp(path: str, index: Index, runs: Sequence[Run], put: Put) -> None:
    """Decode frames by PyAV: for each run seek to its key frame and take those with the wanted timestamps.

    Args:
        runs: of stnet.reader.index.plan.

    Raises:
        IndexMismatch: a frame is missing, or the packets are not those of the index.
        CorruptVideo
    """
    row = 0
    with opened(path) as (container, stream):
        converter = Converter(stream, index)
        for run in runs:
            rows = {index.timestamps[frame]: row + i for i, frame in enumerate(run.frames)}
            row += len(rows)
            _decode_run(_packets(container, stream, index, run.start), index, rows, converter, put)


def _packets(container: InputContainer, stream: VideoStream, index: Index, start: int) -> Iterator[Packet | None]:
    """Packets from the start-th on, each compared with the index; None at the end."""
    place: int | None = 0
    places: dict[int | None, int] = {}
    if start:
        places = {packet.timestamp: place for place, packet in enumerate(index.packets)}
        with decoding():
            container.seek(index.packets[start].timestamp, stream=stream)
        place = None
    for packet in decoded(container.demux(stream)):
        if packet.size == 0 and packet.dts is None:
            break
        if place is None:
            landed = places.get(packet.pts, -1)
            if landed < start:
                continue
            if landed > start:
                raise IndexMismatch("a seek leads past its key frame")
            place = start
        known = index.packets[place]
        if (packet.pts, packet.size) != (known.timestamp, known.size):
            raise IndexMismatch("the packets are not those of the index")
        yield packet
        place += 1
    yield None


def _decode_run(
    packets: Iterator[Packet | None], index: Index, rows: dict[int, int], converter: Converter, put: Put
) -> None:
    """Decode packets until the frames of all timestamps in `rows` have been put."""
    context = converter.stream.codec_context
    places = {timestamp: place for place, timestamp in enumerate(index.timestamps)}
    last = None
    for packet in packets:
        with decoding():
            frames = context.decode(packet)
        for frame in frames:
            if frame.is_corrupt:
                raise CorruptVideo("a frame that is not whole")
            place = places.get(frame.pts)
            if last is not None and place != last + 1:
                raise IndexMismatch("frames come in another order than their timestamps, or not all")
            last = place
            if frame.pts in rows:
                put(rows.pop(frame.pts), converter.rgb(frame))
        if not rows:
            return
    raise IndexMismatch(f"{len(rows)} frames did not come")


def timed_frames(path: str, index: Index) -> Iterator[TimedFrame]:
    """Iterate over all frames, by PyAV. Raises CorruptVideo."""
    with opened(path) as (container, stream):
        converter = Converter(stream, index)
        for number, frame in enumerate(decoded(container.decode(stream)), start=1):
            check_frames(number)
            if frame.is_corrupt:
                raise CorruptVideo("a frame that is not whole")
            yield frame.pts, functools.partial(converter.rgb, frame)


def opencv_frames(path: str, index: Index) -> Iterator[TimedFrame]:
    """Iterate over all frames, by OpenCV, as the original reads. Raises CorruptVideo."""
    import cv2

    with _opencv_options(), decoding():
        capture = cv2.VideoCapture(os.path.abspath(path), cv2.CAP_FFMPEG)
    number = 0
    try:
        while True:
            with decoding():
                frame = capture.retrieve()[1] if capture.grab() else None
            if frame is None:
                return
            number += 1
            check_frames(number)
            seconds = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            time = index.start + round(seconds / index.time_base) if math.isfinite(seconds) else None
            yield time, functools.partial(_rgb_of_bgr, frame)
    finally:
        capture.release()


def _rgb_of_bgr(frame: np.ndarray) -> np.ndarray:
    import cv2

    with decoding():
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def shows_interlaced(path: str) -> bool:
    """True if a frame before the first damaged one is interlaced."""
    with opened(path) as (container, stream), suppress(CorruptVideo):
        return any(frame.interlaced_frame for frame in decoded(container.decode(stream)))
    return False


def opencv_blackens_interlaced() -> bool:
    """True if this OpenCV decodes all interlaced frames as black, as it does with FFmpeg 8."""
    import cv2

    codecs = re.search(r"avcodec:\s*YES \((\d+)", cv2.getBuildInformation())
    return codecs is not None and int(codecs.group(1)) >= _FFMPEG_8


class Converter:
    """Converts frames of PyAV to RGB as OpenCV does: the same size, filter, colour matrix and rotation.

    Interlaced frames are converted as progressive ones, as by the original's OpenCV; newer releases of FFmpeg's scaler
    convert field by field.
    """

    def __init__(self, stream: VideoStream, index: Index) -> None:
        from av.video.reformatter import VideoReformatter

        self.stream = stream
        self.size = index.width, index.height
        self.reformatter = VideoReformatter()
        self.rotation = _ROTATIONS.get(index.rotation)
        self.graph: Any = None  # filter that marks frames of `shape` as progressive
        self.shape: tuple[int, int, str] | None = None

    def rgb(self, frame: VideoFrame) -> np.ndarray:
        """uint8 [H, W, 3] RGB of an av.VideoFrame. Raises CorruptVideo where it cannot be converted."""
        import cv2

        check_pixels(frame.width, frame.height)
        with decoding():
            if frame.interlaced_frame:
                frame = self._progressive(frame)
            frame = self.reformatter.reformat(frame, *self.size, "bgr24", interpolation="BICUBIC", **_colours(frame))
            plane, (width, height) = frame.planes[0], self.size
            bgr = np.ndarray((height, width, 3), np.uint8, plane, strides=(plane.line_size, 3, 1))
            image = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            return image if self.rotation is None else cv2.rotate(image, self.rotation)

    def _progressive(self, frame: VideoFrame) -> VideoFrame:
        """The frame, marked as progressive."""
        import av

        shape = frame.width, frame.height, frame.format.name
        if self.shape != shape:
            self.graph, self.shape = av.filter.Graph(), shape
            source = self.graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=self.stream.time_base
            )
            mark, sink = self.graph.add("setfield", "mode=prog"), self.graph.add("buffersink")
            source.link_to(mark)
            mark.link_to(sink)
            self.graph.configure()
        self.graph.push(frame)
        return self.graph.pull()


def _colours(frame: VideoFrame) -> dict[str, int]:
    """Arguments of reformat for the frame's colour matrix, which PyAV before 17 does not set by itself."""
    if frame.colorspace == _UNSPECIFIED:
        return {}
    matrix = _BT2020 if frame.colorspace == _BT2020_CONSTANT else int(frame.colorspace)
    colours = {"src_colorspace": matrix if matrix in _MATRICES else _BT601, "dst_colorspace": _BT601}
    if int(frame.color_range) == _FULL_RANGE:
        colours["src_color_range"] = _FULL_RANGE
    return colours


@contextmanager
def _opencv_options() -> Iterator[None]:
    """Set the whitelists of stnet.reader.containers for OpenCV, which reads them from the environment."""
    name = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    before = os.environ.get(name)
    os.environ[name] = f"protocol_whitelist;file|format_whitelist;{DEMUXERS}"
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before


class _DLPack:
    """Wrapper of a decord array for np.from_dlpack: decord has the capsule but not these methods."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **_: Any) -> Any:
        """Return the capsule."""
        return self.array.to_dlpack()

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return (CPU, device 0)."""
        return 1, 0
