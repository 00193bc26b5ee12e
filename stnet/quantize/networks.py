"""Low-precision networks: whole for clips, or in stages for timelines."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Union

import numpy as np

from stnet import runtime
from stnet.backends.engines import Network, OnnxRuntime, Run, Task, make_engine
from stnet.backends.exported import Exported, check, clips_at_once
from stnet.backends.program import Scorer, Shape, clip_sizes, write_onnx
from stnet.backends.stages import StagedNetwork, build_stages, dygraph_runs, input_shapes, layers_from_bytes
from stnet.quantize.formats import FLOAT32, LowPrecisionFormat
from stnet.utils.errors import UserError, last_line
from stnet.utils.files import sha256_of

if TYPE_CHECKING:
    from stnet.backends.engines import Compute

Clips = Callable[[], Iterator[np.ndarray]]  # reads the clips once, each uint8 [1, T, 3 * seglen, H, W]


class WholeNetwork:
    """A network in one file of a folder, from clips to logits.

    Attributes:
        kind: the format.
        what: words for messages; "" for the whole network.
        facts: plain data for the cache key.
        made_by: classes, besides the network's, on whose code the files and their logits depend.
        at_once: clips that fill the processor.
    """

    what = ""
    facts: list[str] = []

    def __init__(self, kind: LowPrecisionFormat, task: Task) -> None:
        self.kind, self.task = kind, task
        self.made_by: list[type] = [WholeNetwork]
        self.at_once = min(clips_at_once(task.section), task.clips or task.section.batch_size)

    def write_float32(self, folder: str) -> None:
        """Write FLOAT32, and compare it with the network. Raises UserError."""
        model, settings = self.task.model, self.task.model.config.MODEL
        clip, path = _random_clip(self.task), f"{folder}/{FLOAT32}"
        scorer = Scorer(model.network, settings.image_mean, settings.image_std, model.seglen)
        write_onnx(scorer, path, [None, *clip.shape[1:]])
        expected = Network().make(self.task)(clip)
        runtime.release_memory()
        check(_in_float32(folder)(clip), expected)
        runtime.release_memory()

    def prepare(self, folder: str, clips: Clips) -> int:
        """Calibrate, and write the file. Returns the number of clips."""
        return self.kind.prepare(folder, clips())

    def fp32_layers(self, folder: str) -> Iterator[list[str]]:
        """Rewrite the file as LowPrecisionFormat.fp32_layers."""
        return self.kind.fp32_layers(folder)

    def finish(self, folder: str) -> None:
        """Remove FLOAT32 unless it is the file that computes."""
        _finish(self.kind, folder)

    def sha256(self, folder: str) -> str:
        """Digest of the file."""
        return sha256_of(f"{folder}/{self.kind.file}")

    def load(self, folder: str) -> Exported:
        """Load the file; it takes any number of clips."""
        seg_num, seglen, size = clip_sizes(self.task.section)
        run, _, name = self.kind.load(folder, [self.at_once, seg_num, 3 * seglen, size, size])
        return Exported(run, self.at_once, name)

    def float32(self) -> Compute:
        """Make the engine that `auto` takes."""
        task = self.task
        return make_engine("auto", task.model, task.section, task.clips, task.digest)


class StagedLowPrecision:
    """The stages of a network, each in a folder of its own, but for the last, the head, which stays in float32.

    Raises:
        UserError: the model has no stages.
    """

    what = " of timelines"
    facts = ["parts"]

    def __init__(self, kind: LowPrecisionFormat, task: Task) -> None:
        streaming = task.model.streaming()
        if streaming is None:
            raise UserError(f"{task.model.config.MODEL.name} has no segments: it has no timeline")
        self.task, self.streaming, self.kind = task, streaming, kind
        self.kinds = [type(kind)() for _ in streaming.parts[:-1]]
        layers = [type(layer) for part in streaming.parts for layer in part.sublayers(include_self=True)]
        self.made_by: list[type] = [StagedLowPrecision, StagedNetwork, type(streaming), *layers]
        seg_num, _, self.size = clip_sizes(task.section)
        self.at_once = max(1, StagedNetwork(streaming, [lambda values: values], self.size, "").at_once[0] // seg_num)

    def write_float32(self, folder: str) -> None:
        """Write FLOAT32 of each stage, and compare them with the network. Raises UserError."""
        clip = _random_clip(self.task)
        expected = Network().make(self.task)(clip)
        layers = layers_from_bytes(self.streaming, self.task.model)
        for part, layer, shape in zip(self._folders(folder), layers, self._shapes()):
            os.mkdir(part)
            try:
                write_onnx(layer, f"{part}/{FLOAT32}", shape)
            except UserError:
                raise
            except Exception as error:  # paddle2onnx has exceptions of its own
                name = self.task.model.config.MODEL.name
                raise UserError(f"the parts of {name} cannot be written as ONNX ({last_line(error)})") from None
            runtime.release_memory()
        check(self._parts(self._float32_runs(folder), "")(clip), expected)
        runtime.release_memory()

    def prepare(self, folder: str, clips: Clips) -> int:
        """Calibrate each stage on its inputs in float32, and write the files. Returns the number of clips."""
        count = 0
        for number, (kind, part) in enumerate(zip(self.kinds, self._folders(folder))):
            counted = itertools.count()
            read = (clip for clip, _ in zip(clips(), counted))
            kind.prepare(part, self._inputs(number, folder, read))
            count = next(counted)
            runtime.release_memory()
        return count

    def _inputs(self, number: int, folder: str, clips: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """Inputs of a stage for clips, batch by batch."""
        taken: list[np.ndarray] = []
        runs = self._float32_runs(folder)
        run = runs[number]

        def recorded(values: np.ndarray) -> np.ndarray:
            taken.append(values)
            return run(values)

        runs[number] = recorded
        parts = self._parts(runs, "")
        for clip in clips:
            parts.features(clip)
            yield from taken
            taken.clear()

    def fp32_layers(self, folder: str) -> Iterator[list[str]]:
        """Keep the same share of each stage's layers in float32."""
        parts = self._folders(folder)
        for names in zip(*(kind.fp32_layers(part) for kind, part in zip(self.kinds, parts))):
            yield [f"part{number}: {name}" for number, some in enumerate(names) for name in some]

    def finish(self, folder: str) -> None:
        """Remove each FLOAT32 unless it is the file that computes."""
        for kind, part in zip(self.kinds, self._folders(folder)):
            _finish(kind, part)

    def sha256(self, folder: str) -> str:
        """Digest of the digests of all files."""
        digests = [sha256_of(f"{part}/{self.kind.file}") for part in self._folders(folder)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def load(self, folder: str) -> StagedNetwork:
        """Load the stages; they take any number of segments."""
        shapes = [[-1 if size is None else size for size in shape] for shape in self._shapes()]  # -1: any number
        loaded = [kind.load(part, shape) for kind, part, shape in zip(self.kinds, self._folders(folder), shapes)]
        return self._parts([*(run for run, _, _ in loaded), self._head()], loaded[0][2])

    def float32(self) -> Compute:
        """Make the stages by the engine that `auto` takes."""
        return build_stages("auto", self.task.model, self.task.section, self.task.digest)

    def _folders(self, folder: str) -> list[str]:
        return [f"{folder}/part{number}" for number in range(len(self.kinds))]

    def _shapes(self) -> list[Shape]:
        return input_shapes(self.streaming, self.task.model, _random_clip(self.task))

    def _float32_runs(self, folder: str) -> list[Run]:
        return [*map(_in_float32, self._folders(folder)), self._head()]

    def _head(self) -> Run:
        return dygraph_runs(self.streaming, self.task.model)[-1]

    def _parts(self, runs: list[Run], name: str) -> StagedNetwork:
        return StagedNetwork(self.streaming, runs, self.size, name)


LowPrecisionNetwork = Union[WholeNetwork, StagedLowPrecision]


def _random_clip(task: Task) -> np.ndarray:
    seg_num, seglen, size = clip_sizes(task.section)
    return np.random.RandomState(0).randint(0, 256, (1, seg_num, 3 * seglen, size, size)).astype(np.uint8)


def _in_float32(folder: str) -> Run:
    return OnnxRuntime().load(f"{folder}/{FLOAT32}"[: -len(".onnx")])[0]


def _finish(kind: LowPrecisionFormat, folder: str) -> None:
    if kind.file != FLOAT32:
        os.remove(f"{folder}/{FLOAT32}")
