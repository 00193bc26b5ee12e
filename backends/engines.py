"""The ways to compute logits, and which of them is taken.

An engine is called with uint8 clips [B, T, 3 * seglen, H, W] (Tensor or array) and returns float32 logits
[B, num_classes] as an array. "paddle" is the network as it is. The others run an export of it, made at the first use.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Union

import numpy as np
import paddle

from backends.cache import cached_export
from backends.export import (
    Exportable,
    Scorer,
    Shape,
    clip_sizes,
    exportable_network,
    program_files,
    write_onnx,
    write_program,
)
from backends.normalizer import Normalizer
from core import runtime
from core.errors import UserError

if TYPE_CHECKING:
    from core.config import ReaderSection
    from models.model import Model

logger = logging.getLogger("stnet")
TOLERANCE = 1e-4  # of the logits, relative to the largest where that is above 1
_PIXELS_AT_ONCE = 25 * 256 * 256  # what fills the processor; one clip of the test setting

Run = Callable[[np.ndarray], np.ndarray]  # clips in, logits or probabilities out
Clips = Union[np.ndarray, paddle.Tensor]
Loaded = tuple[Run, tuple[str, str], str]  # the function, the names of its input and output, the engine's name


def make_engine(name: str, model: Model, section: ReaderSection, clips: int | None = None) -> Engine:
    """The engine called `name`.

    Args:
        name: one of core.cli.ENGINES. "auto" takes what was fastest where it was measured (docs/performance.md): on
            the CPU ONNX Runtime if it and paddle2onnx are installed, or else paddle.inference; on the GPU, or should
            the export fail, the network as it is.
        model: in evaluation mode.
        section: the exports are made for its clips.
        clips: how many there will be in all, if that is known.

    Raises:
        UserError: an engine that was asked for by name does not work here.
    """
    settings = model.config.MODEL
    dygraph = Dygraph(model.network, Normalizer(settings.image_mean, settings.image_std))
    for candidate in _fastest_first() if name == "auto" else [name]:
        if candidate == "paddle":
            return dygraph
        try:
            engine = _exported(candidate, model, dygraph, section, clips)
        except Exception as error:  # Paddle, OpenVINO and ONNX Runtime raise types of their own
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            problem = f"engine {candidate} does not work here: {reason}"
            if name != "auto":
                raise UserError(f"{problem}; --engine=paddle always does") from error
            logger.warning("%s; taking the next best", problem)
        else:
            logger.info("engine: %s", engine.name)
            return engine
    return dygraph


def _fastest_first() -> list[str]:
    if paddle.get_device().startswith("gpu"):
        return ["paddle"]
    has_onnx = all(importlib.util.find_spec(module) for module in ("onnxruntime", "paddle2onnx"))
    return (["onnxruntime"] if has_onnx else []) + ["inference", "paddle"]


class Dygraph:
    """The network as it is, on the device it is on.

    Args:
        network: returns logits; put into evaluation mode at each call.
        normalize: what it takes of the clips.
    """

    name = "paddle"

    def __init__(self, network: paddle.nn.Layer, normalize: Normalizer) -> None:
        self.network, self.normalize = network, normalize

    def __call__(self, clips: Clips) -> np.ndarray:
        """uint8 clips -> logits, see the module."""
        self.network.eval()
        with paddle.no_grad():
            return self.network(self.normalize(paddle.to_tensor(clips))).astype("float32").numpy()


class Exported:
    """A program for a fixed number of clips.

    Args:
        run: from uint8 [at_once, T, 3 * seglen, H, W] to logits.
        at_once: that number; the last clips of a batch are filled up.
        name: for the log.
    """

    def __init__(self, run: Run, at_once: int, name: str) -> None:
        self.run, self.at_once, self.name = run, at_once, name

    def __call__(self, clips: Clips) -> np.ndarray:
        """uint8 clips -> logits, see the module."""
        clips = np.asarray(clips)
        return np.concatenate([self._part(clips[i : i + self.at_once]) for i in range(0, len(clips), self.at_once)])

    def _part(self, clips: np.ndarray) -> np.ndarray:
        missing = self.at_once - len(clips)
        filled = np.concatenate([clips, np.zeros((missing, *clips.shape[1:]), clips.dtype)]) if missing else clips
        return self.run(np.ascontiguousarray(filled))[: len(clips)]


Engine = Union[Dygraph, Exported]


def clips_at_once(section: ReaderSection) -> int:
    """Clips that an exported program takes: more than one only where a clip is too small to fill the processor."""
    seg_num, _, size = clip_sizes(section)
    pixels = seg_num * size**2
    return max(1, min(section.batch_size, _PIXELS_AT_ONCE // pixels))


def _exported(name: str, model: Model, dygraph: Dygraph, section: ReaderSection, clips: int | None) -> Exported:
    settings, network = model.config.MODEL, exportable_network(model)
    at_once = min(clips_at_once(section), clips or section.batch_size)
    seg_num, seglen, size = clip_sizes(section)
    shape = [at_once, seg_num, 3 * seglen, size, size]
    write, load = {"inference": (write_program, load_inference), "onnxruntime": (_write_onnx, load_onnxruntime)}[name]

    engines: list[Exported] = []  # one at most: Paddle keeps the memory of those that are given up

    def engine(folder: str) -> Exported:
        if not engines:
            run, _, engine_name = load(f"{folder}/model")
            engines.append(Exported(run, at_once, engine_name))
        return engines[0]

    def export(folder: str) -> None:
        clips = np.random.RandomState(0).randint(0, 256, (1, *shape[1:])).astype(np.uint8)
        expected = dygraph(clips)
        runtime.release_memory()  # what one step needs is not held through the next
        write(Scorer(network, settings.image_mean, settings.image_std, seglen), f"{folder}/model", shape)
        runtime.release_memory()
        check(engine(folder)(clips), expected)
        runtime.release_memory()

    dependencies = [name, shape, settings.image_mean, settings.image_std]
    return engine(cached_export(network, dependencies, export))


def _write_onnx(layer: Exportable, prefix: str, shape: Shape) -> None:
    write_onnx(layer, f"{prefix}.onnx", shape)


def check(logits: np.ndarray, expected: np.ndarray) -> None:
    """Compare an engine's logits with the network's.

    Raises:
        UserError: they deviate by more than TOLERANCE.
    """
    deviation = np.abs(logits - expected).max() / max(1.0, np.abs(expected).max())
    if not deviation <= TOLERANCE:
        raise UserError(f"its logits deviate from the network's by {deviation:.2g}")


def load_inference(prefix: str) -> Loaded:
    """An exported program in paddle.inference: by OpenVINO where Paddle brings it, else by oneDNN; or on the GPU."""
    if paddle.get_device().startswith("gpu"):
        backend, predictor = "GPU", _predictor(prefix, "GPU")
    else:
        try:
            backend, predictor = "OpenVINO", _predictor(prefix, "OpenVINO")
        except Exception:  # an older Paddle, or one built without it; each says so in its own way
            backend, predictor = "oneDNN", _predictor(prefix, "oneDNN")
    names = predictor.get_input_names()[0], predictor.get_output_names()[0]
    source, result = predictor.get_input_handle(names[0]), predictor.get_output_handle(names[1])

    def run(clips: np.ndarray) -> np.ndarray:
        source.reshape(clips.shape)
        source.copy_from_cpu(clips)
        predictor.run()
        return result.copy_to_cpu()

    return run, names, f"paddle.inference with {backend}"


def _predictor(prefix: str, backend: str) -> paddle.inference.Predictor:
    from paddle import inference

    config = inference.Config(*program_files(prefix))
    config.disable_glog_info()
    if backend == "GPU":
        config.enable_use_gpu(256, 0)
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(runtime.threads())
    if backend == "OpenVINO":
        config.enable_openvino_engine(inference.PrecisionType.Float32)
    if backend == "oneDNN":
        config.enable_mkldnn()
    with tempfile.TemporaryDirectory() as compiled:  # OpenVINO writes its code anew at every start
        config.set_optim_cache_dir(compiled)
        return inference.create_predictor(config)


def load_onnxruntime(prefix: str) -> Loaded:
    """An ONNX file in ONNX Runtime, on the CPU."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed: pip install onnxruntime 'paddle2onnx>=2.1'") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(f"{prefix}.onnx", options, providers=["CPUExecutionProvider"])
    names = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda clips: session.run(None, {names[0]: clips})[0], names, "ONNX Runtime"
