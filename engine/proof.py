"""The proof that a network in fewer bits is right: made on the user's clips, kept beside its files, and read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from backends.cache import cached_export, code_of, kept_export
from backends.engines import Loaded, Network, OnnxRuntime, Task
from backends.export import Scorer, clip_sizes, write_onnx
from backends.exported import Exported, check, clips_at_once
from backends.gate import FEWEST, RECORD, Figures, Record, read_record
from backends.precisions import FLOAT32, Reduced
from backends.processor import this_processor
from core import runtime
from core.atomic import write_json
from core.errors import UserError, last_line
from core.files import sha256_of
from core.progress import Progress
from engine.inputs import Source, sources
from reader.loader import build_loader

if TYPE_CHECKING:
    from core.config import Config
    from reader.loader import Loader

logger = logging.getLogger("stnet")
CALIBRATION, GATE = 64, 256  # clips, at most
_SMALLEST_CALIBRATION = 16
_KIND = "precision"  # folder of the weights' cache
_NOT_SCORING = ("labels", "metrics", "topk")  # keys of MODEL


class Clips(NamedTuple):
    """What --calibrate named, cut in two."""

    calibration: list[Source]
    gate: list[Source]
    digest: str


def chosen(path: str, config: Config) -> Clips:
    """Clips for calibration and gate, spread evenly over what `path` names. Raises UserError."""
    videos = list({video.path: video for video in sources(path, config.MODEL.format, scratch="")}.values())
    if len(videos) < 2:
        raise UserError(
            f"{path} names {len(videos)} different clips: at least 2 are needed, {CALIBRATION + FEWEST} are enough"
        )
    count = min(CALIBRATION, max(_SMALLEST_CALIBRATION, len(videos) - FEWEST), len(videos) // 2)
    first = _spread(len(videos), count)
    others = [index for index in range(len(videos)) if index not in first]
    second = [others[place] for place in sorted(_spread(len(others), min(GATE, len(others))))]
    used = [[videos[index] for index in indices] for indices in (sorted(first), second)]
    facts = [[(video.path, video.label, _size_of(video)) for video in part] for part in used]
    return Clips(used[0], used[1], hashlib.sha256(json.dumps(facts).encode()).hexdigest())


def _spread(length: int, count: int) -> set[int]:
    return {index * length // count for index in range(count)}


def _size_of(video: Source) -> int:
    with contextlib.suppress(OSError):
        return os.path.getsize(video.clip.path)
    return -1


class Proof:
    """A network in one number format, kept with its record in the weights' cache."""

    def __init__(self, kind: Reduced, task: Task, config: Config, clips: Clips | None, agreement: float) -> None:
        self.kind, self.task, self.config, self.clips, self.agreement = kind, task, config, clips, agreement
        model = task.model
        code = code_of(
            Reduced,
            type(kind),
            OnnxRuntime,
            Figures,
            type(model),
            *map(type, model.network.sublayers(include_self=True)),
        )
        scoring = config.scoring()
        settings = {name: value for name, value in scoring["MODEL"].items() if name not in _NOT_SCORING}
        self.dependencies = [kind.name, kind.runtimes(), code, settings, scoring["INFER"], list(this_processor())]

    def kept(self) -> str | None:
        """Its folder, if it is there and undamaged."""
        return kept_export(self.task.model.network, self.dependencies, self.task.digest, _KIND)

    def made(self) -> str:
        """Its folder, made if there is none with a record of these clips."""
        network, digest = self.task.model.network, self.task.digest
        return cached_export(network, self.dependencies, self._make, digest, _KIND, self._is_of_these_clips)

    def record(self, folder: str) -> Record | None:
        """The record in a folder, if it is to be believed."""
        try:
            record = read_record(os.path.join(folder, RECORD))
            sha256 = sha256_of(os.path.join(folder, self.kind.file))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            logger.warning("the record in %s is damaged (%s)", folder, last_line(error))
            return None
        foreign = record.foreign(self.kind.runtimes())
        if not foreign and (record.precision, record.sha256) != (self.kind.name, sha256):
            foreign = "another file"
        if foreign:
            logger.warning("the record in %s is of %s: not believed", folder, foreign)
        return None if foreign else record

    def _is_of_these_clips(self, folder: str) -> bool:
        record = self.record(folder)
        return record is not None and self.clips is not None and record.calibration["sha256"] == self.clips.digest

    def _make(self, folder: str) -> None:
        """Write all files of the folder."""
        assert self.clips is not None
        loader = self._loader(self.clips.calibration) if self.kind.calibrated else None
        self._write_float32(f"{folder}/{FLOAT32}")
        if loader is not None:
            with contextlib.closing(_batches(loader, "calibrating")) as batches:
                self.kind.prepare(folder, (clip[None] for _, clips in batches for clip in clips))
            runtime.release_memory()
        gate = _Gate(folder, self.task, self.clips.gate)
        figures, in_float32 = gate.figures(self.kind, self._loader(self.clips.gate)), list[str]()
        if figures.clips >= FEWEST and figures.refusal(self.agreement):
            logger.info("precision %s: %s", self.kind.name, figures.words())
            for in_float32 in self.kind.retreats(folder):
                logger.info("precision %s, but for %s", self.kind.name, ", ".join(in_float32))
                figures = gate.figures(self.kind, self._loader(self.clips.gate))
                logger.info("precision %s: %s", self.kind.name, figures.words())
                if not figures.refusal(self.agreement):
                    break
        calibration = {"clips": len(self.clips.calibration) * self.kind.calibrated, "sha256": self.clips.digest}
        sha256 = sha256_of(f"{folder}/{self.kind.file}")
        runtimes, here = self.kind.runtimes(), this_processor()
        record = Record(self.kind.name, here, runtimes, sha256, calibration, in_float32, figures)
        write_json(f"{folder}/{RECORD}", record.plain())
        if self.kind.file != FLOAT32:
            os.remove(f"{folder}/{FLOAT32}")

    def _write_float32(self, path: str) -> None:
        model, settings = self.task.model, self.task.model.config.MODEL
        seg_num, seglen, size = clip_sizes(self.task.section)
        shape = [None, seg_num, 3 * seglen, size, size]
        write_onnx(Scorer(model.network, settings.image_mean, settings.image_std, seglen), path, shape)
        clips = np.random.RandomState(0).randint(0, 256, (1, *shape[1:])).astype(np.uint8)
        expected = Network().make(self.task)(clips)
        runtime.release_memory()
        check(OnnxRuntime().load(path[: -len(".onnx")])[0](clips), expected)
        runtime.release_memory()

    def _loader(self, videos: Sequence[Source]) -> Loader:
        loader = build_loader(self.config, "infer", clips=[video.clip for video in videos])
        loader.start()  # clips are read while files are made and loaded
        return loader


class _Gate:
    """Compares a folder's files on clips; float32 computes once."""

    def __init__(self, folder: str, task: Task, videos: Sequence[Source]) -> None:
        self.folder, self.task, self.videos = folder, task, videos
        self.expected: dict[int, np.ndarray] = {}  # logits in float32, by clip
        self.seconds_fp32 = 0.0

    def figures(self, kind: Reduced, loader: Loader) -> Figures:
        """What the files give now. Raises UserError: no clip could be read."""
        engines = [loaded(kind.load, self.folder, self.task)]
        if not self.expected:
            engines.append(
                loaded(lambda folder, _: OnnxRuntime().load(f"{folder}/{FLOAT32[:-5]}"), self.folder, self.task)
            )
        seconds: list[list[float]] = [[] for _ in engines]

        found: dict[int, np.ndarray] = {}
        with contextlib.closing(_batches(loader, f"{kind.name} beside fp32")) as batches:
            for indices, clips in batches:
                logits = [_timed(engine, clips, taken) for engine, taken in zip(engines, seconds)]
                for answers, rows in zip((found, self.expected), logits):
                    answers.update(zip(indices, rows))
        runtime.release_memory()
        common = sorted(found.keys() & self.expected.keys())
        if not common:
            raise UserError("none of the clips that are to prove the precision could be read")
        medians = [float(np.median(taken)) for taken in seconds]
        self.seconds_fp32 = medians[-1] if len(medians) > 1 else self.seconds_fp32
        labels = [self.videos[index].label for index in common]
        expected, low = (np.stack([answers[index] for index in common]) for answers in (self.expected, found))
        return Figures.of(expected, low, labels, (self.seconds_fp32, medians[0]))


def _timed(engine: Callable[[np.ndarray], np.ndarray], clips: np.ndarray, taken: list[float]) -> np.ndarray:
    began = time.perf_counter()
    logits = engine(clips)
    taken.append((time.perf_counter() - began) / len(clips))
    return logits


def loaded(load: Callable[[str, Sequence[int]], Loaded], folder: str, task: Task) -> Exported:
    """What `load` gives for a folder and the shape of a task's clips, for any number of these."""
    seg_num, seglen, size = clip_sizes(task.section)
    at_once = min(clips_at_once(task.section), task.clips or task.section.batch_size)
    run, _, name = load(folder, [at_once, seg_num, 3 * seglen, size, size])
    return Exported(run, at_once, name)


def _batches(loader: Loader, what: str) -> Generator[tuple[list[int], np.ndarray], None, None]:
    """Positions and clips of what could be read of each batch; shows progress."""
    progress = Progress(sum(map(len, loader.order.batches(0))), what, len(loader), 10)
    with contextlib.closing(progress), contextlib.closing(loader.epoch()) as batches:
        for batch in batches:
            if batch.indices:
                yield batch.indices, np.asarray(batch.clips)
            progress.update(len(batch.indices))
