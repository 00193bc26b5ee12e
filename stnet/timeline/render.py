"""Copy of a video with the events of its timeline drawn into the picture, and its sound."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from typing import Any, Optional

import numpy as np

from stnet.reader.containers import opened, utf8_name
from stnet.reader.errors import ClipError, CorruptVideo, decoded, decoding
from stnet.reader.stream import VideoStream
from stnet.timeline.events import Event
from stnet.timeline.files import caption
from stnet.utils.atomic import check_name, os_errors_as_user_errors, write_atomically
from stnet.utils.errors import UserError
from stnet.utils.files import StrPath
from stnet.utils.fonts import pillow_font

_COPIED = ("aac", "mp3")  # sound that every browser plays in mp4; other sound becomes AAC
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_X264 = {"crf": "20", "preset": "fast"}
_FINEST = 90000  # timestamp units a second, at most
_MARK = "with its timeline by StNet"  # metadata of copies, which another run may replace
_UNITS = 4  # timestamp units a frame, at least
_BEHIND = 4  # frames: a demuxer may hold some back while sound that follows them in the file comes
_OVERLAP = 0.02  # seconds that sound may begin before the end of that of the part before: less than a frame of AAC
_UNSPECIFIED, _BT601 = 2, 6  # FFmpeg's numbers of colour matrices


def check_target(source: str, target: StrPath, overwrite: bool = False) -> None:
    """Check that the copy can be written, and replaces no file but an earlier copy.

    Args:
        source: the video, which must not be replaced.
        target: the copy.
        overwrite: replace any other file.

    Raises:
        UserError: it cannot be written, or would replace another file.
    """
    if os.path.realpath(source) == os.path.realpath(target):
        raise UserError(f"the copy {target} would replace the video that it is made of", "set --render to another file")
    if os.path.lexists(target) and not overwrite and not _is_copy(target):
        raise UserError(
            f"{target} exists, and is no copy with a timeline in it",
            "set --overwrite to replace it, or --render to another file",
        )
    folder = os.path.dirname(os.path.abspath(target))
    check_name(target)
    with os_errors_as_user_errors(target):
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass


def _is_copy(target: StrPath) -> bool:
    """Return True for a file that `render` wrote."""
    with suppress(ClipError), utf8_name(os.fspath(target)) as name, opened(name) as (container, _):
        return container.metadata.get("comment") == _MARK
    return False


def render(source: str, target: StrPath, events: Sequence[Event], labels: Sequence[str]) -> list[str]:
    """Write an mp4 that browsers play: H.264, 4:2:0, index in front, timestamps kept.

    Args:
        source: the video; it is rotated upright, and cropped to even sides (a single row or column is doubled).
        target: mp4 file.
        events: in seconds from the start of the file.

    Returns:
        notes for the user: damage of the video, lost sound.

    Raises:
        ClipError: the source cannot be read.
        UserError: the target cannot be written, or PyAV has no encoder.
    """
    notes: list[str] = []
    write_atomically(target, lambda temporary: notes.extend(_render(source, temporary, Overlay(events, labels))))
    return notes


def _render(source: str, temporary: str, overlay: Overlay) -> list[str]:
    import av

    video = VideoStream(source)
    unit = max(Fraction(video.index.time_base or Fraction(1, _FINEST)), Fraction(1, _FINEST))
    unit /= math.ceil(_UNITS * video.rate * unit)
    options = {"movflags": "+faststart", "movie_timescale": str(max(1000, math.ceil(_UNITS * video.rate)))}
    with (
        encoding(),
        utf8_name(source) as name,
        opened(name) as (container, stream),
        av.open(temporary, "w", format="mp4", options=options) as copy,
        closing(video.frames()) as frames,
    ):
        copy.metadata["comment"] = _MARK
        sound = Sound(container, copy, video)
        picture, seconds, timestamp = None, 0.0, -1
        for shown in frames:
            image = overlay.drawn(shown.rgb(), shown.seconds)
            seconds = shown.seconds
            if picture is None:
                picture = _picture_stream(copy, image.shape, video.rate, unit, stream.codec_context.colorspace)
            sound.copy_until(seconds)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            timestamp = max(round(seconds / unit), timestamp + 1)  # the muxer refuses equal timestamps
            frame.pts, frame.time_base = timestamp, unit
            copy.mux(picture.encode(frame))
        if picture is None:  # OpenCV may still read it
            raise ClipError(f"no frame of it can be read for the copy ({video.damage or 'it has none'})")
        copy.mux(picture.encode())
        sound.copy_until(seconds + 1 / video.rate if video.damage else math.inf)
        sound.close()
    damage = [f"the copy ends at {seconds:.2f} s, where the video breaks off ({video.damage})"] if video.damage else []
    return damage + sound.notes


@contextmanager
def encoding() -> Iterator[None]:
    """Convert errors of FFmpeg's encoder and muxer to UserError."""
    import av

    try:
        yield
    except av.error.FFmpegError as error:
        raise UserError(f"the copy cannot be written as H.264 in mp4: {error.strerror}") from None


def _picture_stream(copy: Any, shape: tuple[int, ...], rate: float, unit: Fraction, matrix: int) -> Any:
    import av

    try:
        picture = copy.add_stream("libx264", rate=Fraction(rate).limit_denominator(1001), options=dict(_X264))
    except av.codec.codec.UnknownCodecError:
        raise UserError("this PyAV has no encoder for H.264 (libx264): pip install av brings one") from None
    picture.height, picture.width = shape[:2]
    picture.pix_fmt = "yuv420p"
    picture.codec_context.time_base = unit
    if matrix != _UNSPECIFIED:  # else players guess the same for both
        picture.codec_context.colorspace = _BT601
    return picture


class Sound:
    """The first sound stream of a container, copied into another.

    Args:
        container: source, of which no packet was read.
        copy: target.
        video: whose timestamps the sound follows.
    """

    def __init__(self, container: Any, copy: Any, video: VideoStream) -> None:
        self.copy, self.start = copy, video.start
        self.notes: list[str] = []
        self.target: Any = None
        self.packets: Iterator[Any] = iter(())
        source = next(iter(container.streams.audio), None)
        if source is None:
            return
        if source.codec_context is None:
            self.notes.append("the sound is left out: there is no decoder for it")
            return
        name = source.codec_context.name.replace("mp3float", "mp3")
        self.copied = name in _COPIED and bool(source.codec_context.extradata or name == "mp3")
        if self.copied:
            self.target = copy.add_stream_from_template(source)
        else:
            rate = source.rate if source.rate in _AAC_RATES else _AAC_RATES[-1]
            self.target = copy.add_stream("aac", rate=rate)
            self.target.codec_context.layout = "mono" if source.channels == 1 else "stereo"
        self.packets = _in_time(container, source, video)
        self.waiting: Optional[Any] = None

    def copy_until(self, seconds: float) -> None:
        """Copy packets that begin by a time."""
        if self.target is None:
            return
        try:
            while True:
                packet = self.waiting or next(self.packets, None)
                self.waiting = None
                if packet is None or packet.dts is None:
                    self.packets = iter(())
                    return
                if float(packet.dts * packet.time_base) - self.start > seconds:
                    self.waiting = packet
                    return
                with decoding():
                    self._copy(packet)
        except (CorruptVideo, ClipError) as error:
            self.packets, self.waiting = iter(()), None
            self.notes.append(f"the sound breaks off ({error})")

    def _copy(self, packet: Any) -> None:
        offset = round(self.start / packet.time_base)
        packet.dts -= offset
        packet.pts = packet.dts if packet.pts is None else packet.pts - offset
        if self.copied:
            packet.stream = self.target
            self.copy.mux(packet)
            return
        for frame in packet.decode():
            self.copy.mux(self.target.encode(frame))

    def close(self) -> None:
        """Flush the encoder."""
        if self.target is not None and not self.copied:
            try:
                with decoding():
                    self.copy.mux(self.target.encode())
            except CorruptVideo as error:
                self.notes = self.notes or [f"the sound breaks off ({error})"]


def _in_time(container: Any, source: Any, video: VideoStream) -> Iterator[Any]:
    """Read sound packets, shifted as the joined parts of the video; those that would lie over others are dropped.

    Where the times of the sound do not go on, it is that of the part whose packets are read: a part may have none.
    """
    if len(video.parts) == 1:
        yield from decoded(container.demux(source))
        return
    part_of = [part for part in video.parts for _ in part.timestamps]
    shown = iter([packet.shown and packet.timestamp is not None for packet in video.index.packets])
    seen, part, time, end, begin = 0, part_of[0], -math.inf, -math.inf, -math.inf
    for packet in decoded(container.demux(source, container.streams.video[0])):
        if packet.stream.type == "video":
            seen += next(shown, False)
            continue
        if packet.dts is not None:
            before, time = time, float(packet.dts * packet.time_base)
            if not 0 < time - before < 1:
                part, begin = part_of[min(seen + _BEHIND, len(part_of)) - 1], end
            shift = round(part.shift * video.index.time_base / packet.time_base)
            packet.dts += shift
            packet.pts = None if packet.pts is None else packet.pts + shift
            if packet.dts < begin:
                continue
            end = packet.dts + max(1, (packet.duration or 0) - round(_OVERLAP / packet.time_base))
        yield packet


class Overlay:
    """Draws the current events into the upper left corner."""

    def __init__(self, events: Sequence[Event], labels: Sequence[str]) -> None:
        self.events, self.labels = events, labels
        self.lines: Sequence[str] = ()
        self.strip: Optional[np.ndarray] = None  # uint8 [h, w, 4] of the lines

    def drawn(self, image: np.ndarray, seconds: float) -> np.ndarray:
        """Draw the events at a time on an image, uint8 [H, W, 3] RGB, cropped to even sides."""
        height, width = (max(2, side // 2 * 2) for side in image.shape[:2])
        rows, columns = 1 + (image.shape[0] == 1), 1 + (image.shape[1] == 1)  # a single one is doubled
        image = np.ascontiguousarray(np.tile(image, (rows, columns, 1))[:height, :width])
        lines = [caption(event, self.labels) for event in self.events if event.start <= seconds < event.end]
        if lines != self.lines:
            self.lines, self.strip = lines, _strip(lines, image.shape[1], image.shape[0]) if lines else None
        if self.strip is None:
            return image
        height, width = self.strip.shape[:2]
        corner, share = image[:height, :width], self.strip[..., 3:].astype(np.uint16)
        corner[:] = (corner * (255 - share) + self.strip[..., :3] * share) // 255
        return image


def _strip(lines: Sequence[str], width: int, height: int) -> np.ndarray:
    """Draw lines, white on half transparent black, as large as fits: uint8 [h, w, 4]."""
    from PIL import Image, ImageDraw

    text = "\n".join(lines)
    image = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(image)
    for size in range(max(8, height // 16), 5, -1):
        font = pillow_font(text, size)
        left, top, right, bottom = draw.multiline_textbbox((0, 0), text, font=font)
        if right - left + size <= width:
            break
    box = min(width, round(right - left + size)), min(height, round(bottom - top + size))
    draw.rectangle((0, 0, *box), fill=(0, 0, 0, 150))
    draw.multiline_text((size / 2 - left, size / 2 - top), text, font=font, fill=(255, 255, 255, 255))
    return np.asarray(image.crop((0, 0, *box)))
