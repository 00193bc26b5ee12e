"""Files of which packets are lost: frames are those that PyAV shows from the start on, whatever is asked for."""

import sys
from pathlib import Path

import numpy as np
import pytest
from test_index import index_of, write

from stnet.reader.decode import Frames, read_frames
from stnet.reader.h264 import FrameNumbers
from stnet.reader.lost import LostPictures

pytest.importorskip("imageio_ffmpeg")
sys.path.insert(0, str(Path(__file__).parent.parent / "corpus"))

from lost import encode, lose, without
from reference import frames_by_pyav


def read(path, pick):
    sink = Frames(pick)
    return read_frames(str(path), sink), sink.rows


@pytest.mark.parametrize(
    ("encoding", "loss", "extension"),
    [
        ("h264_p", "key", "mkv"),
        ("h264_refs", "some", "mp4"),
        ("h264_pyramid_strict", "key", "mkv"),
        ("h264_b_one_key", "burst", "mp4"),
        ("h264_weighted", "sixteen", "mkv"),
        ("h264_interlaced", "burst", "mp4"),
        ("hevc_layers", "key", "mp4"),
    ],
)
def test_a_gap_of_frame_numbers_or_a_missing_reference_is_seen_and_pyav_reads(tmp_path, encoding, loss, extension):
    whole = encode(tmp_path, encoding, extension)
    assert "lost_packets" not in index_of(str(whole)).notes
    path = lose(whole, loss, tmp_path / f"lost.{extension}")
    expected = frames_by_pyav(path)
    assert "lost_packets" in index_of(str(path)).notes
    for pick in (range, lambda count: [0], lambda count: [count // 2, count - 1]):
        video, rows = read(path, pick)
        assert (video.frames, video.decoder) == (len(expected), "pyav")
        assert np.array_equal(rows, [expected[number] for number in pick(video.frames)])


def test_whole_files_are_still_read_by_decord(tmp_path):
    pytest.importorskip("decord")
    for encoding in ("h264_pyramid", "h264_slices", "h264_cavlc"):
        assert read(encode(tmp_path, encoding), range)[0].decoder == "decord"


def test_the_number_of_frames_of_a_long_file_is_the_same_for_every_setting(tmp_path):
    whole = encode(tmp_path, "hevc_b", frames=1100, size="64x48")
    assert read(whole, lambda count: [count - 1])[0].in_order == ""  # a seek
    path = tmp_path / "lost.mp4"
    without(whole, [600, 634], path)
    counts = {read(path, pick)[0].frames for pick in (range, lambda count: [0], lambda count: [600], lambda count: [9])}
    assert counts == {len(frames_by_pyav(path))}


def test_uneven_distances_are_no_sound_index_where_losses_are_not_told(tmp_path):
    timestamps = [i + (i > 20) * 5 for i in range(40)]
    vp9 = index_of(write(tmp_path / "x.mkv", codec="libvpx-vp9", timestamps=timestamps))
    assert vp9.seek_problem == "frames at uneven distances, where packets may be missing"
    assert index_of(write(tmp_path / "y.mkv", codec="libvpx-vp9")).seek_problem == ""
    assert index_of(write(tmp_path / "z.mkv", timestamps=timestamps)).seek_problem == ""


def test_headers_that_cannot_be_read_are_no_sound_index():
    lost = LostPictures("h264", [])
    lost.put([slice_of(0, idr=True)])  # its parameter sets are missing
    assert (lost.found, lost.unsure) == (False, True)


class Writer:
    """Bits of a NAL unit."""

    def __init__(self, head, *fields):
        self.bits = f"{head:08b}" + "".join(fields) + "1"

    def bytes(self):
        """With emulation prevention."""
        bits = self.bits + "0" * (-len(self.bits) % 8)
        data = int(bits, 2).to_bytes(len(bits) // 8, "big")
        return data[:1] + data[1:].replace(b"\0\0\0", b"\0\0\3\0").replace(b"\0\0\1", b"\0\0\3\1")


def u(count, number):
    return f"{number:0{count}b}" if count else ""


def ue(number):
    bits = f"{number + 1:b}"
    return "0" * (len(bits) - 1) + bits


def sequence(gaps=False, frames_only=True):
    """Baseline, 4 bits of frame_num, picture order of type 2."""
    fields = [u(8, 66), u(16, 30), ue(0), ue(0), ue(2), ue(2), u(1, gaps), ue(3), ue(2), u(1, frames_only), "11"]
    return Writer(0x67, *fields).bytes()


PICTURE = Writer(0x68, ue(0), ue(0), "00", ue(0), ue(0), ue(0), "000", ue(0), ue(0), ue(0), "000").bytes()


def slice_of(number, idr=False, reference=True, field="", operations=()):
    """The header of a P or IDR slice; field: 10 for the top one, 11 for the bottom one, 0 for a frame."""
    head = (0x60 if reference else 0) | (5 if idr else 1)
    fields = [ue(0), ue(7 if idr else 5), ue(0), u(4, number), field]
    if idr:
        return Writer(head, *fields, ue(0), "00").bytes()
    marking = ("1" + "".join(map(ue, [*operations, 0])) if operations else "0") if reference else ""
    return Writer(head, *fields, "0", "0", marking).bytes()  # no other number of references, nor another order


def losses(slices, **settings):
    """The places before which a picture is lost."""
    numbers = FrameNumbers()
    return [i - 2 for i, unit in enumerate([sequence(**settings), PICTURE, *slices]) if numbers.is_lost_before(unit)]


def test_frame_numbers_go_on_from_the_last_reference_picture():
    plain = [slice_of(i % 16, idr=i == 0) for i in range(40)]
    assert losses(plain) == []
    assert losses(plain[:15] + plain[16:]) == [15]
    assert losses(plain[:15] + plain[31:]) == []  # sixteen are lost, and no decoder sees it
    layers = [slice_of(0, idr=True), *(slice_of(i // 2 + 1, reference=i % 2 == 1) for i in range(20))]
    assert losses(layers) == []
    assert losses(layers[:5] + layers[6:]) == []  # one that no other refers to
    assert losses(layers[:6] + layers[7:]) == [6, 7]  # until the next reference picture


def test_a_lost_idr_picture_is_seen_where_the_number_is_the_last_ones():
    pairs = [slice_of(i % 2, idr=i % 2 == 0) for i in range(8)]
    assert losses(pairs) == []
    assert losses(pairs[:4] + pairs[5:]) == [4]


def test_two_fields_have_one_number():
    fields = [slice_of(0, idr=True, field="10"), slice_of(0, field="11")]
    fields += [slice_of(i // 2 + 1, field=("10", "11")[i % 2]) for i in range(8)]
    assert losses(fields, frames_only=False) == []
    assert losses(fields[:4] + fields[6:], frames_only=False) == [4]


def test_an_operation_that_forgets_all_references_begins_numbers_anew():
    slices = [slice_of(0, idr=True), slice_of(1), slice_of(2), slice_of(3, operations=(5,)), slice_of(1), slice_of(2)]
    assert losses(slices) == []
    assert losses(slices[:3] + slices[4:]) == [3]
    slices[3] = slice_of(3, operations=(1, 0))  # only one reference
    assert losses(slices) == [4]


def test_numbers_that_may_be_left_out_are_no_loss_but_no_sound_index():
    for gaps in (False, True):
        lost = LostPictures("h264", [sequence(gaps=gaps), PICTURE])
        lost.put([slice_of(0, idr=True), slice_of(1), slice_of(3)])
        assert (lost.found, lost.unsure) == (not gaps, gaps)
