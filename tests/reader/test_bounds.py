"""Decoding stops at the bounds, whatever a file's header says."""

import pickle
import struct

import pytest
from conftest import write_video

from stnet.config import ReaderSection
from stnet.reader import decoders
from stnet.reader.bounds import BeyondBounds, Bounded, Bounds, bounded
from stnet.reader.clip import read_clip
from stnet.reader.containers import opened
from stnet.reader.errors import ClipError
from stnet.reader.index import read_index

SECTION = ReaderSection(seg_num=2, seglen=2, short_size=32, target_size=32)
WIDE = Bounds(seconds=3600, frames=1000, pixels=1 << 24)


@pytest.fixture
def path(tmp_path):
    return str(write_video(tmp_path / "12 frames of 40 x 30.mp4"))


@pytest.mark.parametrize(
    ("bounds", "bound", "words"),
    [
        (WIDE._replace(seconds=0.9), "seconds", "it is 1 s long, and at most 0.9 s are read"),
        (WIDE._replace(frames=11), "frames", "it has 12 frames or more, and at most 11 are read"),
        (WIDE._replace(pixels=1199), "pixels", "its frames are of 40 x 30 pixels, and at most 1199 are read"),
    ],
)
def test_a_video_beyond_a_bound_is_refused_and_one_within_is_read(path, bounds, bound, words):
    with bounded(bounds), pytest.raises(BeyondBounds) as refused:
        read_clip(path, SECTION)
    assert (str(refused.value), refused.value.bound) == (words, bound)
    with bounded(Bounds(1.0, 12, 1200)):
        assert read_clip(path, SECTION).num_frames == 12
    assert read_clip(path, SECTION).num_frames == 12


def test_more_frames_than_the_index_knows_are_not_decoded(path):
    with opened(path) as (container, stream):
        index = read_index(container, stream)
    for frames in (decoders.timed_frames(path, index), decoders.opencv_frames(path, index)):
        with bounded(WIDE._replace(frames=7)), pytest.raises(BeyondBounds, match="it has 8 frames or more"):
            for number, _ in enumerate(frames):
                assert number < 7


def changed(path, name, place, layout, *values):
    """The file with numbers in the box of a name changed."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    struct.pack_into(layout, data, data.index(name) + 4 + place, *values)
    with open(path, "wb") as file:
        file.write(data)
    return path


def test_a_header_that_hides_the_size_of_the_frames_hides_it_in_vain(path):
    changed(path, b"avc1", 24, ">2H", 4, 4)
    with bounded(WIDE._replace(pixels=1000)), pytest.raises(BeyondBounds, match="40 x 30 pixels"):
        read_clip(path, SECTION)


def test_a_header_that_hides_the_length_hides_it_in_vain(path):
    changed(path, b"mdhd", 12, ">2I", 12288, 1)
    changed(path, b"mvhd", 12, ">2I", 1000, 1)
    with bounded(WIDE._replace(seconds=0.9)), pytest.raises(BeyondBounds, match="it is 1 s long"):
        read_clip(path, SECTION)


def allocate(count):
    return len(bytearray(count))


def test_what_takes_too_much_memory_is_a_fault_of_the_file():
    function = pickle.loads(pickle.dumps(Bounded(WIDE, allocate)))
    assert function(3) == 3
    with pytest.raises(ClipError, match="more memory than it may have"):
        function(1 << 50)


def test_a_refusal_keeps_its_bound_on_its_way_between_processes():
    again = pickle.loads(pickle.dumps(BeyondBounds("too long", "seconds")))
    assert (str(again), again.bound) == ("too long", "seconds")
