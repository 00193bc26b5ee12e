"""StNet with random weights, ours and in the peers' frameworks, and its clips.

All but Spec runs in the contenders' processes. Ours starts from uint8 clips; peers get normalised float32 clips.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

import numpy as np

from benchmarks.timer import ROOT, Run

if TYPE_CHECKING:
    from stnet.config import Config
    from stnet.models.model import Model

CONFIG = str(ROOT / "configs" / "stnet.yaml")
LABELS = str(ROOT / "data" / "dataset" / "kinetics_labels.json")
WEIGHTS, ONNX = "weights.pdparams", "network-{0.seg_num}-{0.size}.onnx"


class Spec(NamedTuple):
    """Network of 400 classes, and clips of `seg_num` segments of 5 frames of `size` x `size` pixels."""

    layers: int
    seg_num: int
    size: int
    batch: int = 1
    rate: float = 0.01  # learning rate

    @property
    def text(self) -> str:
        """Size of a clip, for titles."""
        return f"{self.seg_num} x {self.size} x {self.size}"

    @property
    def shape(self) -> list[int]:
        """Shape of a batch."""
        return [self.batch, self.seg_num, 15, self.size, self.size]

    def clips(self) -> np.ndarray:
        """Draw a batch of random uint8 clips, the same in every process."""
        return np.random.RandomState(0).randint(0, 256, self.shape).astype(np.uint8)

    def normalised_clips(self) -> np.ndarray:
        """Draw the same clips, normalised, as float32."""
        return np.stack([normalise(clip) for clip in self.clips()])

    def overrides(self, **more: Any) -> list[str]:
        """Overrides of CONFIG for such clips in every section; `more` as SECTION_key."""
        values = {"MODEL.num_layers": self.layers, "MODEL.seg_num": self.seg_num, "MODEL.labels": LABELS}
        for name in ("TRAIN", "VALID", "TEST", "INFER"):
            values.update({f"{name}.{key}": self.size for key in ("short_size", "target_size")})
            values.update({f"{name}.seg_num": self.seg_num, f"{name}.batch_size": self.batch})
        values["TRAIN.learning_rate"] = self.rate
        values.update({name.replace("_", ".", 1): value for name, value in more.items()})
        return [f"{key}={value}" for key, value in values.items()]


def sizes(quick: bool) -> dict[Spec, int]:
    """Networks of forward and precision, and iterations of a turn."""
    return {Spec(18, 2, 48): 1} if quick else {Spec(50, 7, 224): 4, Spec(50, 25, 256): 1}


def installed(*modules: str) -> bool:
    """Look for modules, without importing them."""
    return all(importlib.util.find_spec(module) for module in modules)


def normalise(clip: np.ndarray) -> np.ndarray:
    """uint8 [T, 3 * seglen, H, W] -> float32, by NumPy, in the order of the original's arithmetic."""
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
    frames = clip.reshape(len(clip), -1, 3, *clip.shape[2:]).astype(np.float32) / np.float32(255)
    return ((frames - mean) / std).reshape(clip.shape)


def load_config(overrides: list[str]) -> Config:
    """Read CONFIG with overrides, after the setup that the programs do on the CPU."""
    from stnet import config, runtime

    os.environ["STNET_WEIGHTS_HOME"] = os.getcwd()  # the folder of exports
    runtime.prepare()
    runtime.start(use_gpu=False)
    from stnet.models import model_section

    return config.load_config(CONFIG, model_section, overrides)


def load_model(spec: Spec, mode: str = "infer", weights: str = WEIGHTS) -> Model:
    """Build our network, with the weights unless they are ""."""
    config = load_config(spec.overrides())
    import paddle

    from stnet.models import get_model

    model = get_model("STNET", config, mode)
    if weights:
        model.network.set_state_dict(paddle.load(weights))
    return model


def load_engine(overrides: list[str], **options: Any) -> Any:
    """Build the engine of eval and predict: a function from uint8 clips to logits, with a `name`."""
    config = load_config(overrides)
    from stnet.inference.predictor import Predictor

    return Predictor(WEIGHTS, config, device="cpu", **options).engine


def write_weights(spec: Spec) -> int:
    """Write random WEIGHTS whose logits are as large as a trained network's. Returns the multiply-adds of a clip."""
    network = load_model(spec, weights="").network
    import paddle

    from stnet.models.macs import count_macs

    rng = np.random.RandomState(0)
    for name, value in network.state_dict().items():
        shape = tuple(value.shape)
        is_scale = len(shape) == 1 and name.endswith("weight")  # of a batch norm
        centre = 1.0 if name.endswith("_variance") else 0.5 if is_scale else 0.0
        spread = 0.1 if len(shape) < 3 else np.sqrt(2 / np.prod(shape[1:]))
        value.set_value(rng.normal(centre, spread, shape).astype("float32"))
    paddle.save(network.state_dict(), WEIGHTS)
    return count_macs(network, [1, *spec.shape[1:]])


def write_onnx(spec: Spec) -> None:
    """Write ONNX: normalised float32 clips in, logits out, every dimension fixed."""
    network, path = load_model(spec).network, ONNX.format(spec)
    import paddle
    import paddle2onnx

    paddle.jit.save(network, path, input_spec=[paddle.static.InputSpec(spec.shape, "float32", "clips")])
    program = next(path + end for end in (".json", ".pdmodel") if os.path.exists(path + end))
    # optimize_tool: any other would install packages
    paddle2onnx.export(program, path + ".pdiparams", path, opset_version=16, optimize_tool="None")


def ours(spec: Spec, engine: str = "auto") -> Run:
    """Contender: the engine of eval and predict; gives (its name, logits)."""
    compute, clips = load_engine(spec.overrides(), engine=engine), spec.clips()
    return lambda: (compute.name, compute(clips))


def onnxruntime(spec: Spec, threads: int, file: str = ONNX) -> Run:
    """Contender: ONNX Runtime with default optimisations; gives ("", logits)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3  # errors
    session = onnxruntime.InferenceSession(file.format(spec), options, ["CPUExecutionProvider"])
    clips = spec.normalised_clips()
    return lambda: ("", session.run(None, {"clips": clips})[0])


def openvino(spec: Spec, threads: int, precision: str = "f32", file: str = ONNX) -> Run:
    """Contender: OpenVINO in a precision, tuned for latency; gives ("", logits)."""
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    model, clips = openvino.Core().compile_model(file.format(spec), "CPU", hints), spec.normalised_clips()
    return lambda: ("", model(clips)[0])


def torch(spec: Spec, threads: int, bf16: bool = False) -> Run:
    """Contender: PyTorch, eager, with bf16 by autocast; gives ("", logits)."""
    import torch

    from benchmarks.peers import torch_stnet

    network, clips = torch_stnet.load(WEIGHTS, spec.layers, threads).eval(), torch.from_numpy(spec.normalised_clips())

    @torch.inference_mode()
    def compute() -> tuple[str, np.ndarray]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return "", network(clips).float().numpy()

    return compute


PEERS: dict[str, tuple[Callable[..., Run], tuple[str, ...]]] = {  # name: (contender, modules)
    "ONNX Runtime": (onnxruntime, ("onnxruntime", "paddle2onnx")),
    "OpenVINO": (openvino, ("openvino", "paddle2onnx")),
    "PyTorch": (torch, ("torch", "torchvision")),
}


def peers() -> dict[str, Callable[..., Run]]:
    """Contenders of the installed peers; the others are printed."""
    found = {}
    for name, (contender, modules) in PEERS.items():
        if installed(*modules):
            found[name] = contender
        else:
            print(f"{name} is left out: it needs {' and '.join(modules)}", flush=True)
    return found
