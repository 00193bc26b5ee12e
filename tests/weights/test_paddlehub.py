"""PaddleHub: its module stnet_kinetics400 as weights, and this project as a folder of paddle.hub."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from conftest import tiny_settings, write_config
from entries import predict, run
from golden_params import golden_clip, golden_param
from records import record_lines
from test_formats import golden_case, original_shapes

from stnet.config import load_config
from stnet.models import get_model, model_section
from stnet.models.stnet.names import original_to_structured, structured_to_original
from stnet.models.stnet.network import StNet
from stnet.tools.convert_weights import convert
from stnet.utils.errors import UserError
from stnet.weights.formats import pickle_bytes, read_weights
from stnet.weights.loading import start_training_from
from stnet.weights.lod_tensor import tensor_bytes
from stnet.weights.state_dict import load_weights

PROJECT = Path(__file__).parents[2]
PREFIX = "@HUB_stnet_kinetics400@"


def write_module(folder, tensors):
    """What `hub install stnet_kinetics400` leaves: `model` with a program and a file a tensor, other files around."""
    for name in ("model", "assets", "python"):
        (folder / name).mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "module_desc.pb").write_bytes(b"\x0a\x10\x0a\x09signature" + bytes(9))
    (folder / "assets" / "label_list.txt").write_text("abseiling\n")
    (folder / "python" / "0123.py").write_text("raise RuntimeError('no code of a module is run')\n")
    (folder / "model" / "__model__").write_bytes(b"\x0a\xf2\x01\x08\x00\x10\xff")
    for name, tensor in tensors.items():
        (folder / "model" / f"{PREFIX}{name}").write_bytes(tensor_bytes(tensor))
    return folder


def golden_tensors(shapes):
    return {name: golden_param(name, dims) for name, dims in shapes.items()}


def tiny_tensors():
    """Golden parameters of the smallest StNet, by original name."""
    names, state = structured_to_original(18), StNet(18, 4, 2).state_dict()
    return golden_tensors({names[name]: list(value.shape) for name, value in state.items()})


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    return write_module(tmp_path_factory.mktemp("modules") / "stnet_kinetics400", tiny_tensors())


def same(state, tensors):
    names = structured_to_original(18)
    return all(np.array_equal(value.numpy(), tensors[names[name]]) for name, value in state.items())


@pytest.mark.parity
def test_a_module_gives_the_golden_logits(tmp_path):
    num_classes, seglen, shape, seed, logits = golden_case(50)
    folder = write_module(tmp_path / "stnet_kinetics400", golden_tensors(original_shapes(50, num_classes, seglen)))
    network = StNet(50, num_classes, seglen)
    network.eval()
    load_weights(network, read_weights(folder, original_to_structured(50)))
    with paddle.no_grad():
        np.testing.assert_allclose(network(paddle.to_tensor(golden_clip(seed, shape))), logits, rtol=0, atol=1e-4)


def test_the_modules_folder_and_its_model_are_the_same_weights(module):
    found = [read_weights(path, original_to_structured(18)) for path in (module, module / "model")]
    assert [(weights.path, weights.format) for weights in found] == [(str(module / "model"), "folder")] * 2
    assert found[0].digest == found[1].digest
    assert set(found[0].tensors) == set(original_to_structured(18).values())
    assert PREFIX + "conv1_weights" in read_weights(module).tensors  # as in the file


def test_a_module_is_what_predict_train_and_the_converter_take(module, clip_set, tmp_path):
    flags = ["--config", clip_set / "tiny.yaml", "--use_gpu=False", "--engine=paddle", "--save_dir"]
    convert(str(module), str(tmp_path / "w.pdparams"), "structured", depth=18)
    given = []
    for number, weights in enumerate((module, module / "model", tmp_path / "w.pdparams")):
        assert run(predict, *flags, tmp_path / str(number), "--weights", weights, clip_set / "val 0.mp4") == 0
        results = json.loads((tmp_path / str(number) / "predict_results.json").read_text())["results"]
        given.append(results[0]["predictions"])
    assert given[0] == given[1] == given[2]
    assert given[0][0]["probability"] > given[0][1]["probability"]
    settings = write_config(tmp_path / "tiny.yaml", tiny_settings(clip_set))
    model = get_model("STNET", load_config(settings, model_section), "train")
    start_training_from(model, str(module))
    assert same(model.network.state_dict(), tiny_tensors())


def test_names_of_a_module_are_read_in_a_pickle_too(tmp_path):
    (tmp_path / "w").write_bytes(pickle_bytes({PREFIX + name: value for name, value in tiny_tensors().items()}))
    network = StNet(18, 4, 2)
    load_weights(network, read_weights(tmp_path / "w", original_to_structured(18)))
    assert same(network.state_dict(), tiny_tensors())


def test_a_damaged_module_is_one_line(tmp_path):
    folder = write_module(tmp_path / "stnet_kinetics400", tiny_tensors())
    names, file = original_to_structured(18), folder / "model" / f"{PREFIX}fc_0.b_0"
    whole = file.read_bytes()
    (folder / "model.sha256").write_text(record_lines({f.name: f.read_bytes() for f in (folder / "model").iterdir()}))
    assert len(read_weights(folder, names).tensors) == 136
    file.write_bytes(whole[:-4] + bytes(4))
    with pytest.raises(UserError, match=r"@fc_0.b_0: the content is not what .*model.sha256 records"):
        read_weights(folder, names)
    (folder / "model.sha256").unlink()
    file.write_bytes(whole[:-1])
    with pytest.raises(UserError, match=r"tensor @HUB_stnet_kinetics400@fc_0.b_0: the data of shape \[4\] claims"):
        read_weights(folder, names)
    file.write_bytes(whole)
    (folder / "model" / "fc_0.b_0").write_bytes(whole)
    with pytest.raises(UserError, match="there are two tensors fc.bias, one of them named fc_0.b_0"):
        read_weights(folder, names)
    for left in (folder / "model").iterdir():
        left.unlink()
    with pytest.raises(UserError, match="stnet_kinetics400/model: the folder holds no Paddle tensors"):
        read_weights(folder, names)


PROGRAM = """
import os, sys
import numpy, paddle
folder, module, weights, clip, out = sys.argv[1:]
sys.path[:] = [path for path in sys.path if "python" in path]
before = [*sys.path]
assert paddle.hub.list(folder, source="local") == ["stnet"]
sizes = dict(num_layers=18, num_classes=4, seglen=2)
networks = [
    paddle.hub.load(folder, "stnet", source="local", pretrained=module, **sizes),
    paddle.hub.load(folder, "stnet", source="local", pretrained=weights),
    paddle.hub.load(folder, "stnet", source="local", **sizes),
]
assert sys.path == before
os.chdir("/")
with paddle.no_grad():
    numpy.save(out, [network(paddle.to_tensor(numpy.load(clip))).numpy() for network in networks])
try:
    paddle.hub.load(folder, "stnet", source="local", pretrained="none.pdparams")
except Exception as error:
    assert str(error) == "weights none.pdparams: no such file", error
"""


def test_paddle_hub_gives_the_network_from_another_folder(module, trained, tmp_path):
    clip = golden_clip(0, (1, 3, 6, 32, 32))
    np.save(tmp_path / "clip.npy", clip)
    files = [PROJECT, module, trained / "STNET_final.pdparams", tmp_path / "clip.npy", tmp_path / "logits.npy"]
    words = [sys.executable, "-I", "-c", PROGRAM, *files]  # -I: without the working folder on sys.path
    done = subprocess.run(list(map(str, words)), cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    ours = StNet(18, 4, 2)
    ours.eval()
    expected = []
    for path in (module, trained / "STNET_final.pdparams"):
        load_weights(ours, read_weights(path, original_to_structured(18)))
        with paddle.no_grad():
            expected.append(ours(paddle.to_tensor(clip)).numpy())
    found = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(found[:2], expected, rtol=0, atol=1e-5)
    assert found.shape == (3, 1, 4)
    assert np.isfinite(found).all()
