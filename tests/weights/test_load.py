import logging

import numpy as np
import paddle
import pytest
from conftest import tiny_settings, write_config
from golden_params import golden_param

from stnet.cli import advised
from stnet.config import load_config
from stnet.models import get_model, model_section
from stnet.models.stnet.names import backbone_names, original_to_structured, structured_to_original
from stnet.models.stnet.network import StNet
from stnet.models.stnet.stnet import inflate
from stnet.utils.errors import UserError
from stnet.weights.formats import combined_bytes, pickle_bytes, read_weights
from stnet.weights.loading import start_training_from
from stnet.weights.lod_tensor import tensor_bytes
from stnet.weights.state_dict import differences, load_for_finetuning, load_weights, shapes_of


def values(network):
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def stnet(folder, depth):
    """A StNet for 4 classes, 2 frames in a super-image, to be trained."""
    settings = tiny_settings(folder)
    settings["MODEL"]["num_layers"] = depth
    return get_model("STNET", load_config(write_config(folder / "tiny.yaml", settings), model_section), "train")


def structured_file(path, network, change=None):
    tensors = values(network)
    (change or (lambda _: None))(tensors)
    path.write_bytes(pickle_bytes(tensors))
    return str(path)


def test_missing_unexpected_and_mismatched_tensors_are_listed(tmp_path):
    def change(tensors):
        del tensors["bn1.weight"]
        tensors["extra"] = np.zeros(3, "float32")
        tensors["fc.bias"] = np.zeros(9, "float32")

    path = structured_file(tmp_path / "w", StNet(18, 4, 2), change)
    with pytest.raises(UserError) as error:
        load_weights(StNet(18, 4, 2), read_weights(path, original_to_structured(18)))
    assert "1 missing: bn1.weight" in str(error.value)
    assert "1 unexpected: extra" in str(error.value)
    assert "1 of another shape: fc.bias is [9], expected [4]" in str(error.value)


def test_differences_are_data():
    network = paddle.nn.Linear(2, 3)
    tensors = {"weight": np.zeros([2, 4]), "extra": np.zeros(1)}
    found = differences(tensors, shapes_of(network))
    assert found == (["bias"], ["extra"], {"weight": ([2, 4], [2, 3])})
    assert str(found) == "1 missing: bias; 1 unexpected: extra; 1 of another shape: weight is [2, 4], expected [2, 3]"
    assert str(differences(values(network), shapes_of(network))) == ""


def test_a_file_for_another_depth_is_refused(tmp_path):
    names = structured_to_original(18)
    state = values(StNet(18, 4, 2))
    (tmp_path / "w").write_bytes(combined_bytes({names[n]: v for n, v in state.items()}))
    with pytest.raises(UserError, match=r"holds 136 tensors, this model has 216$") as error:
        load_weights(StNet(34, 4, 2), read_weights(str(tmp_path / "w"), original_to_structured(34)))
    assert "such as the depth" in advised(error.value)


def test_fine_tuning_keeps_a_head_of_another_size_new_and_says_so(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    source, network = StNet(18, 7, 2), StNet(18, 4, 2)
    before = values(network)
    load_for_finetuning(
        network, read_weights(structured_file(tmp_path / "w", source), original_to_structured(18)), "fc."
    )
    after, given = values(network), values(source)
    for name in after:
        assert np.array_equal(after[name], (before if name.startswith("fc.") else given)[name]), name
    assert "is for 7 classes: fc.weight, fc.bias start anew" in caplog.text


def test_fine_tuning_forgives_nothing_but_the_head(tmp_path):
    path = structured_file(tmp_path / "w", StNet(18, 7, 2), lambda t: t.pop("temporal1.bn.bias"))
    with pytest.raises(UserError, match="1 missing: temporal1.bn.bias"):
        load_for_finetuning(StNet(18, 4, 2), read_weights(path, original_to_structured(18)), "fc.")


def test_inflation_spreads_the_mean_colour_over_the_frames():
    weight = np.random.RandomState(0).randn(2, 3, 7, 7).astype("float32")
    found = inflate(weight, 15)
    assert found.shape == (2, 15, 7, 7)
    for channel in range(15):
        np.testing.assert_allclose(found[:, channel], weight.mean(axis=1) / 5, rtol=1e-6)
    still = np.ones((1, 3, 7, 7), "float32")  # a still picture excites both alike
    assert inflate(still, 15).sum() == pytest.approx(still.sum())


def check_pretrained(network, before, backbone, conv1):
    after = values(network)
    for name, value in after.items():
        if name == "conv1.weight":
            np.testing.assert_allclose(value, np.repeat(conv1.mean(1, keepdims=True) / 2, 6, 1), rtol=1e-5)
        elif name in backbone:
            assert np.array_equal(value, backbone[name]), name
        else:
            assert name.startswith(("temporal", "xception", "fc."))
            assert np.array_equal(value, before[name]), name


def test_an_imagenet_folder_fills_the_backbone_and_nothing_else(tmp_path):
    model = stnet(tmp_path, 50)
    network = model.network
    before, shapes = values(network), {n: v.shape for n, v in network.state_dict().items()}
    names = backbone_names(50)
    tensors = {theirs: golden_param(theirs, shapes[ours]) for theirs, ours in names.items()}
    tensors["conv1_weights"] = golden_param("conv1_weights", [64, 3, 7, 7])
    folder = tmp_path / "ResNet50_pretrained"
    folder.mkdir()
    for name, tensor in {**tensors, "fc_0.w_0": np.ones((2048, 1000), "float32")}.items():
        (folder / name).write_bytes(tensor_bytes(tensor))
    (folder / "README").write_text("not a tensor")
    start_training_from(model, str(folder))
    check_pretrained(network, before, {names[n]: t for n, t in tensors.items()}, tensors["conv1_weights"])

    (folder / "res4a_branch2a_weights").unlink()
    with pytest.raises(UserError, match=r"1 missing: layer3.0.conv1.weight"):
        start_training_from(stnet(tmp_path, 50), str(folder))
    with pytest.raises(UserError, match="do not fit the model: .* missing"):
        start_training_from(stnet(tmp_path, 101), str(folder))


@pytest.mark.parametrize("style", ["paddle.vision", "torchvision"])
def test_structured_resnet_state_dicts_are_taken(style, tmp_path):
    resnet = paddle.vision.models.resnet18()
    state = {name: value.numpy() for name, value in resnet.state_dict().items()}
    given = dict(state)
    if style == "torchvision":
        given = {n.replace("_mean", "running_mean").replace("_variance", "running_var"): v for n, v in state.items()}
        given["fc.weight"] = given["fc.weight"].T
        given["bn1.num_batches_tracked"] = np.array(5)
        import pickle

        (tmp_path / "w").write_bytes(pickle.dumps(given, 4))
    else:
        paddle.save(resnet.state_dict(), str(tmp_path / "w"))
    model = stnet(tmp_path, 18)
    before = values(model.network)
    start_training_from(model, str(tmp_path / "w"))
    check_pretrained(
        model.network, before, {n: v for n, v in state.items() if not n.startswith("fc.")}, state["conv1.weight"]
    )


def test_a_resnet_of_another_depth_is_refused(tmp_path):
    paddle.save(paddle.vision.models.resnet34().state_dict(), str(tmp_path / "w"))
    with pytest.raises(UserError, match=r"unexpected: layer1.2.conv1.weight"):
        start_training_from(stnet(tmp_path, 18), str(tmp_path / "w"))


def test_a_stnet_may_be_what_training_starts_from(tmp_path):
    source, model = StNet(18, 7, 2), stnet(tmp_path, 18)
    start_training_from(model, structured_file(tmp_path / "w", source))
    assert np.array_equal(values(model.network)["temporal1.conv.weight"], values(source)["temporal1.conv.weight"])


@pytest.mark.parametrize("form", ["combined", "pickle", "folder", "structured"])
def test_the_converter_writes_forms_that_load_again(form, tmp_path):
    from stnet.tools.convert_weights import convert

    network = StNet(18, 4, 2)
    path = structured_file(tmp_path / "w", network)
    convert(path, str(tmp_path / "out"), form, depth=18)
    assert read_weights(tmp_path / "out").format == ("pickle" if form == "structured" else form)
    again = StNet(18, 4, 2)
    load_weights(again, read_weights(str(tmp_path / "out"), original_to_structured(18)))
    assert all(np.array_equal(v, values(network)[n]) for n, v in values(again).items())
