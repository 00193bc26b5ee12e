"""The table of engines: the ways to compute logits, and which of them `auto` takes.

What an engine makes is called with uint8 clips [B, seg_num, 3 * seglen, H, W] (Tensor or array) and returns float32
logits [B, num_classes] as an array. Nothing here imports Paddle before an engine is made.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from stnet.utils.errors import USE_PADDLE, UserError, last_line
from stnet.utils.registry import Registry

if TYPE_CHECKING:
    from stnet.backends.deploy_yaml import Form
    from stnet.backends.program import Exportable, Shape
    from stnet.config import ReaderSection
    from stnet.models.dygraph import Clips
    from stnet.models.model import Model

    Compute = Callable[[Clips], np.ndarray]  # clips in, logits out

logger = logging.getLogger("stnet")
Run = Callable[[np.ndarray], np.ndarray]  # clips in, logits or probabilities out
Loaded = tuple[Run, tuple[str, str], str]  # the function, the names of its input and output, words for the log
Made = TypeVar("Made")
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

    The export is made at the first use, compared with the network and kept (stnet.backends.cache).
    """

    file_format = ""  # by which inference_model.py --format takes it; "" where it does not

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """Write files whose names begin with `prefix`, for clips of a shape; None in it stands for any number."""
        raise NotImplementedError

    def load(self, prefix: str) -> Loaded:
        """(function from clips to what the layer returns, (name of its input, of its output), words for the log)."""
        raise NotImplementedError

    def form(self, model: Model, section: ReaderSection, labels: Sequence[str], uint8: bool) -> Form:
        """What inference_model.py exports, and how that is called. `uint8`: the model is to normalise."""
        from stnet.backends.deploy_yaml import form_of_clips

        return form_of_clips(model, section, uint8)

    def make(self, task: Task) -> Compute:
        """The engine for a task, from the cache if its export is there."""
        from stnet.backends.exported import make_exported

        return make_exported(self, task)


@ENGINES.register("auto")
class Auto(Engine):
    """The fastest that works here, as measured (docs/performance.md); the last is the network as it is."""

    def make(self, task: Task) -> Compute:
        """The first that can be made."""
        return make_by("auto", lambda engine: engine.make(task))


@ENGINES.register("paddle")
class Network(Engine):
    """The network as it is."""

    def speed(self) -> int:
        """The first choice on a GPU, where the others were not measured."""
        return 1

    def make(self, task: Task) -> Compute:
        """The network with its normalisation."""
        from stnet.models.dygraph import Dygraph
        from stnet.models.normalizer import Normalizer

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
        from stnet.backends.program import write_program

        write_program(layer, prefix, shape)

    def load(self, prefix: str) -> Loaded:
        """See stnet.backends.paddle_inference."""
        from stnet.backends.paddle_inference import load

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
        from stnet.backends.program import write_onnx

        write_onnx(layer, f"{prefix}.onnx", shape)

    def load(self, prefix: str) -> Loaded:
        """See stnet.backends.onnxruntime."""
        from stnet.backends.onnxruntime import load

        return load(prefix)


def make_engine(name: str, model: Model, section: ReaderSection, clips: int | None = None, digest: str = "") -> Compute:
    """What computes logits by the engine called `name`; the arguments are those of Task.

    Raises:
        UserError: the name is unknown, which lists the known, or the engine does not work here.
    """
    task = Task(model, section, clips, digest)
    compute = make_by(name, lambda engine: engine.make(task))
    logger.info("engine: %s", getattr(compute, "name", name))
    return compute


def make_by(name: str, make: Callable[[Engine], Made]) -> Made:
    """What `make` gives for the engine called `name`; for "auto", for the fastest for which it gives something.

    Raises:
        UserError: as make_engine.
    """
    engine = ENGINES.get(name)()
    if isinstance(engine, Auto):
        return _first_that_works(make)
    try:
        return make(engine)
    except Exception as error:  # Paddle, OpenVINO and ONNX Runtime raise types of their own
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
