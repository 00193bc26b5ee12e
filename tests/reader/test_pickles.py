import os
import pickle

import pytest

from reader.pickles import load_clip_pickle


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
