"""Static quantisation of an ONNX file to bytes, by ONNX Runtime: per channel, with Q and DQ around each layer."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from stnet import runtime
from stnet.utils.errors import INSTALL_ONNX, UserError

logger = logging.getLogger("stnet")
_LAYERS = ("Conv", "Gemm", "MatMul")
_BETWEEN = ("Add", "GlobalAveragePool", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_OLDEST = (1, 18)  # onnxruntime, whose quantiser takes other arguments before
_PROVIDERS = ["CPUExecutionProvider"]
_LONGEST = 900.0  # seconds of a search for the layers that lose most


class Quantizer:
    """Makes quantised files of one ONNX file whose batch is free.

    Args:
        path: of the ONNX file. Temporary files lie beside it.
        reduced: weights get seven bits, for processors that saturate sums of products of bytes.

    Raises:
        UserError: ONNX Runtime's quantisation is not installed.
    """

    def __init__(self, path: str, reduced: bool) -> None:
        try:
            import onnx
            import onnxruntime
            import onnxruntime.quantization as quantization
        except ImportError as error:
            raise UserError(f"int8 needs onnx, onnxruntime and ml_dtypes ({error})", INSTALL_ONNX) from None
        version = onnxruntime.__version__
        if tuple(map(int, version.split(".")[:2])) < _OLDEST:
            raise UserError(
                f"int8 needs onnxruntime {'.'.join(map(str, _OLDEST))} or later, found {version}", INSTALL_ONNX
            )
        self.onnx, self.runtime, self.tools, self.reduced = onnx, onnxruntime, quantization, reduced
        self.path, self.folder = path, os.path.dirname(path)
        self.clips = 0  # that it was calibrated with
        self.ranges: Any = None
        self.kept: list[np.ndarray] = []  # some of the clips

    def calibrate(self, clips: Iterator[np.ndarray]) -> None:
        """Note the smallest and the largest value of every tensor over clips uint8 [1, T, 3 * seglen, H, W]."""
        first = next(clips, None)
        if first is None:
            raise UserError("none of the clips to calibrate with could be read")
        clips, model = itertools.chain([first], clips), self._folded()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            self.onnx.save(model, f"{folder}/folded.onnx")
            augmented = f"{folder}/augmented.onnx"
            with _temporary_files_in(folder):
                calibrator = self.tools.MinMaxCalibrater(f"{folder}/folded.onnx", augmented_model_path=augmented)
            calibrator.augment_graph()
            options = self._options()  # as calibrator.create_inference_session, but for the order
            options.graph_optimization_level = self.runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            # Each tensor's extremes are taken at once, and not when all is done, until when all would be held.
            options.execution_order = self.runtime.ExecutionOrder.PRIORITY_BASED
            calibrator.infer_session = self.runtime.InferenceSession(augmented, options, providers=_PROVIDERS)
            calibrator.collect_data(_Reader(model.graph.input[0].name, self._keeping(clips)))
            self.ranges = calibrator.compute_data()

    def _keeping(self, clips: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for number, clip in enumerate(clips):
            self.clips = number + 1
            if number in (0, 1, 4, 16):  # enough to tell layers apart
                self.kept.append(clip)
            yield clip

    def write(self, path: str, in_float32: Sequence[str] = ()) -> None:
        """Write the quantised file, but for some layers."""
        self.onnx.save(self._quantised(in_float32, []), path)

    def layers(self) -> list[str]:
        """Names of all layers that can be quantised, in order."""
        return [node.name for node in self._folded().graph.node if node.op_type in _LAYERS]

    def worst_first(self) -> list[str]:
        """The layers, by how far the logits of some clips move if a layer alone is quantised."""
        run = self._session(self._folded())
        kept = [(clip, run(clip)) for clip in self.kept]
        names, began = self.layers(), time.monotonic()
        losses: dict[str, float] = {}
        for number, name in enumerate(names, start=1):
            run = self._session(self._quantised([], [name]))
            losses[name] = max(_distance(run(clip), logits) for clip, logits in kept)
            late = time.monotonic() - began > _LONGEST
            if number % 10 == 0 or number == len(names) or late:
                logger.info("quantised alone: %d of %d layers%s", number, len(names), ", as time is up" if late else "")
            if late:
                break
        return sorted(losses, key=lambda name: -losses[name])

    def _folded(self) -> Any:
        return self.onnx.ModelProto.FromString(self._bytes)  # a new one: quantising changes it

    @functools.cached_property
    def _bytes(self) -> bytes:
        """The model with its batch norms folded into convolutions, and no constants left to compute."""
        options = self._options()
        options.graph_optimization_level = self.runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            options.optimized_model_filepath = f"{folder}/folded.onnx"
            self.runtime.InferenceSession(self.path, options, providers=_PROVIDERS)
            self.onnx.shape_inference.infer_shapes_path(f"{folder}/folded.onnx")
            with open(f"{folder}/folded.onnx", "rb") as file:
                return file.read()

    def _quantised(self, in_float32: Sequence[str], alone: Sequence[str]) -> Any:
        kinds, model = self.tools.QuantType, self._folded()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder, _temporary_files_in(folder):
            quantizer = self.tools.QDQQuantizer(
                model, True, self.reduced, kinds.QInt8, kinds.QUInt8, self.ranges, list(alone),
                _with_neighbours(model, in_float32), [*_LAYERS, *_BETWEEN], {},
            )  # fmt: skip
            quantizer.quantize_model()
        return quantizer.model.model

    def _options(self) -> Any:
        options = self.runtime.SessionOptions()
        options.intra_op_num_threads = runtime.threads()
        options.log_severity_level = 3  # errors
        return options

    def _session(self, model: Any) -> Any:
        session = self.runtime.InferenceSession(model.SerializeToString(), self._options(), providers=_PROVIDERS)
        name = session.get_inputs()[0].name
        return lambda clip: session.run(None, {name: clip})[0]


class _Reader:
    """Clips in the form that calibration asks for."""

    def __init__(self, name: str, clips: Iterator[np.ndarray]) -> None:
        self.name, self.clips = name, clips

    def get_next(self) -> dict[str, np.ndarray] | None:
        clip = next(self.clips, None)
        return None if clip is None else {self.name: clip}


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """ONNX Runtime's tools write files of their own, which whoever is killed would leave in the system's folder."""
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before


def _with_neighbours(model: Any, names: Iterable[str]) -> list[str]:
    """Layers, with the operators beside them: each would quantise their tensors just as well."""
    layers = [node for node in model.graph.node if node.name in set(names)]
    tensors = {tensor for node in layers for tensor in (node.input[0], *node.output)}
    beside = [
        node.name for node in model.graph.node if node.op_type not in _LAYERS and tensors & {*node.input, *node.output}
    ]
    return [*(node.name for node in layers), *beside]


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.sqrt(np.mean((found - expected) ** 2)))
