"""The network that ours and its peers compute and its clips, in each one's form. Contenders' side, in their folder."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.contender import ROOT

if TYPE_CHECKING:
    from stnet.config import Config
    from stnet.models.model import Model

CONFIG = str(ROOT / "configs" / "stnet.yaml")
LABELS = str(ROOT / "data" / "dataset" / "kinetics_labels.json")
WEIGHTS, ONNX = "weights.pdparams", "network-{0.seg_num}-{0.size}.onnx"


class Spec(NamedTuple):
    """A network of 400 classes, and clips of `seg_num` segments of 5 frames of `size` x `size` pixels."""

    layers: int
    seg_num: int
    size: int
    batch: int = 1
    rate: float = 0.01  # of learning

    @property
    def text(self) -> str:
        """Size of a clip, in words."""
        return f"{self.seg_num} x {self.size} x {self.size}"

    @property
    def shape(self) -> list[int]:
        """Of a batch."""
        return [self.batch, self.seg_num, 15, self.size, self.size]

    def clips(self) -> np.ndarray:
        """A batch of random uint8 clips, the same in every process."""
        return np.random.RandomState(0).randint(0, 256, self.shape).astype(np.uint8)

    def normalised_clips(self) -> np.ndarray:
        """The same as the float32 input that peers get ready made."""
        return np.stack([normalise(clip) for clip in self.clips()])

    def overrides(self, **more: Any) -> list[str]:
        """What makes of CONFIG the configuration of a measurement: such clips in every section; more as SECTION_key."""
        values = {"MODEL.num_layers": self.layers, "MODEL.seg_num": self.seg_num, "MODEL.labels": LABELS}
        for name in ("TRAIN", "VALID", "TEST", "INFER"):
            values.update({f"{name}.{key}": self.size for key in ("short_size", "target_size")})
            values.update({f"{name}.seg_num": self.seg_num, f"{name}.batch_size": self.batch})
        values["TRAIN.learning_rate"] = self.rate
        values.update({name.replace("_", ".", 1): value for name, value in more.items()})
        return [f"{key}={value}" for key, value in values.items()]


def normalise(clip: np.ndarray) -> np.ndarray:
    """uint8 [T, 3 * seglen, H, W] -> float32, by NumPy, in the order of the original's arithmetic."""
    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
    frames = clip.reshape(len(clip), -1, 3, *clip.shape[2:]).astype(np.float32) / np.float32(255)
    return ((frames - mean) / std).reshape(clip.shape)


def start() -> None:
    """The surroundings that the entries choose on the CPU."""
    from stnet import runtime

    os.environ["STNET_WEIGHTS_HOME"] = os.getcwd()  # where exports are kept
    runtime.prepare()
    runtime.start(use_gpu=False)


def load_config(overrides: list[str]) -> Config:
    """CONFIG with overrides, after `start`."""
    start()
    from stnet import config
    from stnet.models import model_section

    return config.load_config(CONFIG, model_section, overrides)


def load_model(spec: Spec, mode: str = "infer", weights: str = WEIGHTS) -> Model:
    """Our network, with those weights if any."""
    config = load_config(spec.overrides())
    import paddle

    from stnet.models import get_model

    model = get_model("STNET", config, mode)
    if weights:
        model.network.set_state_dict(paddle.load(weights))
    return model


def load_engine(spec: Spec, name: str = "auto") -> Any:
    """What eval and predict compute with: a function from uint8 clips to logits that has a `name`."""
    config = load_config(spec.overrides())
    from stnet.inference.predictor import Predictor

    return Predictor(WEIGHTS, config, engine=name, device="cpu").engine


def write_weights(spec: Spec) -> int:
    """Write random WEIGHTS that give logits as large as a trained network's. Returns the multiply-adds for a clip."""
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
    # optimize_tool: any other would install packages at this moment
    paddle2onnx.export(program, path + ".pdiparams", path, opset_version=16, optimize_tool="None")
