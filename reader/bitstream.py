"""What the bytes of a packet tell without decoding: whether decoding can begin there, and whether it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet

_H264_IDR, _H264_SEI, _RECOVERY_POINT = 5, 6, 6
_HEVC_RANDOM_ACCESS = range(16, 22)  # BLA, IDR and CRA pictures
_H264_SETS, _HEVC_SETS = (7, 8), (32, 33, 34)  # parameter sets
_HEVC_BREAKS = (16, 17, 18, 36, 37)  # BLA pictures, ends of a sequence or of the bitstream
_H264_PICTURES, _HEVC_PICTURES = range(1, 6), range(32)  # slices
_LOOKED_AT = 4096  # bytes of a NAL unit that are looked at


def nal_length_size(codec: str, extradata: bytes | None) -> int:
    """Bytes that give a NAL unit's length in the packets of an MP4-like stream; 0 where start codes divide them.

    Source: ISO/IEC 14496-15, the avcC and hvcC boxes.
    """
    place = {"h264": 4, "hevc": 21}.get(codec)
    if place is None or not extradata or len(extradata) <= place or extradata[0] != 1:
        return 0
    return (extradata[place] & 3) + 1


def is_shown(codec: str, packet: Packet) -> bool:
    """Whether a packet's frame is shown: VP8 has some that are only referred to (RFC 6386, section 9.1)."""
    return not (codec == "vp8" and packet.size and not memoryview(packet)[0] & 0x10)


def is_whole(packet: Packet, length_size: int) -> bool:
    """Whether the lengths of a packet's NAL units add up to its size. Without lengths nothing can be said: True."""
    if not length_size:
        return True
    data, place = memoryview(packet), 0
    while place + length_size < len(data):
        place += length_size + int.from_bytes(data[place : place + length_size], "big")
    return place == len(data)


def is_plain(codec: str, packet: Packet, length_size: int, extradata: bytes) -> bool:
    """Whether a packet holds nothing that makes frames depend on where decoding began, or keeps some from being shown.

    That are parameter sets other than the stream's own, packets without a picture, and in HEVC BLA pictures, ends of a
    sequence, and key frames that discard what is not shown yet (ITU-T H.265, 7.4.2.2 and 7.4.7.1). Only H.264 and HEVC
    are looked at.
    """
    if hasattr(packet, "has_sidedata") and packet.has_sidedata("new_extradata"):  # PyAV from 15 on
        return False
    kinds = {"h264": (_H264_SETS, (), 0x1F, 0), "hevc": (_HEVC_SETS, _HEVC_BREAKS, 0x3F, 1)}.get(codec)
    if kinds is None:
        return True
    sets, breaks, mask, shift = kinds
    pictures = _H264_PICTURES if codec == "h264" else _HEVC_PICTURES
    shows = False
    for unit in _nal_units(memoryview(packet), length_size):
        kind = unit[0] >> shift & mask
        shows = shows or kind in pictures
        if kind in breaks or (kind in sets and unit.rstrip(b"\0") not in extradata):
            return False
        if codec == "hevc" and kind in _HEVC_RANDOM_ACCESS and len(unit) > 2 and unit[2] & 0x40:
            return False
    return shows


def is_random_access(codec: str, packet: Packet, length_size: int) -> bool:
    """Whether all frames whose stamp is not before this key packet's can be decoded exactly from here.

    So it is for every key frame, but in H.264 only for an IDR picture and one whose recovery point message promises
    exactness at once (ITU-T H.264, D.2.8), and in HEVC for the types that say so (ITU-T H.265, 7.4.2.2).
    """
    if codec == "h264":
        units = list(_nal_units(memoryview(packet), length_size))
        return any(unit[0] & 31 == _H264_IDR for unit in units) or any(map(_is_exact_recovery_point, units))
    if codec == "hevc":
        return any(unit[0] >> 1 & 63 in _HEVC_RANDOM_ACCESS for unit in _nal_units(memoryview(packet), length_size))
    return True


def _nal_units(data: memoryview, length_size: int) -> Iterator[bytes]:
    """Beginnings of the NAL units of a packet, none empty."""
    if not length_size:
        for piece in bytes(data).split(b"\0\0\1")[1:]:
            if piece:
                yield piece[:_LOOKED_AT]
        return
    place = 0
    while place + length_size < len(data):
        size = int.from_bytes(data[place : place + length_size], "big")
        place += length_size
        if size:
            yield bytes(data[place : place + min(size, _LOOKED_AT)])
        place += size


def _is_exact_recovery_point(unit: bytes) -> bool:
    """Whether a NAL unit of H.264 is an SEI message with recovery_frame_cnt 0 and exact_match_flag 1."""
    if unit[0] & 31 != _H264_SEI:
        return False
    data = unit[1:].replace(b"\0\0\3", b"\0\0")  # without emulation prevention
    place = 0
    while place + 2 < len(data):
        kind, place = _sei_number(data, place)
        size, place = _sei_number(data, place)
        if kind == _RECOVERY_POINT:
            return place < len(data) and data[place] & 0xC0 == 0xC0
        place += size
    return False


def _sei_number(data: bytes, place: int) -> tuple[int, int]:
    """(number, place after it): coded as a sum of bytes of which the last is not 255."""
    number = 0
    while place < len(data) and data[place] == 255:
        number, place = number + 255, place + 1
    return number + (data[place] if place < len(data) else 0), place + 1
