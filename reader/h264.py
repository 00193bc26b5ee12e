"""Frame numbers of H.264, which show missing reference pictures (ITU-T H.264, 7.3.2 to 7.4.3)."""

from __future__ import annotations

from typing import NamedTuple

from stnet.reader.bitstream import Bits

_SLICES, _IDR, _SPS, _PPS = (1, 2, 5), 5, 7, 8  # types of NAL units; 2 is the first part of a slice in three
_HEADER, _TO_FIELDS = 96, 24  # at most, bytes of a slice's header, and of it up to bottom_field_flag
_PROFILES_WITH_CHROMA = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)
_RESET = 5  # memory management control operation: frame numbers begin anew


class _Sequence(NamedTuple):
    """Fields of a sequence parameter set."""

    chroma: bool
    planes: bool  # separate_colour_plane_flag
    number_bits: int  # of frame_num
    order_type: int
    order_bits: int  # of pic_order_cnt_lsb
    order_deltas: bool  # are in slice headers
    gaps: bool  # in frame_num are allowed
    frames_only: bool


class _Picture(NamedTuple):
    """Fields of a picture parameter set."""

    sequence: int
    order_of_bottom: bool
    references: tuple[int, int]
    weighted: tuple[bool, bool]  # P, B
    redundant: bool


class FrameNumbers:
    """Compares the frame_num of each picture with that of the last reference picture."""

    def __init__(self) -> None:
        self.sequences: dict[int, _Sequence] = {}
        self.pictures: dict[int, _Picture] = {}
        self.reference: int | None = None  # frame_num of the last reference picture
        self.marking = b""  # its slice
        self.field: tuple[int, int] | None = None  # parity and frame_num of a first field
        self.allows_gaps = False  # gaps in frame_num are allowed, as after the removal of layers

    def is_lost_before(self, unit: bytes) -> bool:
        """Parse the next NAL unit of the stream. Returns True if a reference picture is missing before it.

        Raises:
            ValueError, IndexError, KeyError: the unit is incomplete, or its parameter sets are missing.
        """
        kind = unit[0] & 31
        if kind == _SPS:
            number, sequence = _read_sequence(Bits(unit[1:]))
            self.sequences[number] = sequence
        elif kind == _PPS:
            number, picture = _read_picture(Bits(unit[1:]))
            self.pictures[number] = picture
        elif kind in _SLICES and unit[1] & 0x80:  # the first slice of a picture
            return self._is_lost_before(unit[:_HEADER])
        return False

    def _is_lost_before(self, unit: bytes) -> bool:
        bits = Bits(unit[1:_TO_FIELDS])
        bits.ue(), bits.ue()  # first_mb_in_slice, slice_type
        sequence = self.sequences[self.pictures[bits.ue()].sequence]
        bits.u(2 * sequence.planes)
        number = bits.u(sequence.number_bits)
        parity = None if sequence.frames_only or not bits.u(1) else bits.u(1)
        second = parity is not None and self.field == (1 - parity, number)
        lost = False
        if unit[0] & 31 != _IDR and not second and self.reference is not None:
            lost = number != (self.reference + 1) % (1 << sequence.number_bits)
            if lost and number <= 1 and self._is_reset(self.marking):
                lost = number == 0 and parity is None
        self.allows_gaps = sequence.gaps
        self.field = None if parity is None or second else (parity, number)
        if unit[0] & 0x60:
            self.reference, self.marking = number, unit
        return lost

    def _is_reset(self, unit: bytes) -> bool:
        """True if a memory management operation of the reference picture, not IDR, resets frame_num."""
        if unit[0] & 31 == _IDR:
            return False
        bits = Bits(unit[1:])
        bits.ue()  # first_mb_in_slice
        kind = "PBIPI"[bits.ue() % 5]
        picture = self.pictures[bits.ue()]
        sequence = self.sequences[picture.sequence]
        bits.u(2 * sequence.planes + sequence.number_bits)
        is_field = not sequence.frames_only and bits.u(1)  # field_pic_flag
        if is_field:
            bits.u(1)  # bottom_field_flag
        bits.u(sequence.order_bits)
        of_bottom = picture.order_of_bottom and not is_field
        deltas = of_bottom if sequence.order_type == 0 else sequence.order_deltas * (1 + of_bottom)
        for _ in range(deltas):
            bits.se()
        if picture.redundant:
            bits.ue()
        bits.u(kind == "B")  # direct_spatial_mv_pred_flag
        counts = picture.references[: " PB".index(kind)] if kind != "I" else ()
        if counts and bits.u(1):  # num_ref_idx_active_override_flag
            counts = tuple(bits.ue() + 1 for _ in counts)
        for _ in counts:
            if bits.u(1):  # ref_pic_list_modification_flag
                while bits.ue() != 3:
                    bits.ue()
        if counts and picture.weighted[kind == "B"]:
            _skip_weights(bits, counts, sequence.chroma)
        return _RESET in _operations(bits)


def _skip_weights(bits: Bits, counts: tuple[int, ...], chroma: bool) -> None:
    bits.ue()  # luma_log2_weight_denom
    if chroma:
        bits.ue()
    for _ in range(sum(counts)):
        numbers = 2 * bits.u(1)
        for _ in range(numbers):
            bits.se()
        numbers = 4 * bits.u(1) if chroma else 0
        for _ in range(numbers):
            bits.se()


def _operations(bits: Bits) -> list[int]:
    """Read the memory management control operations of a slice."""
    found: list[int] = []
    while bits.u(1) if not found else found[-1]:  # adaptive_ref_pic_marking_mode_flag, then up to a 0
        found.append(bits.ue())
        for _ in range({1: 1, 2: 1, 3: 2, 4: 1, 6: 1}.get(found[-1], 0)):
            bits.ue()
    return found


def _read_sequence(bits: Bits) -> tuple[int, _Sequence]:
    profile = bits.u(8)
    bits.u(16)  # constraints, level
    number = bits.ue()
    chroma, planes = 1, 0
    if profile in _PROFILES_WITH_CHROMA:
        chroma = bits.ue()
        planes = bits.u(chroma == 3)
        bits.ue(), bits.ue()  # bit depths
        bits.u(1)
        if bits.u(1):  # seq_scaling_matrix_present_flag
            for i in range(12 if chroma == 3 else 8):
                if bits.u(1):
                    _skip_scaling_list(bits, 16 if i < 6 else 64)
    number_bits = bits.ue(most=12) + 4
    order_type = bits.ue(most=2)
    order_bits = bits.ue(most=12) + 4 if order_type == 0 else 0
    deltas = order_type == 1 and not bits.u(1)
    if order_type == 1:
        bits.se(), bits.se()
        for _ in range(bits.ue(most=255)):
            bits.se()
    bits.ue()  # max_num_ref_frames
    gaps = bits.u(1)
    bits.ue(), bits.ue()  # width and height
    frames_only = bits.u(1)
    chroma_array = bool(chroma) and not planes
    return number, _Sequence(
        chroma_array, bool(planes), number_bits, order_type, order_bits, deltas, bool(gaps), bool(frames_only)
    )


def _skip_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _read_picture(bits: Bits) -> tuple[int, _Picture]:
    number, sequence = bits.ue(), bits.ue()
    bits.u(1)  # entropy_coding_mode_flag
    order_of_bottom = bits.u(1)
    if bits.ue():
        raise ValueError("slice groups")
    references = bits.ue() + 1, bits.ue() + 1
    weighted = bool(bits.u(1)), bits.u(2) == 1
    bits.se(), bits.se(), bits.se()  # quantization
    bits.u(2)
    return number, _Picture(sequence, bool(order_of_bottom), references, weighted, bool(bits.u(1)))
