"""An exact index of a video: which frames a decoder that begins at the start will show, and where each can be got.

The packets are read once, nearly without decoding. Those that the container wants shown, sorted by their presentation
timestamps, are the frames in order, as long as each packet is one frame and has a timestamp of its own; where that is
not sure, `seek_problem` says why, and the frames must be read in order.
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
from stnet.reader.lost import LOSS_IS_TOLD, LostPictures

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_SEEKABLE = ("mov", "matroska")  # containers with an index of their own, by which a seek is exact
_ONE_FRAME_A_PACKET = ("av1", "h264", "hevc", "vp8", "vp9")  # codecs, by FFmpeg's names, that are worth a seek
_STEADY = 0.02  # share by which the distance of two frames may differ from the usual one at a constant rate
DAMAGED = "damaged"  # how the doubt of a damaged file begins
_NEAR = 8  # packets that are decoded rather than sought over


class Packet(NamedTuple):
    """A packet of the video, in the order of decoding."""

    timestamp: Any  # presentation time, int, in units of the stream's time base; None if the container gives none
    size: int  # bytes
    random_access: bool  # frames from its timestamp on can be decoded from here
    shown: bool  # it is a frame that the container wants shown


class Index(NamedTuple):
    """What is known of a video without decoding it."""

    container: str  # FFmpeg's name of the demuxer
    streams: int  # of video in the file
    codec: str
    pixel_format: str
    width: int  # that the container declares: frames of another size are scaled to it, as OpenCV does
    height: int
    resized: bool  # the first frame has another size
    turned: int  # degrees clockwise by which it must be turned to be upright
    interlaced: bool
    time_base: Fraction  # seconds a unit of the timestamps
    declared: int  # frames by the container's header; 0 if it does not say
    duration: float  # seconds, by the container's header; 0 if it does not say, or timestamps begin anew
    packets: list[Packet]
    timestamps: list[int]  # of the frames, in order
    parts: list[Part]  # of which the file is put together, by its timestamps; mostly one
    times: list[int]  # the timestamps, in order, as if they went on where they begin anew
    seek_problem: str  # why frames cannot be got by timestamp; "" if they can
    damaged: bool  # that is the doubt
    notes: tuple[str, ...]  # what a person may want to know of the file

    @property
    def seconds(self) -> float:
        """From the first frame to the end of the last."""
        shown = self.times[-1] - self.times[0] if self.times else 0
        return float(shown * self.time_base) * len(self.times) / max(1, len(self.times) - 1)


class Run(NamedTuple):
    """Frames that are decoded in one go."""

    start: int  # packet to begin with
    frames: list[int]


def read_index(container: InputContainer, stream: VideoStream) -> Index:
    """The Index of a stream.

    Args:
        container, stream: of stnet.reader.containers.opened; they are at the end of the file afterwards.

    Raises:
        ClipError: not a single packet can be read; BeyondBounds by what the header says, or the packets.
    """
    context = stream.codec_context
    duration = _duration(container, stream)
    check_pixels(context.width, context.height)
    check_frames(stream.frames)
    if container.format.name not in CLOCKED:  # there it is guessed by the last timestamp
        check_seconds(duration)
    codec, width, height = context.codec.canonical_name, context.width, context.height
    packets, decode_timestamps, first, damage, plain, lost = _read_packets(container, stream, codec)
    if not packets:
        raise ClipError(f"no frame can be decoded ({damage or 'no packet of the video can be read'})")
    decoded_stamps = [packet.timestamp for packet in packets if packet.shown and packet.timestamp is not None]
    timestamps, parts = sorted(decoded_stamps), parts_of(decoded_stamps, container.format.name)
    times = sorted(joined(parts)) if len(parts) > 1 else timestamps
    check_frames(len(timestamps))
    if first:
        check_pixels(first.width, first.height)
    index = Index(
        container=container.format.name,
        streams=len(container.streams.video),
        codec=codec,
        pixel_format=first.format.name if first else context.pix_fmt or "",
        width=width or (first.width if first else 0),
        height=height or (first.height if first else 0),
        resized=bool(first) and (first.width, first.height) != (width or first.width, height or first.height),
        turned=-round(first.rotation) % 360 if first else 0,
        interlaced=bool(first and first.interlaced_frame),
        time_base=stream.time_base,
        declared=stream.frames,
        duration=duration if len(parts) == 1 else 0,
        packets=packets,
        timestamps=timestamps,
        parts=parts,
        times=times,
        seek_problem=damage
        or ("packets are missing" if lost.found else "")
        or ("" if plain else "parameters that change within the stream")
        or _seek_problem(container.format.name, codec, first)
        or _problem_of_packets(codec, packets, decode_timestamps, context.has_b_frames)
        or _problem_of_losses(codec, timestamps, lost.unsure),
        damaged=bool(damage),
        notes=_notes(packets, times, stream.frames, lost.found),
    )
    check_seconds(index.seconds)
    return index


def _duration(container: InputContainer, stream: VideoStream) -> float:
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
    """(packets, decoding timestamps, first decoded frame or None, damage or "", whether all are plain, lost ones)."""
    length_size = nal_length_size(codec, stream.codec_context.extradata)
    packets: list[Packet] = []
    decode_timestamps: list[int | None] = []
    first, damage, plain = None, "", True
    extradata = stream.codec_context.extradata or b""
    lost = LostPictures(codec, parameter_sets(codec, extradata, length_size))
    try:
        for packet in decoded(container.demux(stream)):
            if packet.size == 0 and packet.dts is None:
                break  # the end
            check_frames(len(packets) // 2)  # a frame can have two
            units = nal_units(packet, length_size) if codec in LOSS_IS_TOLD else []
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


def _seek_problem(container: str, codec: str, first: Any) -> str:
    """Why frames cannot be got by timestamp, by what kind of file it is; "" if they can."""
    if container.split(",")[0] not in _SEEKABLE:
        return f"a container ({container}) without an index"
    if codec not in _ONE_FRAME_A_PACKET:
        return f"a codec ({codec}) that is read in order"
    if first is not None and first.interlaced_frame:
        return "interlaced"  # a packet may be half a frame
    return ""


def _problem_of_packets(
    codec: str, packets: Sequence[Packet], decode_timestamps: Sequence[int | None], reorders: bool
) -> str:
    """Why the packets are no sound index; "" if they are."""
    return _problem_of_timestamps(packets, decode_timestamps, reorders) or _problem_of_order(codec, packets)


def _problem_of_timestamps(packets: Sequence[Packet], decode_timestamps: Sequence[int | None], reorders: bool) -> str:
    timestamps = [packet.timestamp for packet in packets if packet.shown]
    known = [
        timestamp for timestamp in decode_timestamps if timestamp is not None
    ]  # Matroska leaves out the first ones
    if None in timestamps or not known:
        return "packets without timestamps"
    if len(set(timestamps)) < len(timestamps):
        return "timestamps that repeat"
    if any(later <= earlier for earlier, later in zip(known, known[1:])):
        return "timestamps that go back"
    if reorders and timestamps == sorted(timestamps):
        return "timestamps of the order of decoding"
    return ""


def _problem_of_losses(codec: str, timestamps: Sequence[int], unsure: bool) -> str:
    """Why packets may be missing: a lost packet of a codec whose headers are not read leaves a gap of time at least."""
    if codec in LOSS_IS_TOLD:
        return "headers that do not say whether packets are missing" if unsure else ""
    return "frames at uneven distances, where packets may be missing" if _is_uneven(timestamps) else ""


def _problem_of_order(codec: str, packets: Sequence[Packet]) -> str:
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
    """Facts about a file that is not wrong: names of tools.dataset.findings.NOTES."""
    facts = {
        "edit_list": not all(packet.shown for packet in packets),
        "open_gop": _has_leading_frames(packets),
        "variable_rate": _is_uneven(times),
        "header_count": declared not in (0, len(times)),
        "lost_packets": lost,
    }
    return tuple(name for name, is_so in facts.items() if is_so)


def _is_uneven(timestamps: Sequence[int]) -> bool:
    """Whether frames lie at uneven distances."""
    steps = sorted(later - earlier for earlier, later in zip(timestamps, timestamps[1:]))
    return bool(steps) and steps[-1] - steps[0] > max(1, 2 * _STEADY * steps[len(steps) // 2])


def _has_leading_frames(packets: Sequence[Packet]) -> bool:
    """Whether frames come after a key frame that are shown before it: an open group of pictures."""
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
    """How to get frames by timestamp: runs of packets, each from a key frame on.

    Args:
        index: without doubt.
        frames: numbers of the frames, ascending.
    """
    place_of = {packet.timestamp: place for place, packet in enumerate(index.packets) if packet.shown}
    runs: list[Run] = []
    last = -1
    for frame in frames:
        timestamp = index.timestamps[frame]
        place = place_of[timestamp]
        start = _entry(index.packets, place, timestamp)
        if runs and start <= last + _NEAR:
            runs[-1].frames.append(frame)
        else:
            runs.append(Run(start if start > _NEAR else 0, [frame]))
        last = max(last, place)
    return runs


def _entry(packets: Sequence[Packet], place: int, timestamp: int) -> int:
    """Place of the last packet, at `place` or before, from which the frame with the timestamp can be decoded."""
    while not (packets[place].random_access and packets[place].timestamp <= timestamp):
        place -= 1
    return place
