"""Networks in stages, by any engine: for timelines of long videos, and for shares of segments."""

from __future__ import annotations

import logging
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle import nn

from stnet import runtime
from stnet.backends.cache import cached_export, code_of
from stnet.backends.engines import Engine, ExportEngine, Network, Task, make_by
from stnet.backends.exported import check
from stnet.backends.program import Scorer, Shape, clip_sizes
from stnet.models.dygraph import Dygraph
from stnet.models.normalizer import Normalizer
from stnet.models.streaming import Run, Streaming, Windows
from stnet.utils.errors import UserError

if TYPE_CHECKING:
    from stnet.config import ReaderSection
    from stnet.models.model import Model

logger = logging.getLogger("stnet")
_PIXELS_AT_ONCE = 4 * 256 * 256  # of segments; fill the processor
_MOST_AT_ONCE = 32


class StagedNetwork:
    """A network in stages.

    Args:
        streaming: of the model.
        runs: functions that compute the stages, the first from uint8.
        size: pixels of a segment's side.
        name: for the log.
    """

    def __init__(self, streaming: Streaming, runs: list[Run], size: int, name: str) -> None:
        self.streaming, self.runs, self.name = streaming, runs, name
        segments = max(1, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // size**2))
        self.at_once = [segments] * len(runs)

    def windows(self) -> Windows:
        """Make the scorer of one video."""
        return self.streaming.windows(self.runs, self.at_once)

    def features(self, clips: np.ndarray) -> np.ndarray:
        """Compute features [B, T, C] of uint8 clips [B, T, 3 * seglen, H, W]."""
        windows = self.windows()
        for number, clip in enumerate(clips):
            windows.add(number, [(number, segment) for segment in range(len(clip))])
            for segment, pixels in enumerate(clip):
                windows.feed((number, segment), pixels)
        windows.flush()
        return np.stack([features for _, features in sorted(windows.done(), key=itemgetter(0))])

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """uint8 clips [B, T, 3 * seglen, H, W] -> logits [B, num_classes]."""
        return np.stack([self.streaming.logits(features) for features in self.features(np.asarray(clips))])


def build_stages(name: str, model: Model, section: ReaderSection, digest: str = "") -> StagedNetwork:
    """Make a model's stages by the engine called `name`; see stnet.backends.engines.make_engine.

    Raises:
        UserError: the model has no stages, or the engine does not work here, or not in stages.
    """
    streaming = model.streaming()
    if streaming is None:
        raise UserError(f"{model.config.MODEL.name} has no segments: it has no timeline, and no shares of segments")
    task = Task(model, section, digest=digest)

    def make(engine: Engine) -> StagedNetwork:
        if isinstance(engine, ExportEngine):
            return _exported(engine, task, streaming)
        if isinstance(engine, Network):
            return StagedNetwork(streaming, dygraph_runs(streaming, model), section.target_size, Dygraph.name)
        raise UserError("it computes whole networks, not their parts")

    stages = make_by(name, make)
    logger.info("engine: %s, in parts", stages.name)
    return stages


def dygraph_runs(streaming: Streaming, model: Model) -> list[Run]:
    """Functions of the stages in the dynamic graph, the first from uint8."""
    settings = model.config.MODEL
    first, *others = streaming.parts
    return [Dygraph(first, Normalizer(settings.image_mean, settings.image_std)), *map(_run_of, others)]


def _run_of(layer: nn.Layer) -> Run:
    def run(values: np.ndarray) -> np.ndarray:
        layer.eval()
        with paddle.no_grad():
            return layer(paddle.to_tensor(values)).numpy()

    return run


def layers_from_bytes(streaming: Streaming, model: Model) -> list[nn.Layer]:
    """Layers of the stages to export, the first with normalisation."""
    settings, (first, *others) = model.config.MODEL, streaming.parts
    return [Scorer(first, settings.image_mean, settings.image_std, model.seglen), *others]


def _exported(engine: ExportEngine, task: Task, streaming: Streaming) -> StagedNetwork:
    """Load the stages from the cache, or export them and compare them with the network on a clip."""
    model, settings = task.model, task.model.config.MODEL
    seg_num, seglen, size = clip_sizes(task.section)
    programs: list[StagedNetwork] = []  # one at most: Paddle does not free the memory of further ones

    def program(folder: str) -> StagedNetwork:
        if not programs:
            loaded = [engine.load(f"{folder}/part{number}") for number in range(len(streaming.parts))]
            programs.append(StagedNetwork(streaming, [run for run, _, _ in loaded], size, loaded[0][2]))
        return programs[0]

    def export(folder: str) -> None:
        clips = np.random.RandomState(0).randint(0, 256, (1, seg_num, 3 * seglen, size, size)).astype(np.uint8)
        expected = Network().make(task)(clips)
        layers = layers_from_bytes(streaming, model)
        for number, (layer, shape) in enumerate(zip(layers, input_shapes(streaming, model, clips))):
            engine.write(layer, f"{folder}/part{number}", shape)
            runtime.release_memory()  # before the next step
        check(program(folder)(clips), expected)
        runtime.release_memory()

    layers = [type(layer) for part in streaming.parts for layer in part.sublayers(include_self=True)]
    code = code_of(type(engine), type(model), type(streaming), *layers)
    own = {**model.own_settings(), "seglen": model.seglen, "seg_num": settings.seg_num}
    dependencies = ["parts", code, own, [seg_num, seglen, size], settings.image_mean, settings.image_std]
    return program(cached_export(model.network, dependencies, export, task.digest))


def input_shapes(streaming: Streaming, model: Model, clips: np.ndarray) -> list[Shape]:
    """Shapes of the inputs of the stages for the clips, with the first axis free."""
    shapes: dict[int, Shape] = {}

    def recording(number: int, run: Run) -> Run:
        def recorded(values: np.ndarray) -> np.ndarray:
            shapes[number] = [None, *values.shape[1:]]
            return run(values)

        return recorded

    runs = [recording(number, run) for number, run in enumerate(dygraph_runs(streaming, model))]
    StagedNetwork(streaming, runs, clips.shape[-1], "")(clips)
    return [shapes[number] for number in range(len(runs))]
