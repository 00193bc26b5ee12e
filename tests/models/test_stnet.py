import json
import re
from pathlib import Path

import numpy as np
import paddle
import pytest
from golden_params import golden_clip, golden_labels, golden_param

from stnet.models import get_model
from stnet.models.macs import count_macs
from stnet.models.model import decay_steps
from stnet.models.stnet.depths import DEPTHS
from stnet.models.stnet.names import original_to_structured, structured_to_original
from stnet.models.stnet.network import StNet
from stnet.utils.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden"


def golden_network(depth, num_classes, seglen, dtype="float32"):
    """StNet holding the golden parameters."""
    names = structured_to_original(depth)
    default = paddle.get_default_dtype()
    paddle.set_default_dtype(dtype)
    try:
        network = StNet(depth, num_classes, seglen)
    finally:
        paddle.set_default_dtype(default)
    for name, value in network.state_dict().items():
        value.set_value(golden_param(names[name], value.shape).astype(dtype))
    return network


@pytest.mark.parity
@pytest.mark.parametrize("case", ["eval_r50_seg7", "eval_r50_seg25", "eval_r101_seg5_len3"])
def test_logits_are_the_originals(case):
    golden = np.load(GOLDEN / f"{case}.npz")
    seglen, size = int(golden["seglen"]), int(golden["target_size"])
    network = golden_network(int(golden["layers"]), int(golden["num_classes"]), seglen)
    network.eval()
    shape = (int(golden["batch"]), int(golden["seg_num"]), 3 * seglen, size, size)
    with paddle.no_grad():
        logits = network(paddle.to_tensor(golden_clip(int(golden["input_seed"]), shape)))
    np.testing.assert_allclose(logits.numpy(), golden["logit"], rtol=0, atol=1e-4)
    probabilities = paddle.nn.functional.softmax(logits).numpy()
    np.testing.assert_allclose(probabilities, golden["prob"], rtol=0, atol=1e-5)


@pytest.mark.parity
def test_three_training_steps_are_the_originals(tiny_config):
    golden = np.load(GOLDEN / "train_r50_3steps.npz")
    model = get_model("STNET", tiny_config, "train")
    model.network = golden_network(50, 10, 5, "float64")
    model.network.train()
    tiny_config.TRAIN.learning_rate = 1e-4
    optimizer, scheduler = model.optimizer((100, 200))
    for step in range(3):
        clips = paddle.to_tensor(golden_clip(100 + step, (4, 3, 15, 64, 64)).astype("float64"))
        loss = model.loss(model.network(clips), paddle.to_tensor(golden_labels(step, 4, 10)))
        assert float(loss) == pytest.approx(golden["losses"][step], rel=1e-6)
        loss.backward()
        optimizer.step()
        optimizer.clear_grad()
        scheduler.step()
    state, names = model.network.state_dict(), original_to_structured(50)
    checked = 0
    for key in golden.files:
        if key.startswith("after/"):
            after = state[names[key[len("after/") :]]].numpy().ravel()[:4096]
            np.testing.assert_allclose(after, golden[key], rtol=1e-6, atol=1e-6 * abs(golden[key]).max())
            checked += 1
    assert checked > 10


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_names_and_shapes_are_those_of_the_released_files(depth):
    shapes = json.loads((GOLDEN / "params.json").read_text())[f"layers_{depth}"]
    names = original_to_structured(depth)
    state = StNet(depth).state_dict()
    assert sorted(names) == sorted(shapes)
    assert {name: list(state[ours].shape) for name, ours in names.items()} == shapes


@pytest.mark.parametrize("depth", sorted(DEPTHS))
def test_every_tensor_of_every_depth_has_one_original_name(depth):
    names = original_to_structured(depth)
    assert sorted(names.values()) == sorted(StNet(depth, 3).state_dict())
    assert len(structured_to_original(depth)) == len(names)


def test_resnet50_has_the_published_number_of_values():
    assert sum(value.size for value in StNet(50).state_dict().values()) * 4 // 100_000 == 1328


@pytest.mark.parametrize("depth", [18, 50])
def test_gradient_reaches_every_parameter(depth):
    network = StNet(depth, 4, 2)
    clips = paddle.to_tensor(golden_clip(0, (2, 3, 6, 32, 32)))
    paddle.nn.functional.cross_entropy(network(clips), paddle.to_tensor([1, 2])).backward()
    trained = {name: p for name, p in network.named_parameters() if not p.stop_gradient}
    assert len(trained) == len(network.state_dict()) - 2 * sum("_mean" in name for name in network.state_dict())
    assert [name for name, p in trained.items() if p.grad is None] == []
    # Biases in front of a training-mode batch norm have, by theory, a zero gradient: rounding noise at most.
    still = [name for name, p in trained.items() if not p.grad.abs().sum() > 0]
    assert [name for name in still if not re.search(r"(att_2|att_conv|att1|att1_2|dw)\.bias$", name)] == []


def test_seg_num_may_change_between_calls():
    network = StNet(18, 4, 2)
    network.eval()
    for seg_num in (1, 3, 7):
        assert network(paddle.zeros([2, seg_num, 6, 32, 32])).shape == [2, 4]


@pytest.mark.parametrize("shape", [[2, 3, 9, 32, 32], [2, 3, 6, 32], [3, 6, 32, 32], [2, 0, 6, 32, 32]])
def test_a_wrong_input_shape_is_refused_with_the_expected_one(shape):
    with pytest.raises(ValueError, match=r"expected clips of shape \[batch, seg_num, 6, height, width\]"):
        StNet(18, 4, 2)(paddle.zeros(shape))


def test_initial_values_follow_the_original():
    paddle.seed(1)
    network = StNet(50, 400, 5)
    assert float(network.fc.weight.abs().max()) == pytest.approx(2048**-0.5, rel=1e-3)
    assert float(network.temporal1.conv.weight.abs().max()) == pytest.approx((6 / (512 * 3)) ** 0.5, rel=1e-3)
    assert float(network.xception.att_conv.weight.abs().max()) == pytest.approx((6 / 3) ** 0.5, rel=1e-2)
    assert float(network.layer1[0].conv2.weight.std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.05)
    for name, value in network.named_parameters():
        if name.endswith("bias"):
            assert float(value.abs().max()) == 0, name


def test_the_factory_knows_names_in_any_case_and_modes(tiny_config):
    assert get_model("stnet", tiny_config, "train").network.training
    assert not get_model("StNet", tiny_config, "test").network.training
    with pytest.raises(UserError, match="unknown model 'TSN'; known: STNET"):
        get_model("TSN", tiny_config, "train")
    with pytest.raises(UserError, match="unknown mode 'fit'; known: train, valid, test, infer"):
        get_model("STNET", tiny_config, "fit")
    tiny_config.MODEL.num_layers = 60
    with pytest.raises(UserError, match="MODEL.num_layers: expected one of 18, 34, 50, 101, 152, found 60"):
        get_model("STNET", tiny_config, "train")


def test_the_learning_rate_falls_after_a_third_and_two_thirds(tiny_config):
    first, second = decay_steps(60, 224684, 128)
    assert (first, second) == (20 * 1756, 40 * 1756)
    optimizer, scheduler = get_model("STNET", tiny_config, "train").optimizer((2, 4))
    rates = []
    for _ in range(5):
        rates.append(optimizer.get_lr())
        scheduler.step()
    assert rates == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4])


@pytest.mark.parametrize(
    ("depth", "seg_num", "size", "parts", "published"),
    [(50, 7, 224, 1, 40.6), (50, 25, 256, 4, 189.3), (101, 25, 256, 4, 310.5)],
)
def test_multiply_adds_are_the_papers(depth, seg_num, size, parts, published):
    # Counted at a fraction of the size; but for the few at the end they go with the number of pixels.
    network = StNet(depth)
    counted = count_macs(network, [1, seg_num, 15, size // parts, size // parts])
    fixed = count_macs(network.xception, [1, 2048, seg_num, 1]) + 1024 * 400
    assert ((counted - fixed) * parts**2 + fixed) / 1e9 == pytest.approx(published, rel=0.005)
