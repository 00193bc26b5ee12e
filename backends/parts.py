"""A network in parts, as some engine computes them: for the windows of a long video, and for what each segment adds."""

from __future__ import annotations

import logging
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
import paddle
from paddle import nn

from backends.cache import cached_export
from backends.engines import Dygraph, _fastest_first, check, load_inference, load_onnxruntime
from backends.export import Scorer, Shape, clip_sizes, exportable_network, write_onnx, write_program
from backends.normalizer import Normalizer
from core import runtime
from core.errors import UserError
from models.streaming import Run, Streaming, Windows

if TYPE_CHECKING:
    from core.config import ReaderSection
    from models.model import Model

logger = logging.getLogger("stnet")
_PIXELS_AT_ONCE = 4 * 256 * 256  # of a segment's input: what fills the processor
_MOST_AT_ONCE = 32


class Parts:
    """A network in parts.

    Args:
        streaming: of the model.
        runs: that compute its parts, the first from uint8.
        size: pixels of a segment's side.
        name: for the log.
    """

    def __init__(self, streaming: Streaming, runs: list[Run], size: int, name: str) -> None:
        self.streaming, self.runs, self.name = streaming, runs, name
        segments = max(1, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // size**2))
        self.at_once = [segments] * len(runs)

    def windows(self) -> Windows:
        """Begin with a video."""
        return self.streaming.windows(self.runs, self.at_once)

    def features(self, clips: np.ndarray) -> np.ndarray:
        """Features [B, T, C] of uint8 clips [B, T, 3 * seglen, H, W], each by itself; see models.streaming."""
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


def make_parts(name: str, model: Model, section: ReaderSection) -> Parts:
    """The network of a model in parts, computed by the engine called `name`; see backends.engines.make_engine.

    Raises:
        UserError: the model cannot be cut so, or an engine that was asked for by name does not work here.
    """
    network = exportable_network(model)
    streaming = model.streaming(network)
    if streaming is None:
        raise UserError(f"{model.config.MODEL.name} has no segments: it has no timeline, and no shares of segments")
    for candidate in _fastest_first() if name == "auto" else [name]:
        if candidate == "paddle":
            break
        try:
            parts = _exported(candidate, model, network, streaming, section)
        except Exception as error:  # Paddle, OpenVINO and ONNX Runtime raise types of their own
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            problem = f"engine {candidate} does not work here: {reason}"
            if name != "auto":
                raise UserError(f"{problem}; --engine=paddle always does") from error
            logger.warning("%s; taking the next best", problem)
        else:
            logger.info("engine: %s, in parts", parts.name)
            return parts
    return Parts(streaming, _dygraph(streaming, model), section.target_size, "paddle, in parts")


def _dygraph(streaming: Streaming, model: Model) -> list[Run]:
    settings = model.config.MODEL
    first, *others = streaming.parts
    return [Dygraph(first, Normalizer(settings.image_mean, settings.image_std)), *map(_layer_run, others)]


def _layer_run(layer: nn.Layer) -> Run:
    def run(values: np.ndarray) -> np.ndarray:
        layer.eval()
        with paddle.no_grad():
            return layer(paddle.to_tensor(values)).numpy()

    return run


def _noting(run: Run, shapes: list[Shape], number: int) -> Run:
    """The same, noting of which shape its input is, but for the number of things."""

    def noting(values: np.ndarray) -> np.ndarray:
        shapes[number] = [None, *values.shape[1:]]
        return run(values)

    return noting


def _exported(name: str, model: Model, network: nn.Layer, streaming: Streaming, section: ReaderSection) -> Parts:
    """All parts as one export, compared with the whole network on a clip."""
    settings = model.config.MODEL
    seg_num, seglen, size = clip_sizes(section)
    write, load = {
        "inference": (write_program, load_inference),
        "onnxruntime": (lambda layer, prefix, shape: write_onnx(layer, f"{prefix}.onnx", shape), load_onnxruntime),
    }[name]
    made: list[Parts] = []  # one at most: Paddle keeps the memory of those that are given up

    def parts(folder: str) -> Parts:
        if not made:
            loaded = [load(f"{folder}/part{number}") for number in range(len(streaming.parts))]
            made.append(Parts(streaming, [run for run, _, _ in loaded], size, loaded[0][2]))
        return made[0]

    def export(folder: str) -> None:
        normalize = Normalizer(settings.image_mean, settings.image_std)
        clip = np.random.RandomState(0).randint(0, 256, (1, seg_num, 3 * seglen, size, size)).astype(np.uint8)
        expected = Dygraph(network, normalize)(clip)
        layers = [Scorer(streaming.parts[0], settings.image_mean, settings.image_std, seglen), *streaming.parts[1:]]
        shapes: list[Shape] = [()] * len(layers)
        runs = [_noting(run, shapes, number) for number, run in enumerate(_dygraph(streaming, model))]
        Parts(streaming, runs, size, "")(clip)
        for number, layer in enumerate(layers):
            write(layer, f"{folder}/part{number}", shapes[number])
            runtime.release_memory()
        check(parts(folder)(clip), expected)
        runtime.release_memory()

    dependencies = [name, "parts", seg_num, seglen, size, settings.image_mean, settings.image_std]
    return parts(cached_export(network, dependencies, export))
