"""Calibration: the user's clips, read ahead, and static int8 quantization of an ONNX file by ONNX Runtime.

Quantization is per channel, with Q and DQ around each layer.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import math
import os
import tempfile
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stnet import runtime
from stnet.quantize.report import FEWEST
from stnet.reader.loader import build_loader
from stnet.reader.sources import Source, sources
from stnet.utils.errors import INSTALL_ONNX, UserError
from stnet.utils.files import sha256_of
from stnet.utils.progress import Progress

if TYPE_CHECKING:
    from stnet.config import Config

logger = logging.getLogger("stnet")
_CALIBRATION, _COMPARISON = 64, 256  # clips, at most
_SMALLEST_CALIBRATION = 16  # clips
_LAYERS = ("Conv", "Gemm", "MatMul")
_BETWEEN = ("Add", "GlobalAveragePool", "MaxPool", "Relu", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
_OLDEST = (1, 18)  # onnxruntime; the quantizer of earlier versions takes other arguments
_PROVIDERS = ["CPUExecutionProvider"]
_LONGEST = 900.0  # seconds to search for the layers that lose most


class Clips(NamedTuple):
    """Clips that --calibrate names, in three disjoint sets."""

    calibration: list[Source]
    comparison: list[Source]  # with float32
    spare: list[Source]  # replace clips that cannot be read
    digest: str


def chosen(path: str, config: Config) -> Clips:
    """Choose clips for calibration and comparison, spread evenly over what `path` names. Raises UserError."""
    videos = list({video.path: video for video in sources(path, config.MODEL.format, scratch="")}.values())
    if len(videos) < 2:
        raise UserError(
            f"{path} names {len(videos)} different clips: at least 2 are needed, {_CALIBRATION + FEWEST} are enough"
        )
    count = min(_CALIBRATION, max(_SMALLEST_CALIBRATION, len(videos) - FEWEST), len(videos) // 2)
    calibration, others = _spread(videos, count)
    comparison, spare = _spread(others, min(_COMPARISON, len(others)))
    facts = [[(video.path, video.label, _content(video)) for video in part] for part in (calibration, comparison)]
    rest = [(video.path, video.label, _size(video)) for video in spare]
    return Clips(calibration, comparison, spare, hashlib.sha256(json.dumps([*facts, rest]).encode()).hexdigest())


def _spread(videos: list[Source], count: int) -> tuple[list[Source], list[Source]]:
    """Split videos into `count` that are spread evenly, and the others; both in order."""
    taken = {index * len(videos) // count for index in range(count)}
    return [videos[i] for i in sorted(taken)], [video for i, video in enumerate(videos) if i not in taken]


def _content(video: Source) -> str:
    with contextlib.suppress(OSError):
        return sha256_of(video.clip.path)
    return ""


def _size(video: Source) -> int:
    with contextlib.suppress(OSError):
        return os.path.getsize(video.clip.path)
    return -1


class Reading:
    """Reads clips ahead, and a spare one for each that cannot be read.

    Args:
        spare: further clips; those that were tried are removed from the list.
    """

    def __init__(self, config: Config, videos: Sequence[Source], spare: list[Source]) -> None:
        self.videos, self.count, self.spare = [*videos, *spare], len(videos), spare
        self.loader = build_loader(config, "infer", clips=[video.clip for video in self.videos])
        self.loader.start()

    def batches(self, what: str) -> Generator[tuple[list[Source], np.ndarray], None, None]:
        """Yield the readable clips and their frames, uint8 [B, T, 3 * seglen, H, W]. `what`: words for the progress."""
        batch_size = self.loader.order.batch_size
        progress = Progress(self.count, what, math.ceil(self.count / batch_size), 10)
        missing, tried = self.count, 0
        try:
            with contextlib.closing(progress), contextlib.closing(self.loader.epoch()) as batches:
                for batch in batches:
                    used = batch.indices[:missing]
                    missing, tried = missing - len(used), tried + batch_size
                    if used:
                        tried = tried if missing else used[-1] + 1
                        yield [self.videos[index] for index in used], np.asarray(batch.clips)[: len(used)]
                    progress.update(len(used))
                    if not missing:
                        break
        finally:
            del self.spare[: max(0, tried - self.count)]


class Quantizer:
    """Makes int8 files from an ONNX file with a free batch size.

    Args:
        path: of the ONNX file. Temporary files are written next to it.
        reduced: give weights seven bits, for processors that saturate sums of products of bytes.

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
        self.clips = 0  # used to calibrate
        self.ranges: Any = None
        self.samples: list[np.ndarray] = []  # some of the clips

    def calibrate(self, clips: Iterator[np.ndarray]) -> None:
        """Find the range of every tensor over clips, uint8 [1, T, 3 * seglen, H, W]."""
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
            # Reduce each tensor to its range as soon as it is computed: the default order holds all of them.
            options.execution_order = self.runtime.ExecutionOrder.PRIORITY_BASED
            calibrator.infer_session = self.runtime.InferenceSession(augmented, options, providers=_PROVIDERS)
            calibrator.collect_data(_Reader(model.graph.input[0].name, self._sampled(clips)))
            self.ranges = calibrator.compute_data()

    def _sampled(self, clips: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        for number, clip in enumerate(clips):
            self.clips = number + 1
            if number in (0, 1, 4, 16):  # enough to rank the layers
                self.samples.append(clip)
            yield clip

    def write(self, path: str, in_float32: Sequence[str] = ()) -> None:
        """Write the int8 file with some layers left in float32."""
        self.onnx.save(self._quantized(in_float32, []), path)

    def layers(self) -> list[str]:
        """Names of all layers that can be quantized, in order."""
        return [node.name for node in self._folded().graph.node if node.op_type in _LAYERS]

    def worst_first(self) -> list[str]:
        """Layers by the change of the logits when one alone is quantized, the largest change first."""
        run = self._session(self._folded())
        expected = [(clip, run(clip)) for clip in self.samples]
        names, began = self.layers(), time.monotonic()
        losses: dict[str, float] = {}
        for number, name in enumerate(names, start=1):
            run = self._session(self._quantized([], [name]))
            losses[name] = max(_distance(run(clip), logits) for clip, logits in expected)
            late = time.monotonic() - began > _LONGEST
            if number % 10 == 0 or number == len(names) or late:
                logger.info("quantised alone: %d of %d layers%s", number, len(names), ", as time is up" if late else "")
            if late:
                break
        return sorted(losses, key=lambda name: -losses[name])

    def _folded(self) -> Any:
        return self.onnx.ModelProto.FromString(self._bytes)  # a copy: quantizing changes it

    @functools.cached_property
    def _bytes(self) -> bytes:
        """The model with batch norms folded into convolutions, and constants computed."""
        options = self._options()
        options.graph_optimization_level = self.runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            options.optimized_model_filepath = f"{folder}/folded.onnx"
            self.runtime.InferenceSession(self.path, options, providers=_PROVIDERS)
            self.onnx.shape_inference.infer_shapes_path(f"{folder}/folded.onnx")
            with open(f"{folder}/folded.onnx", "rb") as file:
                return file.read()

    def _quantized(self, in_float32: Sequence[str], alone: Sequence[str]) -> Any:
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
    """Adapts an iterator of clips to ONNX Runtime's CalibrationDataReader."""

    def __init__(self, name: str, clips: Iterator[np.ndarray]) -> None:
        self.name, self.clips = name, clips

    def get_next(self) -> dict[str, np.ndarray] | None:
        clip = next(self.clips, None)
        return None if clip is None else {self.name: clip}


@contextlib.contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Keep the temporary files of ONNX Runtime's tools in `folder`, so that a killed process leaves none elsewhere."""
    before, tempfile.tempdir = tempfile.tempdir, folder
    try:
        yield
    finally:
        tempfile.tempdir = before


def _with_neighbours(model: Any, names: Iterable[str]) -> list[str]:
    """Layers and the operators around them, which would quantize the same tensors."""
    names = set(names)
    layers = [node for node in model.graph.node if node.name in names]
    tensors = {tensor for node in layers for tensor in (node.input[0], *node.output)}
    others = (node for node in model.graph.node if node.op_type not in _LAYERS)
    neighbours = [node.name for node in others if tensors & {*node.input, *node.output}]
    return [*(node.name for node in layers), *neighbours]


def _distance(found: np.ndarray, expected: np.ndarray) -> float:
    if not np.isfinite(found).all():
        return float("inf")
    return float(np.sqrt(np.mean((found - expected) ** 2)))
