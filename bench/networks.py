"""The network that ours and its peers compute, with random weights, in each one's own form. Runs in child processes."""

import os

import numpy as np

from bench.measure import ROOT


def start():
    """The surroundings that the entries choose on the CPU."""
    from core import runtime

    runtime.prepare()
    runtime.start(use_gpu=False)


CONFIG = str(ROOT / "configs" / "stnet.yaml")


def overrides(layers, seg_num, size, batch=1, classes=400, rate=0.01):
    """What makes of CONFIG the configuration of a measurement: the same clips in every section."""
    wanted = [f"MODEL.num_layers={layers}", f"MODEL.num_classes={classes}", f"MODEL.seg_num={seg_num}"]
    wanted += [f"MODEL.labels={ROOT / 'data' / 'dataset' / 'kinetics_labels.json'}", f"TRAIN.learning_rate={rate}"]
    for section in ("TRAIN", "VALID", "TEST", "INFER"):
        sizes = {"seg_num": seg_num, "short_size": size, "target_size": size, "batch_size": batch}
        wanted += [f"{section}.{key}={value}" for key, value in sizes.items()]
    return wanted


def load_model(layers, seg_num, size, weights="", mode="infer", **options):
    """models.model.Model for `overrides`' arguments, holding the weights of a file that write_weights wrote."""
    import paddle

    from core.config import load_config
    from models import get_model, model_section

    config = load_config(CONFIG, model_section, overrides(layers, seg_num, size, **options))
    model = get_model("STNET", config, mode)
    if weights:
        model.network.set_state_dict(paddle.load(weights))
    return model


def write_weights(path, layers, cases=(), classes=400):
    """Write random weights and batch norm statistics that give logits as large as a trained network's.

    Args:
        path: of the file, as paddle.save writes it.
        layers: depth.
        cases: list of (seg_num, size).

    Returns:
        multiply-adds for one clip of each case.
    """
    start()
    import paddle

    from models.macs import count_macs

    network = load_model(layers, 1, 32, classes=classes).network
    rng = np.random.RandomState(0)
    for name, value in network.state_dict().items():
        shape = tuple(value.shape)
        if name.endswith("_variance"):
            made = rng.uniform(0.5, 1.5, shape)
        elif name.endswith(("bias", "_mean")):
            made = rng.normal(0, 0.1, shape)
        elif len(shape) == 1:  # scale of a batch norm
            made = rng.uniform(0.3, 0.7, shape)
        else:
            made = rng.normal(0, 0.1 if len(shape) == 2 else np.sqrt(2 / np.prod(shape[1:])), shape)
        value.set_value(made.astype("float32"))
    paddle.save(network.state_dict(), path)
    return [count_macs(network, [1, seg_num, 3 * network.seglen, size, size]) for seg_num, size in cases]


def write_onnx(paths, weights, layers, cases):
    """Write an ONNX file for each case: one normalised float32 clip in, logits out, every dimension fixed."""
    start()
    import paddle
    import paddle2onnx

    for path, (seg_num, size) in zip(paths, cases):
        network = load_model(layers, seg_num, size, weights).network
        prefix = os.path.splitext(path)[0]
        spec = paddle.static.InputSpec([1, seg_num, 3 * network.seglen, size, size], "float32", "clips")
        paddle.jit.save(network, prefix, input_spec=[spec])
        program = next(prefix + end for end in (".json", ".pdmodel") if os.path.exists(prefix + end))
        # optimize_tool: any other would install packages at this moment
        paddle2onnx.export(program, prefix + ".pdiparams", path, opset_version=16, optimize_tool="None")


def write_torch(path, weights, layers, classes=400):
    """Write the state of bench.peers.torch_stnet with the same weights."""
    import torch

    from bench.peers.torch_stnet import from_paddle

    start()
    network = load_model(layers, 1, 32, weights, classes=classes).network
    torch.save(from_paddle(network, layers, classes, network.seglen).state_dict(), path)


def load_torch(path, layers, threads, classes=400, seglen=5):
    """bench.peers.torch_stnet.StNet with the weights that write_torch wrote; Paddle is not imported."""
    import torch

    from bench.peers.torch_stnet import StNet

    torch.set_num_threads(threads)
    network = StNet(layers, classes, seglen)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def clips(batch, seg_num, size, seglen=5):
    """Random uint8 clips [batch, seg_num, 3 * seglen, size, size], the same in every process."""
    shape = batch, seg_num, 3 * seglen, size, size
    return np.random.RandomState(0).randint(0, 256, shape).astype(np.uint8)


def normalised(array):
    """uint8 clips as the float32 input that peers get ready made."""
    from bench.reader import normalise

    return np.stack([normalise(clip) for clip in array])
