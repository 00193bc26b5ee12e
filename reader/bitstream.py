"""Properties of packets and NAL units, read from their bytes without decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.packet import Packet

_H264_IDR, _H264_SEI, _RECOVERY_POINT = 5, 6, 6
_HEVC_RANDOM_ACCESS = range(16, 22)  # BLA, IDR and CRA pictures
_H264_SETS, _HEVC_SETS = (7, 8), (32, 33, 34)  # parameter sets
_HEVC_BREAKS = (16, 17, 18, 36, 37)  # BLA pictures, ends of a sequence or of the bitstream
_H264_PICTURES, _HEVC_PICTURES = range(1, 6), range(32)  # slices
_PARSED_BYTES = 4096  # of a NAL unit


def nal_length_size(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length field before each NAL unit (ISO/IEC 14496-15, avcC and hvcC); 0: start codes divide them."""
    offset = {"h264": 4, "hevc": 21}.get(codec)
    if offset is None or not extradata or len(extradata) <= offset or extradata[0] != 1:
        return 0
    return (extradata[offset] & 3) + 1


def is_shown(codec: str, packet: Packet) -> bool:
    """True if a packet's frame is shown: VP8 has frames for reference only (RFC 6386, section 9.1)."""
    return not (codec == "vp8" and packet.size and not memoryview(packet)[0] & 0x10)


def is_whole(packet: Packet, length_size: int) -> bool:
    """True if the lengths of a packet's NAL units add up to its size, or it has no lengths."""
    if not length_size:
        return True
    data, offset = memoryview(packet), 0
    while offset + length_size < len(data):
        offset += length_size + int.from_bytes(data[offset : offset + length_size], "big")
    return offset == len(data)


def is_plain(codec: str, packet: Packet, units: Sequence[bytes], extradata: bytes) -> bool:
    """True unless a packet makes frames depend on where decoding began, or prevents some from being shown.

    So do parameter sets other than the stream's own, packets without a picture, and in HEVC BLA pictures, ends of a
    sequence, and key frames that discard earlier pictures (ITU-T H.265, 7.4.2.2 and 7.4.7.1). Only H.264 and HEVC are
    examined.

    Args:
        units: the NAL units of the packet.
        extradata: of the stream.
    """
    if hasattr(packet, "has_sidedata") and packet.has_sidedata("new_extradata"):  # PyAV from 15 on
        return False
    if codec not in ("h264", "hevc"):
        return True
    is_hevc = codec == "hevc"
    sets, pictures = (_HEVC_SETS, _HEVC_PICTURES) if is_hevc else (_H264_SETS, _H264_PICTURES)
    has_picture = False
    for unit in units:
        kind = unit[0] >> 1 & 0x3F if is_hevc else unit[0] & 0x1F
        has_picture = has_picture or kind in pictures
        if kind in sets and unit.rstrip(b"\0") not in extradata:
            return False
        if is_hevc and kind in _HEVC_BREAKS:
            return False
        if is_hevc and kind in _HEVC_RANDOM_ACCESS and len(unit) > 2 and unit[2] & 0x40:
            return False
    return has_picture


def is_random_access(codec: str, units: Sequence[bytes]) -> bool:
    """True if all frames from this key packet's timestamp on can be decoded exactly from here.

    In H.264 these are IDR pictures and those with an exact recovery point (ITU-T H.264, D.2.8), in HEVC BLA, IDR and
    CRA pictures (ITU-T H.265, 7.4.2.2); in other codecs all key frames.
    """
    if codec == "h264":
        return any(unit[0] & 31 == _H264_IDR for unit in units) or any(map(_is_exact_recovery_point, units))
    if codec == "hevc":
        return any(unit[0] >> 1 & 63 in _HEVC_RANDOM_ACCESS for unit in units)
    return True


def nal_units(packet: Packet, length_size: int) -> list[bytes]:
    """First bytes of each NAL unit of a packet, none empty."""
    data = memoryview(packet)
    if not length_size:
        return _between_start_codes(bytes(data))
    units, offset = [], 0
    while offset + length_size < len(data):
        size = int.from_bytes(data[offset : offset + length_size], "big")
        offset += length_size
        if size:
            units.append(bytes(data[offset : offset + min(size, _PARSED_BYTES)]))
        offset += size
    return units


def _between_start_codes(data: bytes) -> list[bytes]:
    return [piece[:_PARSED_BYTES] for piece in data.split(b"\0\0\1")[1:] if piece]


def parameter_sets(codec: str, extradata: bytes, length_size: int) -> list[bytes]:
    """Parameter sets in the extradata of an H.264 or HEVC stream (ISO/IEC 14496-15, avcC and hvcC)."""
    if not length_size:
        return _between_start_codes(extradata)
    units: list[bytes] = []
    if codec == "h264":
        offset, arrays = 5, 2
    else:
        offset, arrays = 23, extradata[22] if len(extradata) > 22 else 0
    for array in range(arrays):
        if codec == "h264":
            head = extradata[offset : offset + 1]
            mask = 31 if array == 0 else 255
            count = head[0] & mask if head else 0
            offset += 1
        else:
            count = int.from_bytes(extradata[offset + 1 : offset + 3], "big")
            offset += 3
        for _ in range(count):
            size = int.from_bytes(extradata[offset : offset + 2], "big")
            units.append(extradata[offset + 2 : offset + 2 + size])
            offset += 2 + size
    return [unit for unit in units if unit]


class Bits:
    """Bit reader of a NAL unit. Raises ValueError beyond its end."""

    def __init__(self, unit: bytes) -> None:
        data = unit.replace(b"\0\0\3", b"\0\0")  # without emulation prevention
        self.bits, self.offset = bin(int.from_bytes(b"\1" + data, "big"))[3:], 0

    def u(self, count: int) -> int:
        """Read an unsigned number of `count` bits."""
        self.offset += count
        return int(self.bits[self.offset - count : self.offset], 2) if count else 0

    def ue(self, most: int = 1 << 32) -> int:
        """Read an unsigned Exp-Golomb code. Raises ValueError if it is above `most`."""
        zeros = self.bits.index("1", self.offset) - self.offset
        if zeros > 32:
            raise ValueError("a number of more than 32 bits")
        self.offset += zeros
        number = self.u(zeros + 1) - 1
        if number > most:
            raise ValueError(f"{number}, expected at most {most}")
        return number

    def se(self) -> int:
        """Read a signed Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -code // 2


def _is_exact_recovery_point(unit: bytes) -> bool:
    """True for an SEI NAL unit of H.264 with recovery_frame_cnt 0 and exact_match_flag 1."""
    if unit[0] & 31 != _H264_SEI:
        return False
    data = unit[1:].replace(b"\0\0\3", b"\0\0")  # without emulation prevention
    offset = 0
    while offset + 2 < len(data):
        kind, offset = _sei_number(data, offset)
        size, offset = _sei_number(data, offset)
        if kind == _RECOVERY_POINT:
            return offset < len(data) and data[offset] & 0xC0 == 0xC0
        offset += size
    return False


def _sei_number(data: bytes, offset: int) -> tuple[int, int]:
    """(number, offset after it): coded as a sum of bytes of which the last is not 255."""
    number = 0
    while offset < len(data) and data[offset] == 255:
        number, offset = number + 255, offset + 1
    return number + (data[offset] if offset < len(data) else 0), offset + 1
