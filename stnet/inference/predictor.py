"""Predictor: classes, features, timelines and explanations of videos."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import tempfile
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stnet import runtime
from stnet.config import Config, load_config
from stnet.inference.result import Result
from stnet.metrics.probabilities import softmax
from stnet.quantize.report import Precision, ValidationReport
from stnet.reader.formats import VIDEO
from stnet.reader.order import EpochOrder
from stnet.reader.sources import Input, Source, format_of, loader_of, read_again, sources
from stnet.utils.errors import USE_PADDLE, UserError
from stnet.utils.files import StrPath, stem_of
from stnet.weights.labels import labels_for
from stnet.weights.metadata import saved_config

if TYPE_CHECKING:
    from stnet.backends.embedder import Embed
    from stnet.backends.engines import Compute
    from stnet.backends.parts import StagedNetwork
    from stnet.inference.explain import Explanation
    from stnet.inference.features import Features
    from stnet.models.dygraph import Clips
    from stnet.models.model import Model
    from stnet.reader.clip import Clip
    from stnet.reader.loader import Loader
    from stnet.timeline.events import Events

_TAKE_WEIGHTS = "take the weights that it was made of"
RELEASED_CONFIG = "configs/stnet.yaml"  # of the released weights
_MADE = ("_made", "engine", "_embedder", "_parts", "_timeline_made")  # attributes that hold threads or locks
_PREDICTORS: weakref.WeakSet[Predictor] = weakref.WeakSet()
DEVICES: dict[str, bool | Literal["auto"]] = {"auto": "auto", "cpu": False, "gpu": True}


class Predictor:
    """A model that predicts the classes of videos.

    Args:
        weights: a .pdparams file, or weights in another known format; a folder that `inference` wrote; empty: the
            released StNet, downloaded if missing.
        config: a configuration, or a YAML file, relative to the working directory or to the project; default: the one
            saved with the weights, or configs/stnet.yaml.
        engine: name of one of stnet.backends.engines.ENGINES; "auto" for a folder.
        device: "cpu", "gpu", or "auto": the GPU if one works; None: the device of stnet.runtime.start.
        topk: classes in a result, at most all; None: MODEL.topk of the configuration.
        mode: "test": clips by section TEST of the configuration, one view of each, instead of INFER.
        clips: number of all videos, if known.
        precision: "fp32", "bf16", "int8" or "auto"; or a stnet.quantize.report.Precision, with clips to validate it.

    Attributes:
        config, labels: of the weights.
        weights: absolute path of the weights.
        digest: SHA-256 of the weights.

    Raises:
        UserError: configuration, labels, weights or engine do not exist, or do not fit each other.
    """

    model: Model | None = None  # None for an export
    precision = "fp32"  # as requested
    engine_name = "auto"
    _wanted = Precision()
    _parts: StagedNetwork | None = None
    _make_engine: Callable[[], tuple[Compute, ValidationReport | None]]

    def __init__(
        self,
        weights: StrPath = "",
        config: Config | StrPath | None = None,
        engine: str = "auto",
        device: str | None = "auto",
        topk: int | None = 5,
        *,
        mode: str = "infer",
        clips: int | None = None,
        precision: str | Precision = "fp32",
    ) -> None:
        if device not in (*DEVICES, None):
            raise UserError(f"device {device!r}: expected one of {', '.join(DEVICES)}")
        if topk is not None and (type(topk) is not int or topk < 1):
            raise UserError(f"topk: expected a whole number of at least 1, found {topk!r:.40}")
        runtime.prepare()
        if device is not None:
            runtime.start(DEVICES[device])
        from stnet.export.deployed import is_deployed

        if is_deployed(weights):
            self._use_export(os.fspath(weights), engine, precision)
        else:
            self._use_weights(os.fspath(weights), config, engine, mode, clips, precision)
        self.topk = min(topk or self.config.MODEL.topk, self.config.MODEL.num_classes)
        _PREDICTORS.add(self)

    def _use_export(self, folder: str, engine: str, precision: str | Precision) -> None:
        from stnet.export.deployed import load_deployed
        from stnet.quantize.run import as_precision

        if engine != "auto":
            raise UserError(f"{folder} runs by what it was written for: engine {engine} cannot be had")
        wanted = as_precision(precision, "auto")
        deployed = load_deployed(folder)
        if wanted.name not in ("fp32", "auto", deployed.precision):
            raise UserError(f"{folder} was written in {deployed.precision}: precision {wanted.name} cannot be had")
        if wanted.calibrate:
            raise UserError(f"{folder} runs as it was written: nothing is calibrated")
        self.config, self.labels, self.digest = deployed.config, deployed.labels, deployed.sha256
        maker = os.getpid()
        self._make_engine = lambda: ((deployed if os.getpid() == maker else load_deployed(folder)).engine, None)
        self.weights = os.path.abspath(folder)

    def _use_weights(
        self,
        weights: str,
        config: Config | StrPath | None,
        engine: str,
        mode: str,
        clips: int | None,
        precision: str | Precision,
    ) -> None:
        from stnet.backends.engines import ENGINES, Task
        from stnet.models import model_section
        from stnet.quantize.run import as_precision, computing
        from stnet.weights.loading import load_model

        ENGINES.get(engine)  # refuse an unknown name first
        wanted = as_precision(precision, engine)
        if config is None:
            config = load_config(saved_config(weights) or RELEASED_CONFIG, model_section)
        elif not isinstance(config, Config):
            config = load_config(os.fspath(config), model_section)
        self.labels = labels_for(config.MODEL.labels, config.MODEL.num_classes, weights)
        model, self.weights, self.digest = load_model(config, mode, weights, self.labels)
        if mode == "test":
            sizes = ("short_size", "target_size", "seg_num", "batch_size")
            infer = dataclasses.replace(config.INFER, **{name: getattr(config.TEST, name) for name in sizes})
            config = dataclasses.replace(config, INFER=infer)
        self.config, self.model, self.engine_name = config, model, engine
        self._wanted, self.precision = wanted, wanted.name
        clips = clips and clips * config.section(mode).views
        task = Task(model, config.section("infer"), clips, self.digest)
        self._make_engine = lambda: computing(task, self.config, self._wanted, engine)

    def set_precision(self, precision: str) -> None:
        """Use the precision that another process has chosen."""
        made = vars(self).get("_made")
        if made is None or (made[1].precision if made[1] else "fp32") != precision:
            for name in ("_made", "engine"):
                vars(self).pop(name, None)
            self.precision, self._wanted = precision, self._wanted._replace(name=precision, calibrate="")

    @functools.cached_property
    def engine(self) -> Compute:
        """Function from uint8 clips [B, seg_num, 3 * seglen, H, W] to logits. Raises UserError."""
        return self._made[0]

    @property
    def proof(self) -> ValidationReport | None:
        """Validation report of the precision in use; None: fp32. Raises UserError."""
        return None if self.precision == "fp32" else self._made[1]

    @functools.cached_property
    def _made(self) -> tuple[Compute, ValidationReport | None]:
        return self._make_engine()

    def predict(self, inputs: Input | Iterable[Input]) -> Generator[Result, None, None]:
        """Yield the results of videos, in order; workers read ahead.

        Args:
            inputs: one or several of: the path of a video; a folder of videos; a glob; a list file (.list, .txt); the
                bytes of a file; frames, uint8 [T, H, W, 3] RGB. A result reads them again for a picture or an
                explanation.

        Raises:
            UserError: an empty folder, a glob without a match, a list that cannot be read, or an invalid input. A video
                that cannot be read gives a result with an error instead.
        """
        with tempfile.TemporaryDirectory(prefix="stnet-") as scratch:
            videos = sources(inputs, self.config.MODEL.format, scratch)
            if videos:
                runtime.start_thread()
                yield from self.results(videos, self.loader(videos))

    def loader(self, videos: Sequence[Source]) -> Loader:
        """Make a loader of videos for `results`."""
        return loader_of(self.config, videos)

    def results(
        self, videos: Sequence[Source], loader: Loader, log_interval: int = 10
    ) -> Generator[Result, None, None]:
        """Yield results as `predict`, for videos of `stnet.reader.sources.sources` and their loader."""
        from stnet.evaluation.loop import rows_of

        with contextlib.closing(rows_of(self.engine, loader, "predict", log_interval, self._probabilities)) as rows:
            for index, row, reason in rows:
                video = videos[index]
                if row is None:
                    yield Result(video.path, label=video.label, error=reason)
                else:
                    yield self._result(row, functools.partial(read_again, video, self.config), video.path, video.label)

    def results_of(self, clips: Sequence[Clip], topk: int | None = None) -> list[Result]:
        """Compute the results of decoded clips as one batch; pictures and explanations do not read them again.

        Args:
            clips: of stnet.reader.clip.read_clip, by section INFER.
            topk: classes in a result, at most all; None: the predictor's.
        """
        from stnet.evaluation.loop import logits_of
        from stnet.reader.transforms import to_super_images

        pixels = np.stack([to_super_images(clip.frames, len(clip.segments)) for clip in clips])
        logits = logits_of(self.engine, pixels, self.config.INFER.views, self.order.computed_at_once)
        rows = zip(self._probabilities(logits), clips)
        return [self._result(row, lambda clip=clip: clip, topk=topk) for row, clip in rows]  # type: ignore[misc]

    @functools.cached_property
    def order(self) -> EpochOrder:
        """Order of an evaluation, with the number of clips and views that are computed together."""
        return EpochOrder(1, self.config.INFER.batch_size, False, views=self.config.INFER.views)

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        if len(logits) and (logits.shape[1:] != (len(self.labels),) or not np.isfinite(logits).all()):
            raise UserError(f"the engine gave no logits of {len(self.labels)} classes", USE_PADDLE)
        return softmax(logits)

    def features(self, inputs: Input | Iterable[Input]) -> Generator[Features, None, None]:
        """Yield features of videos, in order; inputs as `predict`.

        Raises:
            UserError: as `predict`; or the model has no features, or is an export.
        """
        with tempfile.TemporaryDirectory(prefix="stnet-") as scratch:
            videos = sources(inputs, self.config.MODEL.format, scratch)
            if videos:
                runtime.start_thread()
                yield from self.features_of(videos, self.loader(videos))

    def features_of(
        self, videos: Sequence[Source], loader: Loader, log_interval: int = 10
    ) -> Generator[Features, None, None]:
        """Yield features as `features`, for videos of `stnet.reader.sources.sources` and their loader."""
        from stnet.evaluation.loop import rows_of
        from stnet.inference.features import Features

        embedder = self._embedder  # raises before anything is computed

        def embed(clips: Clips) -> Any:
            return list(zip(*embedder(clips)))

        def finite(pairs: Any) -> Any:
            if not all(np.isfinite(array).all() for pair in pairs for array in pair):
                raise UserError("the engine gave features that are no finite numbers", USE_PADDLE)
            return pairs

        with contextlib.closing(rows_of(embed, loader, "features", log_interval, finite)) as rows:
            for index, row, reason in rows:
                found = {} if row is None else {"segments": row[0], "clip": row[1]}
                yield Features(videos[index].path, label=videos[index].label, error=reason, **found)

    @functools.cached_property
    def _embedder(self) -> Embed:
        from stnet.backends.embedder import make_embedder

        if self.model is None:
            raise UserError("an export gives classes alone, and no features", _TAKE_WEIGHTS)
        return make_embedder(self.engine_name, self.model, self.config.section("infer"), self.digest)

    def check_parts(self) -> None:
        """Raise UserError where the model has no stages: it has no segments, or is an export."""
        if self.model is None:
            raise UserError("an export does not show its segments: it has no timeline, and no shares", _TAKE_WEIGHTS)
        if self.model.streaming() is None:
            name = self.config.MODEL.name
            raise UserError(f"{name} has no segments: it has no timeline, and no shares of segments")

    def check_reasons(self) -> None:
        """Raise UserError where there are no explanations: as `check_parts`, or in low precision."""
        self.check_parts()
        if self.precision not in ("fp32", "auto"):
            raise UserError(f"reasons are computed in fp32, not in {self.precision}")

    def parts(self) -> StagedNetwork:
        """Make the model's stages, once, by its engine, in float32. Raises as `check_parts`."""
        from stnet.backends.parts import build_stages

        self.check_parts()
        assert self.model is not None
        if self._parts is None:
            self._parts = build_stages(self.engine_name, self.model, self.config.section("infer"), self.digest)
        return self._parts

    def timeline_parts(self) -> StagedNetwork:
        """Make the model's stages in the requested precision. Raises as `check_parts`, or the precision is refused."""
        return self._timeline_made[0]

    @property
    def timeline_proof(self) -> ValidationReport | None:
        """Validation report of the precision of timelines; None: fp32. Raises UserError."""
        return self._timeline_made[1]

    @functools.cached_property
    def _timeline_made(self) -> tuple[StagedNetwork, ValidationReport | None]:
        from stnet.backends.engines import Task
        from stnet.backends.parts import StagedNetwork
        from stnet.quantize.networks import NetworkInParts
        from stnet.quantize.run import choose

        self.check_parts()
        assert self.model is not None
        task = Task(self.model, self.config.section("infer"), digest=self.digest)
        validated = choose(task, self.config, self._wanted, self.engine_name, NetworkInParts)
        if validated is None:
            return self.parts(), None
        assert isinstance(validated.engine, StagedNetwork)
        return validated.engine, validated.record

    def timeline(self, path: StrPath, name: StrPath, **settings: Any) -> Events:
        """Find the events of a long video; writes NAME.events.csv and the other files of a timeline.

        Args:
            path: the video.
            name: path without suffix of the files; or a folder, in which they are named after the video.
            settings: window, stride, threshold, hold, shortest, render, overwrite: as predict's flags.

        Raises:
            UserError: the video cannot be read, a file cannot be written, or a setting is invalid; as `timeline_parts`.
        """
        from stnet.timeline.run import Settings, make_timeline

        if format_of(os.fspath(path), self.config.MODEL.format).lower() != VIDEO:
            raise UserError(
                f"{path}: a timeline is of a video, not of what MODEL.format {self.config.MODEL.format} says"
            )
        name = os.fspath(name)
        if os.path.isdir(name) or name.endswith(("/", os.sep)):
            name = os.path.join(name, stem_of(path))
        runtime.start_thread()
        parts = self.timeline_parts()
        events = make_timeline(parts, os.fspath(path), self.config, self.labels, name, Settings(**settings))
        named = [event.named(self.labels[event.class_id]) for event in events]
        return type(events)(named, events.highest)

    def _explain(self, path: str, clip: Clip, class_ids: Sequence[int], grid: int) -> Explanation:
        from stnet.inference.explain import explain
        from stnet.reader.transforms import to_super_images

        self.check_reasons()
        runtime.start_thread()
        pixels = to_super_images(clip.frames, len(clip.segments))
        blank = self.config.MODEL.image_mean
        engine = self.parts() if self.proof else self.engine  # all of it in float32
        return explain(self.parts(), engine, pixels, clip.segments, self.labels, class_ids, grid, blank, path)

    def _result(
        self,
        probabilities: np.ndarray,
        read: Callable[[], Clip],
        path: str | None = None,
        label: int | None = None,
        topk: int | None = None,
    ) -> Result:
        facts = {"input_path": path, "label": label, "_read": read, "_explain": self._explain}
        return Result.of(probabilities, self.labels, topk or self.topk, **facts)


def _forget_engines() -> None:
    """In a forked process, which lacks the threads of the parent's engines, let predictors make new ones.

    An extra reference keeps the parent's engines: to free them would wait for these threads.
    """
    for predictor in list(_PREDICTORS):
        for made in (vars(predictor).pop(name, None) for name in _MADE):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))


os.register_at_fork(after_in_child=_forget_engines)
