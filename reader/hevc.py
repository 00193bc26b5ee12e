"""Reference picture sets of HEVC, which show missing reference pictures (ITU-T H.265, 7.3 and 8.3)."""

from __future__ import annotations

from typing import NamedTuple

from stnet.reader.bitstream import Bits

_IDR, _IRAP, _SPS, _PPS = (19, 20), range(16, 24), 33, 34  # types of NAL units
_RASL = (8, 9)
_NOT_PREVIOUS = (0, 2, 4, 6, 7, 8, 9, 10, 12, 14)  # leading and sub-layer non-reference pictures
_HEADER = 256  # bytes, at most, of a slice's header up to the reference pictures

_Set = list[tuple[int, bool]]  # (difference in picture order, used by this picture), nearest first, past first


class _Sequence(NamedTuple):
    """Fields of a sequence parameter set."""

    planes: bool  # separate_colour_plane_flag
    order_bits: int  # of slice_pic_order_cnt_lsb
    sets: list[_Set]
    long_term: bool
    long_term_sets: list[tuple[int, bool]]  # (lsb of picture order, used by this picture)


class _Picture(NamedTuple):
    """Fields of a picture parameter set."""

    sequence: int
    output_flag: bool
    extra_bits: int


class ReferencePictures:
    """Tracks the pictures in the decoded picture buffer, and the references of each picture."""

    allows_gaps = False

    def __init__(self) -> None:
        self.sequences: dict[int, _Sequence] = {}
        self.pictures: dict[int, _Picture] = {}
        self.held: set[int] = set()  # picture orders
        self.order = 0  # of the previous picture that orders are relative to
        self.starts = 0  # random access pictures so far

    def is_lost_before(self, unit: bytes) -> bool:
        """Parse the next NAL unit of the stream. Returns True if a picture that it refers to is missing.

        Raises:
            ValueError, IndexError, KeyError: the unit is incomplete, or its parameter sets are missing.
        """
        kind = unit[0] >> 1 & 63
        if (unit[0] & 1) or unit[1] >> 3:  # of another layer
            return False
        if kind == _SPS:
            number, sequence = _read_sequence(Bits(unit[2:]))
            self.sequences[number] = sequence
        elif kind == _PPS:
            number, picture = _read_picture(Bits(unit[2:]))
            self.pictures[number] = picture
        elif kind < 32 and unit[2] & 0x80:  # the first slice of a picture
            return self._is_lost_before(unit[:_HEADER], kind)
        return False

    def _is_lost_before(self, unit: bytes, kind: int) -> bool:
        self.starts += kind in _IRAP
        if kind in _RASL and self.starts == 1:  # it is not decoded
            return False
        if kind in _IDR:
            self.held, self.order = {0}, 0
            return False
        bits = Bits(unit[2:])
        bits.u(2 if kind in _IRAP else 1)
        picture = self.pictures[bits.ue()]
        sequence = self.sequences[picture.sequence]
        bits.u(picture.extra_bits)
        bits.ue()  # slice_type
        bits.u(picture.output_flag + 2 * sequence.planes)
        span = 1 << sequence.order_bits
        lsb = bits.u(sequence.order_bits)
        order = self.order + (lsb - self.order + span // 2) % span - span // 2
        if kind in _IRAP and self.starts == 1:
            self.held, order = set(), lsb
        if bits.u(1):  # short_term_ref_pic_set_sps_flag
            short_term = sequence.sets[bits.u((len(sequence.sets) - 1).bit_length())]
        else:
            short_term = _read_set(bits, sequence.sets, last=True)
        needs = {order + delta: need for delta, need in short_term}
        if sequence.long_term:
            needs.update(self._long_term(bits, sequence, order))
        lost = order in self.held or any(need and other not in self.held for other, need in needs.items())
        self.held = {order} | (self.held & needs.keys())
        if kind not in _NOT_PREVIOUS and unit[1] & 7 == 1:
            self.order = order
        return lost

    def _long_term(self, bits: Bits, sequence: _Sequence, order: int) -> dict[int, bool]:
        """Read the long-term references: picture order -> used by this picture."""
        known, span = sequence.long_term_sets, 1 << sequence.order_bits
        from_sequence = bits.ue(most=32) if known else 0
        count, cycles = from_sequence + bits.ue(most=32), 0
        needs = {}
        for i in range(count):
            if i < from_sequence:
                lsb, need = known[bits.u((len(known) - 1).bit_length())]
            else:
                lsb, need = bits.u(sequence.order_bits), bool(bits.u(1))
            if i in (0, from_sequence):
                cycles = 0
            if bits.u(1):  # delta_poc_msb_present_flag
                cycles += bits.ue()
                other = order - cycles * span - (order % span - lsb)
            else:
                other = next((held for held in self.held if held % span == lsb), -1 - span)
            needs[other] = need
        return needs


def _read_set(bits: Bits, sets: list[_Set], last: bool = False) -> _Set:
    """Read the short-term reference picture set after `sets`; `last`: in a slice header."""
    if sets and bits.u(1):
        base = sets[-1 - bits.ue() if last else -1]
        sign = -1 if bits.u(1) else 1
        shift, found = sign * (bits.ue() + 1), []
        for delta, _ in [*base, (0, False)]:
            need = bool(bits.u(1))
            if (need or bits.u(1)) and delta + shift:
                found.append((delta + shift, need))
        past = sorted((one for one in found if one[0] < 0), reverse=True)
        return past + sorted(one for one in found if one[0] > 0)
    counts, found = (bits.ue(most=16), bits.ue(most=16)), []
    for count, sign in zip(counts, (-1, 1)):
        delta = 0
        for _ in range(count):
            delta += sign * (bits.ue() + 1)
            found.append((delta, bool(bits.u(1))))
    return found


def _read_sequence(bits: Bits) -> tuple[int, _Sequence]:
    bits.u(4)  # sps_video_parameter_set_id
    layers = bits.u(3)
    bits.u(1)
    _skip_profile(bits, layers)
    number, chroma = bits.ue(), bits.ue()
    planes = bits.u(chroma == 3)
    bits.ue(), bits.ue()  # width and height
    if bits.u(1):  # conformance_window_flag
        bits.ue(), bits.ue(), bits.ue(), bits.ue()
    bits.ue(), bits.ue()  # bit depths
    order_bits = bits.ue(most=12) + 4
    for _ in range(layers + 1 if bits.u(1) else 1):
        bits.ue(), bits.ue(), bits.ue()  # sizes of the buffer
    for _ in range(6):  # sizes of blocks
        bits.ue()
    if bits.u(1) and bits.u(1):  # scaling_list_enabled_flag, sps_scaling_list_data_present_flag
        _skip_scaling_lists(bits)
    bits.u(2)
    if bits.u(1):  # pcm_enabled_flag
        bits.u(8), bits.ue(), bits.ue(), bits.u(1)
    sets: list[_Set] = []
    for _ in range(bits.ue(most=64)):
        sets.append(_read_set(bits, sets))
    long_term = bool(bits.u(1))
    count = bits.ue(most=32) if long_term else 0
    long_term_sets = [(bits.u(order_bits), bool(bits.u(1))) for _ in range(count)]
    return number, _Sequence(bool(planes), order_bits, sets, long_term, long_term_sets)


def _skip_profile(bits: Bits, layers: int) -> None:
    bits.u(96)  # general profile and level
    present = [(bits.u(1), bits.u(1)) for _ in range(layers)]
    bits.u(2 * (8 - layers) if layers else 0)
    for profile, level in present:
        bits.u(88 * profile + 8 * level)


def _skip_scaling_lists(bits: Bits) -> None:
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.u(1):  # scaling_list_pred_mode_flag
                bits.ue()
                continue
            for _ in range(min(64, 16 << 2 * size) + (size > 1)):
                bits.se()


def _read_picture(bits: Bits) -> tuple[int, _Picture]:
    number, sequence = bits.ue(), bits.ue()
    bits.u(1)  # dependent_slice_segments_enabled_flag
    return number, _Picture(sequence, bool(bits.u(1)), bits.u(3))
