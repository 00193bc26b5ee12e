"""Registry of engines, which compute logits, and the order in which `auto` tries them.

`make` returns a function from uint8 clips [B, seg_num, 3 * seglen, H, W] (Tensor or array) to float32 logits
[B, num_classes] (array).
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stnet import runtime
from stnet.backends.deploy_yaml import Form, form_of_clips
from stnet.backends.exported import make_exported
from stnet.backends.program import Exportable, Shape, program_files, write_onnx, write_program
from stnet.models.dygraph import Clips, Dygraph
from stnet.models.normalizer import Normalizer
from stnet.utils.errors import INSTALL_ONNX, USE_PADDLE, UserError, last_line
from stnet.utils.registry import Registry

if TYPE_CHECKING:
    from stnet.config import ReaderSection
    from stnet.models.model import Model

logger = logging.getLogger("stnet")
Compute = Callable[[Clips], np.ndarray]  # clips in, logits out
Run = Callable[[np.ndarray], np.ndarray]  # clips in, logits or probabilities out
Loaded = tuple[Run, tuple[str, str], str]  # the function, the names of its input and output, words for the log
Made = TypeVar("Made")
ENGINES: Registry[type[Engine]] = Registry("engine")


@dataclass(frozen=True)
class Task:
    """Model and clips that an engine is made for."""

    model: Model  # in evaluation mode
    section: ReaderSection  # sizes of the clips
    clips: int | None = None  # their number, if known
    digest: str = ""  # SHA-256 of the weights' file, if the network holds them unchanged


class Engine:
    """Base of the registered engines. A subclass gives `make`."""

    def is_available(self) -> bool:
        """Return True if the packages that it needs are installed."""
        return True

    def speed(self) -> int:
        """Rank for `auto` on the device in use, the fastest highest; 0: `auto` does not take it."""
        return 0

    def make(self, task: Task) -> Compute:
        """Make a function from clips to logits, whose `name`, if any, is logged. Raises where it does not work."""
        raise NotImplementedError


class ExportEngine(Engine):
    """An engine that runs an export of the network. A subclass gives `write` and `load`.

    The export is made at the first use, compared with the network and kept (stnet.backends.cache).
    """

    file_format = ""  # for inference_model.py --format; "": not offered there

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """Write files whose names begin with `prefix`, for clips of a shape; None in it: any number."""
        raise NotImplementedError

    def load(self, prefix: str) -> Loaded:
        """Load (function from clips to the layer's output, (name of its input, of its output), words for the log)."""
        raise NotImplementedError

    def form(self, model: Model, section: ReaderSection, labels: Sequence[str], uint8: bool) -> Form:
        """Describe the model that inference_model.py exports. `uint8`: the model normalises."""
        return form_of_clips(model, section, uint8)

    def make(self, task: Task) -> Compute:
        """Load the export for a task from the cache, or make it."""
        return make_exported(self, task)


@ENGINES.register("auto")
class Auto(Engine):
    """The fastest engine that works here, as measured (docs/performance.md)."""

    def make(self, task: Task) -> Compute:
        """Make the first engine that works."""
        return make_by("auto", lambda engine: engine.make(task))


@ENGINES.register("paddle")
class Network(Engine):
    """The dynamic-graph network."""

    def speed(self) -> int:
        """First choice on a GPU, where the others were not measured."""
        return 1

    def make(self, task: Task) -> Compute:
        """Wrap the network with its normalisation."""
        settings = task.model.config.MODEL
        return Dygraph(task.model.network, Normalizer(settings.image_mean, settings.image_std))


@ENGINES.register("inference")
class PaddleInference(ExportEngine):
    """paddle.inference, by OpenVINO where Paddle brings it, else by oneDNN; or on the GPU."""

    file_format = "paddle"

    def speed(self) -> int:
        """Second choice on the CPU."""
        return 0 if _on_gpu() else 2

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """Write PREFIX.pdmodel and PREFIX.pdiparams."""
        write_program(layer, prefix, shape)

    def load(self, prefix: str) -> Loaded:
        """Load a program. Raises what paddle.inference raises."""
        if _on_gpu():
            backend, predictor = "GPU", _predictor(prefix, "GPU")
        else:
            try:
                backend, predictor = "OpenVINO", _predictor(prefix, "OpenVINO")
            except Exception:  # an older Paddle, or one built without it; each raises its own
                backend, predictor = "oneDNN", _predictor(prefix, "oneDNN")
        names = predictor.get_input_names()[0], predictor.get_output_names()[0]
        source, result = predictor.get_input_handle(names[0]), predictor.get_output_handle(names[1])

        def run(clips: np.ndarray) -> np.ndarray:
            source.reshape(clips.shape)
            source.copy_from_cpu(clips)
            predictor.run()
            return result.copy_to_cpu()

        return run, names, f"paddle.inference with {backend}"


def _predictor(prefix: str, backend: str) -> Any:
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
    with tempfile.TemporaryDirectory() as compiled:  # OpenVINO compiles anew at every start
        config.set_optim_cache_dir(compiled)
        return inference.create_predictor(config)


@ENGINES.register("onnxruntime")
class OnnxRuntime(ExportEngine):
    """ONNX Runtime, on the CPU."""

    file_format = "onnx"

    def is_available(self) -> bool:
        """Return True if ONNX Runtime and paddle2onnx are installed."""
        return all(importlib.util.find_spec(module) for module in ("onnxruntime", "paddle2onnx"))

    def speed(self) -> int:
        """First choice on the CPU."""
        return 0 if _on_gpu() else 3

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """Write PREFIX.onnx."""
        write_onnx(layer, f"{prefix}.onnx", shape)

    def load(self, prefix: str) -> Loaded:
        """Load PREFIX.onnx on the CPU. Raises UserError where ONNX Runtime is not installed."""
        try:
            import onnxruntime
        except ImportError:
            raise UserError("onnxruntime is not installed", hint=INSTALL_ONNX) from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = runtime.threads()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(f"{prefix}.onnx", options, providers=["CPUExecutionProvider"])
        names = session.get_inputs()[0].name, session.get_outputs()[0].name
        return lambda clips: session.run(None, {names[0]: clips})[0], names, "ONNX Runtime"


def make_engine(name: str, model: Model, section: ReaderSection, clips: int | None = None, digest: str = "") -> Compute:
    """Make the engine called `name`; the arguments are those of Task.

    Raises:
        UserError: the name is unknown, or the engine does not work here.
    """
    task = Task(model, section, clips, digest)
    compute = make_by(name, lambda engine: engine.make(task))
    logger.info("engine: %s", getattr(compute, "name", name))
    return compute


def make_by(name: str, make: Callable[[Engine], Made]) -> Made:
    """Call `make` with the engine called `name`; with "auto", with the fastest for which it does not raise.

    Raises:
        UserError: as make_engine.
    """
    engine = ENGINES.get(name)()
    if isinstance(engine, Auto):
        return _first_that_works(make)
    try:
        return make(engine)
    except Exception as error:  # Paddle, OpenVINO and ONNX Runtime have exceptions of their own
        hint = error.hint if isinstance(error, UserError) and error.hint else USE_PADDLE
        raise UserError(f"engine {name} does not work here: {last_line(error)}", hint) from error


def _first_that_works(make: Callable[[Engine], Made]) -> Made:
    engines = {name: ENGINES.get(name)() for name in ENGINES.names()}
    usable = [name for name, engine in engines.items() if engine.speed() and engine.is_available()]
    *others, last = sorted(usable, key=lambda name: -engines[name].speed())
    for name in others:
        try:
            return make(engines[name])
        except Exception as error:  # as above
            logger.warning("engine %s does not work here: %s; taking the next best", name, last_line(error))
    return make(engines[last])


def _on_gpu() -> bool:
    import paddle

    return paddle.get_device().startswith("gpu")
