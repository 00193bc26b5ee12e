"""The table of engines: the ways to compute logits, and which of them `auto` takes.

What an engine makes is called with uint8 clips [B, seg_num, 3 * seglen, H, W] (Tensor or array) and returns float32
logits [B, num_classes] as an array. Nothing here imports Paddle before an engine is made.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from core.errors import UserError
from core.registry import Registry

if TYPE_CHECKING:
    from backends.export import Exportable, Shape
    from backends.network import Clips
    from core.config import ReaderSection
    from models.model import Model

    Compute = Callable[[Clips], np.ndarray]  # clips in, logits out

logger = logging.getLogger("stnet")
Run = Callable[[np.ndarray], np.ndarray]  # clips in, logits or probabilities out
Loaded = tuple[Run, tuple[str, str], str]  # the function, the names of its input and output, words for the log
ENGINES: Registry[type[Engine]] = Registry("engine")


@dataclass(frozen=True)
class Task:
    """What an engine is made for."""

    model: Model  # in evaluation mode
    section: ReaderSection  # of the clips that will come
    clips: int | None = None  # how many there will be in all, if that is known
    digest: str = ""  # SHA-256 of the weights that the network holds as they were read, if it does


class Engine:
    """Base of the registered engines. A subclass gives `make`."""

    def is_available(self) -> bool:
        """Whether what it needs is installed."""
        return True

    def speed(self) -> int:
        """Its place in the order of `auto` on the device in use, the fastest highest; 0: `auto` does not take it."""
        return 0

    def make(self, task: Task) -> Compute:
        """A function from clips to logits; if it has a `name`, the log says that. What it raises says why it can't."""
        raise NotImplementedError


class ExportEngine(Engine):
    """An engine that runs an export of the network. A subclass gives `write` and `load`.

    The export is made at the first use, compared with the network and kept (backends.cache).
    """

    file_format = ""  # by which inference_model.py --format takes it; "" where it does not

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """Write files whose names begin with `prefix`, for clips of a shape; None in it stands for any number."""
        raise NotImplementedError

    def load(self, prefix: str) -> Loaded:
        """(function from clips to what the layer returns, (name of its input, of its output), words for the log)."""
        raise NotImplementedError

    def make(self, task: Task) -> Compute:
        """The engine for a task, from the cache if its export is there."""
        from backends.exported import make_exported

        return make_exported(self, task)


@ENGINES.register("auto")
class Auto(Engine):
    """The fastest that works here, as measured (docs/performance.md); should all fail, the network as it is."""

    def make(self, task: Task) -> Compute:
        """The first that can be made."""
        for name, engine in _fastest_first():
            try:
                return engine.make(task)
            except Exception as error:  # Paddle, OpenVINO and ONNX Runtime raise types of their own
                logger.warning("engine %s does not work here: %s; taking the next best", name, _reason(error))
        return Network().make(task)


@ENGINES.register("paddle")
class Network(Engine):
    """The network as it is."""

    def speed(self) -> int:
        """The first choice on a GPU, where the others were not measured."""
        return 1

    def make(self, task: Task) -> Compute:
        """The network with its normalisation."""
        from backends.network import Dygraph
        from backends.normalizer import Normalizer

        settings = task.model.config.MODEL
        return Dygraph(task.model.network, Normalizer(settings.image_mean, settings.image_std))


@ENGINES.register("inference")
class PaddleInference(ExportEngine):
    """paddle.inference."""

    file_format = "paddle"

    def speed(self) -> int:
        """The second choice on the CPU."""
        return 0 if _on_gpu() else 2

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """PREFIX.pdmodel and PREFIX.pdiparams."""
        from backends.export import write_program

        write_program(layer, prefix, shape)

    def load(self, prefix: str) -> Loaded:
        """See backends.paddle_inference."""
        from backends.paddle_inference import load

        return load(prefix)


@ENGINES.register("onnxruntime")
class OnnxRuntime(ExportEngine):
    """ONNX Runtime, on the CPU."""

    file_format = "onnx"

    def is_available(self) -> bool:
        """Whether ONNX Runtime is installed, and what writes its files."""
        return all(importlib.util.find_spec(module) for module in ("onnxruntime", "paddle2onnx"))

    def speed(self) -> int:
        """The first choice on the CPU."""
        return 0 if _on_gpu() else 3

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """PREFIX.onnx."""
        from backends.export import write_onnx

        write_onnx(layer, f"{prefix}.onnx", shape)

    def load(self, prefix: str) -> Loaded:
        """See backends.onnxruntime."""
        from backends.onnxruntime import load

        return load(prefix)


def make_engine(name: str, model: Model, section: ReaderSection, clips: int | None = None, digest: str = "") -> Compute:
    """What computes logits by the engine called `name`; the arguments are those of Task.

    Raises:
        UserError: the name is unknown, which lists the known, or the engine does not work here.
    """
    engine = ENGINES.get(name)()
    try:
        compute = engine.make(Task(model, section, clips, digest))
    except Exception as error:  # as above
        topic = error.topic if isinstance(error, UserError) and error.topic else "engine"
        raise UserError(f"engine {name} does not work here: {_reason(error)}", topic) from error
    logger.info("engine: %s", getattr(compute, "name", name))
    return compute


def exporter(file_format: str) -> ExportEngine:
    """The engine that writes and runs a format of exports. Raises UserError that lists the known formats."""
    engines = [ENGINES.get(name)() for name in ENGINES.names()]
    formats = {engine.file_format: engine for engine in engines if isinstance(engine, ExportEngine)}
    if not file_format or file_format not in formats:
        raise UserError(f"unknown format {file_format!r}; known: {', '.join(sorted(filter(None, formats)))}")
    return formats[file_format]


def _fastest_first() -> list[tuple[str, Engine]]:
    engines = [(name, ENGINES.get(name)()) for name in ENGINES.names()]
    usable = [(name, engine) for name, engine in engines if engine.speed() and engine.is_available()]
    return sorted(usable, key=lambda pair: -pair[1].speed())


def _on_gpu() -> bool:
    import paddle

    return paddle.get_device().startswith("gpu")


def _reason(error: Exception) -> str:
    """The last line, where Paddle says it."""
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
