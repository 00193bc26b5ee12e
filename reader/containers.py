"""Open media files safely: FFmpeg may use only demuxers that read one local file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from stnet.reader.errors import ClipError, CorruptVideo, NoVideo, decoded

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

# No playlists (hls, concat, dash, sdp), picture sequences (image2), devices or scripts (lavfi, avisynth, vapoursynth).
DEMUXERS = (
    "3dostr,amv,apng,asf,av1,avi,avs2,avs3,cavsvideo,dirac,dnxhd,dv,flic,flv,gif,gxf,h261,h263,h264,hevc,ivf,jpeg_pipe,live_flv,m4v,"
    "matroska,webm,mjpeg,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,roq,smk,swf,vc1,vc1test,"
    "vvc,wtv,yuv4mpegpipe,"
    "aac,ac3,aiff,amr,flac,mp3,w64,wav"  # audio, for a clear message
)
MAX_PIXELS = 1 << 26  # of a frame: 8192 x 8192
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS}


@contextmanager
def opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a media file: PyAV's container and its first video stream.

    Raises:
        ClipError: missing, empty, not a regular file, or not one of the DEMUXERS' formats.
        NoVideo: it has no video.
    """
    import av  # late: opened in the worker process

    check_file(path)
    # Titles and comments need not be UTF-8: the default from PyAV 19 on
    metadata = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
    try:
        container = av.open("file:" + os.path.abspath(path), container_options=_OPTIONS, **metadata)
    except Exception as error:  # FFmpeg's, and others that PyAV raises at damaged files
        raise ClipError(f"no frame can be decoded ({_reason(error)})") from None
    with container:
        stream = next(iter(container.streams.video), None)
        if stream is None:
            raise NoVideo("no frame can be decoded (cannot find video stream)")
        context = stream.codec_context
        if context is None:
            raise ClipError("no frame can be decoded (no decoder for its video)")
        if context.width * context.height > MAX_PIXELS:
            size = f"{context.width} x {context.height}"
            raise ClipError(f"no frame can be decoded (frames of {size} are larger than any that are decoded)")
        context.thread_count = 1  # there are many worker processes
        yield container, stream


def seconds_of_all(path: str) -> float:
    """Seconds from the start of a file to the end of its last packet of any stream."""
    last = 0.0
    with suppress(ClipError, CorruptVideo), utf8_name(path) as name, opened(name) as (container, _):
        start = (container.start_time or 0) / 1e6
        for packet in decoded(container.demux()):
            if packet.pts is not None and packet.time_base is not None:
                last = max(last, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start)
    return last


@contextmanager
def utf8_name(path: str) -> Iterator[str]:
    """Name of the file in UTF-8, as the decoders need it: its path, or that of an open descriptor."""
    try:
        path.encode()
    except UnicodeEncodeError:
        check_file(path)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise ClipError(f"it cannot be read: {error.strerror}") from None
        try:
            yield f"/dev/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        yield path


def check_file(path: str) -> None:
    """Raise ClipError unless the path is a regular file and not empty."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        raise ClipError("no such file") from None
    if stat.S_ISDIR(status.st_mode):
        raise ClipError("it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise ClipError("it is not a regular file")
    if status.st_size == 0:
        raise ClipError("the file is empty (0 bytes)")


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EINVAL:  # a format outside the whitelist
        return "its format is none of a video file, a playlist perhaps"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
