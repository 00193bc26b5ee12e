import json
import os
import pickle
import random
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import paddle
import pytest
from golden_params import golden_clip, golden_param
from records import record_lines

from stnet.models.stnet.names import original_to_structured, structured_to_original
from stnet.models.stnet.network import StNet
from stnet.utils.errors import UserError
from stnet.weights.formats import combined_bytes, pickle_bytes, read_weights
from stnet.weights.lod_tensor import tensor_bytes
from stnet.weights.state_dict import load_weights

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
CASES = {50: "eval_r50_seg7", 101: "eval_r101_seg5_len3", 152: None}


def original_shapes(depth, num_classes, seglen):
    shapes = json.loads((GOLDEN / "params.json").read_text())[f"layers_{depth}"]
    shapes.update({"fc_0.w_0": [1024, num_classes], "fc_0.b_0": [num_classes], "conv1_weights": [64, 3 * seglen, 7, 7]})
    return shapes


def golden_case(depth):
    """(num_classes, seglen, input shape and seed, logits), of the original where there are such."""
    if CASES[depth] is None:
        return 7, 2, (1, 2, 6, 48, 48), 3, None
    golden = np.load(GOLDEN / f"{CASES[depth]}.npz")
    seglen, size = int(golden["seglen"]), int(golden["target_size"])
    shape = (int(golden["batch"]), int(golden["seg_num"]), 3 * seglen, size, size)
    return int(golden["num_classes"]), seglen, shape, int(golden["input_seed"]), golden["logit"]


@pytest.mark.parity
@pytest.mark.parametrize(
    "depth", [50, pytest.param(101, marks=pytest.mark.slow), pytest.param(152, marks=pytest.mark.slow)]
)
def test_files_of_paddles_own_writers_load_and_give_the_golden_logits(depth, tmp_path):
    num_classes, seglen, shape, seed, logits = golden_case(depth)
    shapes = original_shapes(depth, num_classes, seglen)
    (tmp_path / "spec.json").write_text(json.dumps(shapes))
    command = [sys.executable, str(HERE / "paddle_writers.py"), str(tmp_path), str(tmp_path / "spec.json")]
    subprocess.run(command, check=True, capture_output=True)
    clips = paddle.to_tensor(golden_clip(seed, shape))
    if logits is None:
        names = structured_to_original(depth)
        network = StNet(depth, num_classes, seglen)
        network.eval()
        for name, value in network.state_dict().items():
            value.set_value(golden_param(names[name], value.shape))
        with paddle.no_grad():
            logits = network(clips).numpy()
    for name, kind in (("combined", "combined"), ("folder", "folder"), ("pickle.pdparams", "pickle")):
        assert read_weights(tmp_path / name).format == kind
        network = StNet(depth, num_classes, seglen)
        network.eval()
        load_weights(network, read_weights(str(tmp_path / name), original_to_structured(depth)))
        with paddle.no_grad():
            np.testing.assert_allclose(network(clips).numpy(), logits, rtol=0, atol=1e-4)
    ours = combined_bytes({name: golden_param(name, dims) for name, dims in shapes.items()})
    assert ours == (tmp_path / "combined").read_bytes()


# A network of a few hundred values, for the tests that read thousands of files.
NAMES = {"a_weights": "0.weight", "b_scale": "1.weight", "b_offset": "1.bias", "b_mean": "1._mean",
         "b_variance": "1._variance", "c.b_0": "2.bias", "c.w_0": "2.weight"}  # fmt: skip


def small_network():
    return paddle.nn.Sequential(
        paddle.nn.Conv2D(3, 4, 3, bias_attr=False), paddle.nn.BatchNorm2D(4), paddle.nn.Conv2D(4, 2, 1)
    )


def small_tensors():
    state = small_network().state_dict()
    return {name: golden_param(name, state[ours].shape) for name, ours in NAMES.items()}


def write_format(kind, path):
    """Write the small network's golden tensors; returns the file whose bytes are to be changed."""
    tensors = small_tensors()
    if kind == "combined":
        path.write_bytes(combined_bytes(tensors))
    elif kind == "pickle 1.7":
        path.write_bytes(pickle_bytes(tensors))
    elif kind == "paddle.save":
        paddle.save({NAMES[n]: paddle.to_tensor(t) for n, t in tensors.items()}, str(path))
    elif kind == "folder":
        path.mkdir()
        for name, tensor in tensors.items():
            (path / name).write_bytes(tensor_bytes(tensor))
        return path / "a_weights"
    return path


KINDS = ["combined", "pickle 1.7", "paddle.save", "folder"]


def loaded(path):
    network = small_network()
    load_weights(network, read_weights(str(path), NAMES))
    return {name: value.numpy() for name, value in network.state_dict().items()}


def same(a, b):
    return all(a[name].tobytes() == b[name].tobytes() for name in b)


def mutate(data, rng):
    """A damaged copy of data: bytes flipped, cut, lengthened, or a length field blown up."""
    data = bytearray(data)
    kind = rng.randrange(4)
    if kind == 0:
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[rng.randrange(len(data)) :]
    elif kind == 2:
        data += rng.randbytes(rng.randrange(1, 40)) if hasattr(rng, "randbytes") else bytes(rng.randrange(1, 40))
    else:
        at = rng.randrange(len(data))
        huge = struct.pack("<Q", rng.choice((2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)))
        data[at : at + 8] = huge[: max(1, len(data) - at)][:8]
    return bytes(data)


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("recorded", [True, False], ids=["with .sha256", "bare"])
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_load_equal_or_are_refused(kind, recorded, count, tmp_path):
    path = tmp_path / "weights"
    victim = write_format(kind, path)
    original, data, rng = loaded(path), victim.read_bytes(), random.Random(kind)
    if recorded:
        contents = {f.name: f.read_bytes() for f in path.iterdir()} if path.is_dir() else {path.name: data}
        (tmp_path / "weights.sha256").write_text(record_lines(contents))
        assert same(loaded(path), original)
    tracemalloc.start()
    refused = 0
    for _ in range(count):
        damaged = mutate(data, rng)
        victim.write_bytes(damaged)
        try:
            found = loaded(path)
        except UserError as error:
            assert str(path) in str(error)
            refused += 1
            continue
        if recorded:
            assert damaged == data
        # Without a record a change inside the numbers cannot be told; shapes and names are whole all the same.
        assert {n: v.shape for n, v in found.items()} == {n: v.shape for n, v in original.items()}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > count * (0.9 if recorded else 0.5)
    assert peak < 20_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_file_leaves_the_network_as_it_was(kind, tmp_path):
    path = tmp_path / "weights"
    victim = write_format(kind, path)
    victim.write_bytes(victim.read_bytes()[:-1])
    network = small_network()
    before = {name: value.numpy().copy() for name, value in network.state_dict().items()}
    with pytest.raises(UserError):
        load_weights(network, read_weights(str(path), NAMES))
    assert same({name: value.numpy() for name, value in network.state_dict().items()}, before)


def test_a_damaged_stream_is_named_with_tensor_and_offset(tmp_path):
    data = combined_bytes(small_tensors())
    path = tmp_path / "w"
    path.write_bytes(data[:-3])
    with pytest.raises(
        UserError, match=rf"weights {path}, tensor 6: the data of shape .* at offset \d+, where \d+ are"
    ):
        read_weights(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(
        UserError, match=rf"tensor 7: the version claims 4 bytes at offset {len(data)}, where 1 are left"
    ):
        read_weights(path)
    huge = data[:16] + struct.pack("<i", 10) + b"\x08\x05" + b"\x10\xff\xff\xff\xff\x07" + data[30:]
    path.write_bytes(huge)
    with pytest.raises(UserError, match="tensor 0: "):
        read_weights(path)


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


EVIL = {
    "os.system": Evil(os.system, "echo hacked"),
    "eval": Evil(eval, "print('hacked')"),
    "nested": {"a": [({"b": Evil(os.system, "echo hacked")},)]},
    "in an array": {"a": np.array([Evil(os.system, "echo hacked")], dtype=object)},
    "getattr": Evil(getattr, "os", "system"),
}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_malicious_pickles_are_refused_without_running_anything(name, protocol, tmp_path, capfd):
    (tmp_path / "w").write_bytes(pickle.dumps(EVIL[name], protocol))
    with pytest.raises(UserError, match="asks for|data type|unexpected byte"):
        read_weights(tmp_path / "w")
    assert "hacked" not in "".join(capfd.readouterr())


def test_arrays_of_every_pickle_protocol_and_module_path_are_read(tmp_path):
    tensors = {"a": np.arange(6, dtype="float32").reshape(2, 3), "b": np.asfortranarray(np.eye(3)), "c": np.ones(0)}
    for protocol in (2, 3, 4, 5):
        data = pickle.dumps(tensors, protocol)
        for old, new in ((b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")):
            if protocol < 4:  # where names are lines, without lengths
                data = data.replace(old, new)
            (tmp_path / "w").write_bytes(data)
            found = read_weights(tmp_path / "w").tensors
            assert all(np.array_equal(found[n], t) and found[n].dtype == t.dtype for n, t in tensors.items())


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "the file is empty"), (b"PK\x03\x04", "a zip archive, as PyTorch writes"), (b"\x1f\x8b", "gzip"),
     (b"<html>404", "neither Paddle tensors nor a pickle"), (pickle.dumps([1]), "expected a dict"),
     (pickle.dumps({"a": 1}), "'a' is not an array of floats"),
     (pickle.dumps({"a": np.array([np.nan])}), "tensor a holds values that are not finite")],
)  # fmt: skip
def test_what_is_no_weight_file_is_refused_with_the_reason(data, message, tmp_path):
    (tmp_path / "w.pdparams").write_bytes(data)
    with pytest.raises(UserError, match=message):
        read_weights(tmp_path / "w.pdparams")


def test_missing_files_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_weights(tmp_path / "none")
    with pytest.raises(UserError, match="holds no Paddle tensors"):
        read_weights(tmp_path)


def test_a_name_that_leaves_no_room_for_a_record_has_none(tmp_path):
    path = tmp_path / ("w" * 246 + ".pdparams")
    path.write_bytes(pickle.dumps({"fc": np.ones(3, np.float32)}))
    assert read_weights(path).tensors["fc"].tolist() == [1, 1, 1]


def test_an_empty_file_beside_tensors_is_no_tensor(tmp_path):
    stream = tensor_bytes(np.ones(3, np.float32))
    (tmp_path / "fc").write_bytes(stream)
    (tmp_path / ".gitkeep").touch()
    assert read_weights(tmp_path).tensors["fc"].tolist() == [1, 1, 1]
    (tmp_path / "fc").write_bytes(stream[:3])
    with pytest.raises(UserError, match="tensor fc"):
        read_weights(tmp_path)
