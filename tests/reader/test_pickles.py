import io
import os
import pickle
import random

import numpy as np
import pytest
from PIL import Image

from stnet.reader.errors import ClipError
from stnet.reader.pickles import load_clip_pickle, read_pickle


class Evil:
    def __reduce__(self):
        return os.system, ("echo hacked",)


CLIP = ("id", 3, [b"\xff\xd8one", b"two", b""])


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_clips_of_every_protocol_are_read(protocol):
    assert load_clip_pickle(pickle.dumps(CLIP, protocol)) == CLIP


def test_a_clip_written_by_python_2_is_read():
    # ('id', 3, ['\xff\xd8']) of Python 2, protocol 2: text is a byte string.
    data = b"\x80\x02U\x02idK\x03]U\x02\xff\xd8a\x87."
    assert load_clip_pickle(data) == ("id", 3, [b"\xff\xd8"])


@pytest.mark.parametrize(
    "value",
    [Evil(), ("id", 3, [Evil()]), ("id", Evil(), [b"x"]), [Evil()], ("id", 3, [bytearray(b"x")]), ("id", 3, {1, 2})],
    ids=["bare", "in frames", "as label", "in a list", "bytearray", "set"],
)
def test_anything_but_plain_data_is_refused_without_running_it(value, capfd):
    for protocol in (2, 4):
        with pytest.raises(ValueError):
            load_clip_pickle(pickle.dumps(value, protocol))
    assert "hacked" not in capfd.readouterr().out


def test_the_message_names_what_a_pickle_asks_for():
    with pytest.raises(ValueError, match=r"it asks for posix.system; only tuples, lists, bytes, str and int"):
        load_clip_pickle(pickle.dumps(Evil()))


def test_codecs_encode_is_good_for_latin1_bytes_only():
    call = b"\x80\x02c_codecs\nencode\nX\x02\x00\x00\x00idX\x06\x00\x00\x00rot_13\x86R."
    with pytest.raises(ValueError, match="_codecs.encode"):
        load_clip_pickle(call)


@pytest.mark.parametrize(
    "value", [("id", 3), ("id", "3", [b"x"]), ("id", True, [b"x"]), ("id", 3, []), ("id", 3, ["x"]), (1, 3, [b"x"]), {}]
)
def test_pickles_of_another_form_are_refused(value):
    with pytest.raises(ValueError, match="expected"):
        load_clip_pickle(pickle.dumps(value))


def test_damaged_pickles_raise_nothing_else():
    data = pickle.dumps(CLIP, 2)
    for cut in range(len(data)):
        with pytest.raises(ValueError):
            load_clip_pickle(data[:cut])
    with pytest.raises(ValueError):
        load_clip_pickle(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0fx.")  # claims 2**59 bytes


def picture(size=(8, 6), form="JPEG"):
    """A drawn picture's bytes."""
    made = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (size[1], size[0], 3), np.uint8)).save(made, form)
    return made.getvalue()


def claiming(jpeg, width, height):
    """A JPEG whose header claims other sizes."""
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]


def read(folder, *frames, label=0):
    (folder / "clip.pkl").write_bytes(pickle.dumps(("id", label, list(frames)), 2))
    return read_pickle(str(folder / "clip.pkl"), lambda count: list(range(count)))


def test_no_other_decoder_is_started_for_a_frame(tmp_path, monkeypatch):
    ghostscript = tmp_path / "gs"
    ghostscript.write_text(f"#!/bin/sh\ntouch '{tmp_path}/started'\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for frame in (eps, picture(form="PNG"), picture(form="GIF")):
        with pytest.raises(ClipError, match="cannot identify image"):
            read(tmp_path, frame)
    assert not (tmp_path / "started").exists()


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_frames_of_more_pixels_than_a_clip_has_are_that_clips_error(tmp_path):
    with pytest.raises(ClipError, match="a frame cannot be decoded: .*pixels"):
        read(tmp_path, claiming(picture(), 60000, 60000))
    with pytest.raises(ClipError, match="8 frames of 15000 x 11000 are more than is decoded"):
        read(tmp_path, *[claiming(picture(), 15000, 11000)] * 8)
    with pytest.raises(ClipError, match="frames of 8 x 6 and 6 x 8"):
        read(tmp_path, picture(), picture((6, 8)))


def test_300_damaged_frames_are_decoded_or_that_clips_error(tmp_path):
    rng, whole, decoded = random.Random(0), picture((24, 16)), 0
    for _ in range(300):
        frame = bytearray(whole)
        for _ in range(rng.choice((1, 2, 8))):
            frame[rng.randrange(len(frame))] = rng.choice((0, 255, rng.randrange(256)))
        try:
            frames, _, _ = read(tmp_path, bytes(frame[: rng.choice((len(frame), rng.randrange(len(frame))))]))
        except ClipError:
            continue
        assert frames.dtype == np.uint8
        assert frames.shape[3] == 3
        decoded += 1
    assert 20 < decoded < 280


def test_a_clip_that_is_no_file_or_too_large_is_refused_without_reading_it(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 2 << 30)
    for name, reason in (
        (tmp_path / "fifo", "it is a fifo, expected a file"),
        ("/dev/zero", "it is a device, expected a file"),
        (tmp_path / "huge", "it is of 2147483648 bytes, more than the 1073741824 that are read"),
        (tmp_path, "it is a folder"),
        (tmp_path / "none", "no such file"),
    ):
        with pytest.raises(ClipError, match=reason):
            read_pickle(str(name), lambda count: [0])


def test_a_label_that_no_list_of_classes_has_is_refused(tmp_path):
    for label in (2**31, -(2**31), 2**200):
        with pytest.raises(ClipError, match="a label of less than 2"):
            read(tmp_path, picture(), label=label)
    assert read(tmp_path, picture(), label=2**31 - 1)[2] == 2**31 - 1
