"""Exact frame index of a video: the presentation timestamps of its frames, and the packets to seek to for each.

The packets are read once, decoding only the first frame. Those that the container wants shown, sorted by presentation
timestamp, are the frames in order, if each packet is one frame with a timestamp of its own; where that is uncertain,
`seek_problem` is the reason, and the frames must be read in order.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from stnet.reader.bitstream import (
    is_plain,
    is_random_access,
    is_shown,
    is_whole,
    nal_length_size,
    nal_units,
    parameter_sets,
)
from stnet.reader.bounds import check_frames, check_pixels, check_seconds
from stnet.reader.errors import ClipError, CorruptVideo, decoded, decoding
from stnet.reader.joined import CLOCKED, Part, joined, parts_of
from stnet.reader.lost import CHECKED_CODECS, LostPictures

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_SEEKABLE = ("mov", "matroska")  # containers with an index, by which a seek is exact
_ONE_FRAME_A_PACKET = ("av1", "h264", "hevc", "vp8", "vp9")  # codecs, by FFmpeg's names, that are worth a seek
_STEADY = 0.02  # share by which the distance of two frames may differ from the median at a constant rate
DAMAGED = "damaged"  # begins the seek_problem of a damaged file
_NEAR = 8  # packets: closer frames are decoded without a seek


class Packet(NamedTuple):
    """Packet of a video."""

    timestamp: Any  # int, presentation timestamp in units of the time base; None if missing
    size: int  # bytes
    random_access: bool  # frames from its timestamp on can be decoded from here
    shown: bool  # False: skipped by an edit list, or for reference only


class Index(NamedTuple):
    """Frame index of a video, and what its headers say."""

    container: str  # FFmpeg's name of the demuxer
    streams: int  # of video in the file
    codec: str
    pixel_format: str
    width: int  # declared by the container: frames of another size are scaled to it, as OpenCV does
    height: int
    resized: bool  # the first frame has another size
    rotation: int  # degrees clockwise, by which frames become upright
    interlaced: bool
    time_base: Fraction  # seconds a unit of the timestamps
    start: int  # timestamp of the first frame by the container's header, from which OpenCV counts; 0 if missing
    declared: int  # frames by the container's header; 0 if missing
    duration: float  # seconds by the container's header; 0 if missing, or if timestamps begin anew
    packets: list[Packet]  # in the order of decoding
    timestamps: list[int]  # of the frames, in order
    parts: list[Part]  # see stnet.reader.joined; mostly one
    times: list[int]  # the timestamps of all parts, joined and sorted
    seek_problem: str  # reason why frames cannot be read by timestamp; "" if they can
    damaged: bool  # damage is the reason
    notes: tuple[str, ...]  # unusual properties of the file, see _notes

    @property
    def seconds(self) -> float:
        """Duration from the first frame to the end of the last."""
        shown = self.times[-1] - self.times[0] if self.times else 0
        return float(shown * self.time_base) * len(self.times) / max(1, len(self.times) - 1)


class Run(NamedTuple):
    """Frames that are decoded after one seek."""

    start: int  # number of the packet to begin with
    frames: list[int]


def read_index(container: InputContainer, stream: VideoStream) -> Index:
    """Read the frame index of a stream.

    Args:
        container, stream: of stnet.reader.containers.opened, read to the end of the file.

    Raises:
        ClipError: no packet can be read; BeyondBounds where the header or the packets exceed a limit.
    """
    context = stream.codec_context
    duration = _duration(container, stream)
    check_pixels(context.width, context.height)
    check_frames(stream.frames)
    if container.format.name not in CLOCKED:  # there it is a guess by the last timestamp
        check_seconds(duration)
    codec, width, height = context.codec.canonical_name, context.width, context.height
    packets, decode_timestamps, first, damage, plain, lost = _read_packets(container, stream, codec)
    if not packets:
        raise ClipError(f"no frame can be decoded ({damage or 'no packet of the video can be read'})")
    shown = [packet.timestamp for packet in packets if packet.shown and packet.timestamp is not None]
    timestamps, parts = sorted(shown), parts_of(shown, container.format.name)
    times = sorted(joined(parts)) if len(parts) > 1 else timestamps
    check_frames(len(timestamps))
    if first:
        check_pixels(first.width, first.height)
        width, height = width or first.width, height or first.height
    seek_problem = (
        damage
        or ("packets are missing" if lost.found else "")
        or ("" if plain else "parameters that change within the stream")
        or _format_problem(container.format.name, codec, first)
        or _timestamp_problem(packets, decode_timestamps, context.has_b_frames)
        or _key_frame_problem(codec, packets)
        or _loss_problem(codec, timestamps, lost.unsure)
    )
    index = Index(
        container=container.format.name,
        streams=len(container.streams.video),
        codec=codec,
        pixel_format=first.format.name if first else context.pix_fmt or "",
        width=width,
        height=height,
        resized=bool(first) and (first.width, first.height) != (width, height),
        rotation=-round(first.rotation) % 360 if first else 0,
        interlaced=bool(first and first.interlaced_frame),
        time_base=stream.time_base,
        start=stream.start_time or 0,
        declared=stream.frames,
        duration=duration if len(parts) == 1 else 0,
        packets=packets,
        timestamps=timestamps,
        parts=parts,
        times=times,
        seek_problem=seek_problem,
        damaged=bool(damage),
        notes=_notes(packets, times, stream.frames, lost.found),
    )
    check_seconds(index.seconds)
    return index


def _duration(container: InputContainer, stream: VideoStream) -> float:
    """Seconds by the header of the stream, else of the container; 0 if both are missing."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    whole = (container.duration or 0) / 1e6
    clock = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", ""))  # Matroska's
    if not clock:
        return whole
    hours, minutes, seconds = clock.groups()
    return min(whole, 3600 * int(hours) + 60 * int(minutes) + float(seconds))


def _read_packets(
    container: InputContainer, stream: VideoStream, codec: str
) -> tuple[list[Packet], list[int | None], Any, str, bool, LostPictures]:
    """Read (packets, decoding timestamps, first frame or None, damage or "", True if all are plain, lost pictures)."""
    extradata = stream.codec_context.extradata or b""
    length_size = nal_length_size(codec, extradata)
    packets: list[Packet] = []
    decode_timestamps: list[int | None] = []
    first, damage, plain = None, "", True
    lost = LostPictures(codec, parameter_sets(codec, extradata, length_size))
    try:
        for packet in decoded(container.demux(stream)):
            if packet.size == 0 and packet.dts is None:
                break  # the end
            check_frames(len(packets) // 2)  # a frame can have two
            units = nal_units(packet, length_size) if codec in CHECKED_CODECS else []
            random_access = packet.is_keyframe and is_random_access(codec, units)
            shown = not packet.is_discard and is_shown(codec, packet)
            packets.append(Packet(packet.pts, packet.size, random_access, shown))
            decode_timestamps.append(packet.dts)
            if not damage and (packet.is_corrupt or not is_whole(packet, length_size)):
                damage = DAMAGED
            plain = plain and is_plain(codec, packet, units, extradata)
            lost.put(units)
            if first is None:
                with decoding():
                    first = next(iter(packet.decode()), None)
    except CorruptVideo as error:
        damage = f"{DAMAGED}: {error}"
    return packets, decode_timestamps, first, damage, plain, lost


def _format_problem(container: str, codec: str, first: Any) -> str:
    """Reason against seeking in the container, codec and kind of the first frame; "" if none."""
    if container.split(",")[0] not in _SEEKABLE:
        return f"a container ({container}) without an index"
    if codec not in _ONE_FRAME_A_PACKET:
        return f"a codec ({codec}) that is read in order"
    if first is not None and first.interlaced_frame:
        return "interlaced"  # a packet may be half a frame
    return ""


def _timestamp_problem(packets: Sequence[Packet], decode_timestamps: Sequence[int | None], reorders: bool) -> str:
    """Reason against seeking in the timestamps; "" if none. `reorders`: the codec has B-frames."""
    timestamps = [packet.timestamp for packet in packets if packet.shown]
    # Matroska leaves out the first ones
    known = [timestamp for timestamp in decode_timestamps if timestamp is not None]
    if None in timestamps or not known:
        return "packets without timestamps"
    if len(set(timestamps)) < len(timestamps):
        return "timestamps that repeat"
    if any(later <= earlier for earlier, later in zip(known, known[1:])):
        return "timestamps that go back"
    if reorders and timestamps == sorted(timestamps):
        return "timestamps of the order of decoding"
    return ""


def _loss_problem(codec: str, timestamps: Sequence[int], unsure: bool) -> str:
    """Reason to suspect missing packets; "" if none. Where headers do not show them, they leave a gap in time."""
    if codec in CHECKED_CODECS:
        return "headers that do not say whether packets are missing" if unsure else ""
    return "frames at uneven distances, where packets may be missing" if _is_uneven(timestamps) else ""


def _key_frame_problem(codec: str, packets: Sequence[Packet]) -> str:
    """Reason against seeking in the order of key frames and hidden frames; "" if none."""
    shown = [packet.timestamp for packet in packets if packet.shown]
    hidden = [packet.timestamp for packet in packets if not packet.shown and packet.timestamp is not None]
    if not packets[0].random_access:
        return "it does not begin with a key frame"
    if any(timestamp < packets[0].timestamp for timestamp in shown):
        return "frames before the first key frame"
    if _has_leading_frames(packets):
        return "open groups of pictures"
    if codec != "vp8" and shown and any(min(shown) < timestamp < max(shown) for timestamp in hidden):
        return "parts in the middle that are not shown"
    return ""


def _notes(packets: Sequence[Packet], times: Sequence[int], declared: int, lost: bool) -> tuple[str, ...]:
    """Unusual properties of a file that is not wrong: names of tools.dataset.findings.NOTES."""
    facts = {
        "edit_list": not all(packet.shown for packet in packets),
        "open_gop": _has_leading_frames(packets),
        "variable_rate": _is_uneven(times),
        "header_count": declared not in (0, len(times)),
        "lost_packets": lost,
    }
    return tuple(name for name, is_so in facts.items() if is_so)


def _is_uneven(timestamps: Sequence[int]) -> bool:
    """True if frames come at uneven distances."""
    steps = sorted(later - earlier for earlier, later in zip(timestamps, timestamps[1:]))
    return bool(steps) and steps[-1] - steps[0] > max(1, 2 * _STEADY * steps[len(steps) // 2])


def _has_leading_frames(packets: Sequence[Packet]) -> bool:
    """True if frames are decoded after a key frame and shown before it: an open GOP."""
    key = None
    for packet in packets:
        if packet.timestamp is None:
            continue
        if packet.random_access:
            key = packet.timestamp
        elif key is not None and packet.timestamp < key:
            return True
    return False


def plan(index: Index, frames: Sequence[int]) -> list[Run]:
    """Plan the reading of frames by timestamp: runs of packets, each from a key frame on.

    Args:
        index: without a seek_problem.
        frames: numbers of the frames, ascending.
    """
    place_of = {packet.timestamp: place for place, packet in enumerate(index.packets) if packet.shown}
    runs: list[Run] = []
    last = -1
    for frame in frames:
        timestamp = index.timestamps[frame]
        place = place_of[timestamp]
        start = place  # becomes the last packet from which the frame can be decoded
        while not (index.packets[start].random_access and index.packets[start].timestamp <= timestamp):
            start -= 1
        if runs and start <= last + _NEAR:
            runs[-1].frames.append(frame)
        else:
            runs.append(Run(start if start > _NEAR else 0, [frame]))
        last = max(last, place)
    return runs
