"""stnet.utils.safe_pickle: what hostile pickles can cost, and what old ones look like."""

import pickle
import pickletools
import random
import struct
import tracemalloc

import numpy as np
import pytest

from stnet.utils import safe_pickle as pickles
from stnet.utils.safe_pickle import load_clip_data, load_plain

NUMPY = b"cnumpy.core.numeric\n_frombuffer\n"
DTYPE = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4K\x00K\x01\x87R(K\x03X\x01\x00\x00\x00>NNNK\x00K\x00K\x00tb"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def doubled(levels):
    """A tuple of the same tuple twice, of the same tuple twice, ...: 2**levels values in all."""
    steps = [b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) + b"0" for i in range(levels)]
    return b")q\x000" + b"".join(steps) + b"h" + bytes([levels])


def refused(data, reason, load=load_plain):
    """Whether data is refused for the reason, with no more memory than a few times its size."""
    tracemalloc.start()
    try:
        load(data)
        said = "nothing"
    except ValueError as error:
        said = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason in said
    return peak < 5 * len(data) + 1_000_000


def test_a_dict_whose_keys_take_for_ever_to_hash_is_refused():
    assert refused(b"\x80\x02}" + doubled(60) + b"K\x01s.", "text or bytes")
    colliding = b"".join(pickle.dumps(i * (2**61 - 1), 2)[2:-1] + b"N" for i in range(1000))
    assert refused(b"\x80\x02}(" + colliding + b"u.", "text or bytes")
    assert refused(b"\x80\x04" + doubled(60) + b"\x8c\x01a\x93.", "a name is no text")


def test_a_value_that_shares_its_parts_without_measure_is_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_STEPS", 10_000)
    assert refused(b"\x80\x02" + doubled(40) + b".", "holds too many values")
    assert load_plain(b"\x80\x02" + doubled(3) + b".") == ((((), ()), ((), ())), (((), ()), ((), ())))


def test_a_list_in_itself_and_a_tower_of_tuples_are_refused():
    assert refused(b"\x80\x02]q\x00h\x00a.", "nested too deeply")
    assert refused(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.", "nested too deeply")
    with pytest.raises(ValueError, match="nested too deeply"):
        load_plain(b"\x80\x02)" + b"\x85" * 100_000 + b".")


def test_data_that_is_converted_again_and_again_is_refused():
    raw = b"B" + struct.pack("<I", 400_000) + bytes(400_000) + b"q\x000"
    shape = b"J" + struct.pack("<i", 100_000) + b"\x85q\x010"
    array = NUMPY + b"(h\x00h\x02h\x01" + text(b"C") + b"tRa"
    assert refused(b"\x80\x03" + raw + shape + DTYPE + b"q\x020]" + array * 1000 + b".", "again and again")
    encode = b"c_codecs\nencode\nh\x00" + text(b"latin1") + b"\x86Ra"
    letters = text(b"x" * 400_000) + b"q\x000]"
    for load in (load_plain, load_clip_data):
        assert refused(b"\x80\x02" + letters + encode * 1000 + b".", "again and again", load)


def test_many_steps_are_refused_before_they_fill_the_memory(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_STEPS", 1000)
    assert refused(b"\x80\x02" + b"}" * 3_000_000 + b".", "more than 1000 steps")


def test_a_number_of_many_digits_is_refused():
    assert refused(b"I" + b"9" * 1_000_000 + b"\n.", "1000000 digits")
    assert refused(b"L" + b"9" * 1_000_000 + b"L\n.", "1000001 digits")
    assert load_clip_data(b"(I01\nI00\nI-7\nL7L\nt.") == (True, False, -7, 7)


def test_a_data_type_of_a_huge_tuple_is_refused_without_printing_it():
    assert refused(b"\x80\x02cnumpy\ndtype\n" + doubled(60) + b"\x85R.", "data type")


@pytest.mark.parametrize("name", ["numpy\ndtype", "numpy.core.multiarray\n_reconstruct", "_codecs\nencode"])
@pytest.mark.parametrize("state", [b"}X\x01\x00\x00\x00aK\x01s", b"N}X\x01\x00\x00\x00aK\x01s\x86"])
def test_no_attribute_is_set(name, state):
    assert refused(b"\x80\x02c" + name.encode() + b"\n" + state + b"b.", "sets the state of what has none")


def test_what_stands_in_for_a_global_is_no_value():
    for part in (DTYPE, b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n)R"):
        assert refused(b"\x80\x02" + part + b".", "where a value belongs")
        assert refused(b"\x80\x02}X\x01\x00\x00\x00a" + part + b"s.", "where a value belongs")


def test_values_of_every_protocol_are_read():
    shared = [1, 2]
    value = {"a": (None, True, False, -1, 255, 65536, 2**40, -(2**70), 0.5, "é\n"), "b": [shared, shared], "c": {}}
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert load_plain(pickle.dumps(value, protocol)) == value
        assert load_clip_data(pickle.dumps(b"\x00\xff" * 300, protocol)) == b"\x00\xff" * 300


def test_what_python_2_wrote_is_read():
    raw = np.array([[1.5, -2.0]], ">f4").tobytes()
    # numpy.array([[1.5, -2]], ">f4") in a dict, protocol 2: text and data are byte strings.
    data = (
        b"\x80\x02}q\x01U\x01aq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85q\x05U\x01b"
        b"q\x06\x87q\x07Rq\x08(K\x01K\x01K\x02\x86q\x09cnumpy\ndtype\nq\x0aU\x02f4q\x0bK\x00K\x01\x87q\x0cRq\x0d(K\x03U"
        b"\x01>q\x0eNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + raw + b"q\x0ftq\x10bs."
    )
    found = load_plain(data)["a"]
    assert found.tolist() == [[1.5, -2.0]]
    assert found.dtype == np.dtype("float32")
    assert load_clip_data(b"(S'id'\np0\nI3\n(lp1\nS'\\xff\\xd8'\np2\natp3\n.") == (b"id", 3, [b"\xff\xd8"])


def test_the_same_array_twice_is_one_array():
    array = np.arange(3, dtype="float32")
    found = load_plain(pickle.dumps([array, array], 2))
    assert found[0] is found[1]
    assert found[0].tolist() == [0, 1, 2]


def opcodes(data):
    """A pickle, cut into its opcodes with what follows each."""
    starts = [place for _, _, place in pickletools.genops(data)] + [len(data)]
    return [data[a:b] for a, b in zip(starts, starts[1:])]


def test_programs_of_shuffled_opcodes_give_a_value_or_are_refused(monkeypatch):
    monkeypatch.setattr(pickles, "MAX_STEPS", 10_000)
    rng, values = random.Random(0), 0
    state = {"a": np.ones((2, 3), "float32"), "b": [b"\xff", ("x", 1, None)], "c": np.arange(4, dtype=">i2")}
    written = [opcodes(pickle.dumps(state, protocol)) for protocol in (1, 2, 4, 5)]
    for _ in range(3000):
        program = list(rng.choice(written))
        for _ in range(rng.randrange(1, 6)):
            change = rng.randrange(3)
            if change == 0:
                del program[rng.randrange(len(program))]
            else:
                program.insert(rng.randrange(len(program)), rng.choice(rng.choice(written)))
        for load in (load_plain, load_clip_data):
            try:
                load(b"".join(program) + b".")
                values += 1
            except ValueError:
                pass
    assert 100 < values < 3000
