"""Predictor: classes, features, timelines and explanations of videos."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Optional

import numpy as np

from stnet import runtime
from stnet.backends.engines import ENGINES
from stnet.config import Config, load_config
from stnet.evaluation.loop import logits_of, rows_of
from stnet.export.deployed import exported_rejection, is_deployed, load_deployed
from stnet.inference.explain import Explanation, explain
from stnet.inference.features import Features, features_of
from stnet.inference.model_engines import DeployedEngines, ModelEngines
from stnet.inference.result import Result
from stnet.inference.similar import TOPK, Similar, features_among, ranked, read_known, to_compare
from stnet.metrics.probabilities import softmax
from stnet.metrics.rejection import Judgement, Rejection
from stnet.models import model_section
from stnet.models.model import Model
from stnet.quantize.report import Precision, ValidationReport
from stnet.quantize.run import as_precision
from stnet.reader.clip import Clip
from stnet.reader.formats import VIDEO
from stnet.reader.loader import Loader, build_loader
from stnet.reader.order import EpochOrder
from stnet.reader.sources import Bytes, Input, Source, format_of, read_again, sources
from stnet.reader.transforms import to_super_images
from stnet.timeline.events import Events
from stnet.timeline.run import Settings, make_timeline
from stnet.utils.errors import USE_PADDLE, UserError
from stnet.utils.files import StrPath, stem_of
from stnet.weights.labels import labels_for
from stnet.weights.loading import load_model
from stnet.weights.metadata import saved_config
from stnet.weights.rejection import fit_hint, read_rejection

if TYPE_CHECKING:
    from stnet.backends.engines import Compute

RELEASED_CONFIG = "configs/stnet.yaml"  # of the released weights
Scored = tuple[np.ndarray, Optional[Judgement]]  # probabilities [num_classes] of a clip, and whether it is unknown
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
        reject: whether clips below the threshold that `eval --reject` has kept are unknown.

    Attributes:
        config, labels: of the weights.
        weights: absolute path of the weights.
        digest: SHA-256 of the weights.
        model: the network with its settings; None for an export.
        engines: what computes it, see stnet.inference.model_engines.
        rejection: which clips are unknown; None: `reject` is False.

    Raises:
        UserError: configuration, labels, weights, engine or threshold do not exist, or do not fit each other.
    """

    model: Model | None = None
    engines: ModelEngines

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
        reject: bool = False,
    ) -> None:
        if device not in (*DEVICES, None):
            raise UserError(f"device {device!r}: expected one of {', '.join(DEVICES)}")
        if topk is not None and (type(topk) is not int or topk < 1):
            raise UserError(f"topk: expected a whole number of at least 1, found {topk!r:.40}")
        if device is not None:
            runtime.start(DEVICES[device])
        if is_deployed(weights):
            self._use_export(os.fspath(weights), engine, precision)
        else:
            self._use_weights(os.fspath(weights), config, engine, mode, clips, precision)
        self.rejection = self._kept_rejection() if reject else None
        self.topk = min(topk or self.config.MODEL.topk, self.config.MODEL.num_classes)

    def _use_export(self, folder: str, engine: str, precision: str | Precision) -> None:
        if engine != "auto":
            raise UserError(f"{folder} runs by what it was written for: engine {engine} is not available")
        wanted = as_precision(precision, "auto")
        deployed = load_deployed(folder)
        if wanted.name not in ("fp32", "auto", deployed.precision):
            raise UserError(f"{folder} was written in {deployed.precision}: precision {wanted.name} is not available")
        if wanted.calibrate:
            raise UserError(f"{folder} runs as it was written: nothing is calibrated")
        self.config, self.labels, self.digest = deployed.config, deployed.labels, deployed.sha256
        self.engines = DeployedEngines(folder, deployed)
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
        ENGINES.get(engine)  # refuse an unknown name first
        wanted = as_precision(precision, engine)
        if config is None:
            config = load_config(saved_config(weights) or RELEASED_CONFIG, model_section)
        elif not isinstance(config, Config):
            config = load_config(os.fspath(config), model_section)
        self.labels = labels_for(config.MODEL.labels, config.MODEL.num_classes, weights)
        self.model, self.weights, self.digest = load_model(config, mode, weights, self.labels)
        clips = clips and clips * config.section(mode).views
        if mode == "test":
            sizes = ("short_size", "target_size", "seg_num", "batch_size")
            infer = dataclasses.replace(config.INFER, **{name: getattr(config.TEST, name) for name in sizes})
            config = dataclasses.replace(config, INFER=infer)
        self.config = config
        self.engines = ModelEngines(self.model, config, self.digest, engine, wanted, clips)

    def _kept_rejection(self) -> Rejection:
        """The threshold that eval has kept for these weights, or that came into an export with them."""
        found = read_rejection(self.weights, self.digest)
        if found is None and self.model is None:
            found = exported_rejection(self.weights, self.digest)
        if found is None:
            raise UserError(f"no threshold is kept for {self.weights}", fit_hint(self.weights))
        return found

    @property
    def engine(self) -> Compute:
        """Function from uint8 clips [B, seg_num, 3 * seglen, H, W] to logits. Raises UserError."""
        return self.engines.logits

    @property
    def report(self) -> ValidationReport | None:
        """Validation report of the precision in use; None: fp32. Raises UserError."""
        return self.engines.report

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
        """Make a loader of videos, in order; any number of them may be bad."""
        return build_loader(self.config, "infer", clips=[video.clip for video in videos])

    def results(
        self, videos: Sequence[Source], loader: Loader, log_interval: int = 10
    ) -> Generator[Result, None, None]:
        """Yield results as `predict`, for videos of `stnet.reader.sources.sources` and their loader."""
        section, clip_format = self.config.section("infer"), self.config.MODEL.format
        with contextlib.closing(rows_of(self.engine, loader, "predict", log_interval, self._scored)) as rows:
            for index, row, reason in rows:
                video = videos[index]
                if row is None:
                    yield Result(video.path, label=video.label, error=reason)
                else:
                    again = functools.partial(read_again, video, section, clip_format)
                    yield self._result(row, again, video.path, video.label)

    def results_of(self, clips: Sequence[Clip], topk: int | None = None) -> list[Result]:
        """Compute the results of decoded clips as one batch; pictures and explanations do not read them again.

        Args:
            clips: of stnet.reader.clip.read_clip, by section INFER.
            topk: classes in a result, at most all; None: the predictor's.
        """
        pixels = np.stack([to_super_images(clip.frames, len(clip.segments)) for clip in clips])
        logits = logits_of(self.engine, pixels, self.config.INFER.views, self.order.computed_at_once)
        rows = zip(self._scored(logits), clips)
        return [self._result(row, lambda clip=clip: clip, topk=topk) for row, clip in rows]  # type: ignore[misc]

    @functools.cached_property
    def order(self) -> EpochOrder:
        """Order of an evaluation, with the number of clips and views that are computed together."""
        return EpochOrder(1, self.config.INFER.batch_size, False, views=self.config.INFER.views)

    def _scored(self, logits: np.ndarray) -> list[Scored]:
        if len(logits) and (logits.shape[1:] != (len(self.labels),) or not np.isfinite(logits).all()):
            raise UserError(f"the engine gave no logits of {len(self.labels)} classes", USE_PADDLE)
        judged = self.rejection.judge(logits) if self.rejection and len(logits) else [None] * len(logits)
        return list(zip(softmax(logits), judged))

    def _result(
        self,
        scored: Scored,
        read: Callable[[], Clip],
        path: str | None = None,
        label: int | None = None,
        topk: int | None = None,
    ) -> Result:
        probabilities, judged = scored
        facts = {"input_path": path, "label": label, "judged": judged, "_read": read, "_explain": self._explain}
        return Result.of(probabilities, self.labels, topk or self.topk, **facts)

    def _explain(self, path: str, clip: Clip, class_ids: Sequence[int], grid: int) -> Explanation:
        engines = self.engines
        engines.check_explains()
        runtime.start_thread()
        pixels = to_super_images(clip.frames, len(clip.segments))
        blank = self.config.MODEL.image_mean
        engine = engines.stages if engines.report else engines.logits  # all of it in float32
        return explain(engines.stages, engine, pixels, clip.segments, self.labels, class_ids, grid, blank, path)

    def features(self, inputs: Input | Iterable[Input]) -> Generator[Features, None, None]:
        """Yield features of videos, in order; inputs as `predict`.

        Raises:
            UserError: as `predict`; or the model has no features, or is an export.
        """
        with tempfile.TemporaryDirectory(prefix="stnet-") as scratch:
            videos = sources(inputs, self.config.MODEL.format, scratch)
            if videos:
                runtime.start_thread()
                yield from features_of(self.engines.embed, videos, self.loader(videos))

    def similar(self, query: Input, inputs: Input | Iterable[Input], topk: int = TOPK) -> list[Similar]:
        """Find the videos whose clip features are most similar to those of one video, best first.

        Args:
            query: a video, as one of `predict`.
            inputs: as `predict`, or the path of a features file of these weights. The query's own file is left out.
            topk: videos in the result, at most.

        Raises:
            UserError: as `features`; the query cannot be read; the features file is damaged, or of other weights.
        """
        with tempfile.TemporaryDirectory(prefix="stnet-") as scratch, tempfile.TemporaryDirectory(dir=scratch) as other:
            inputs = inputs if isinstance(inputs, (str, os.PathLike, *Bytes, np.ndarray)) else list(inputs)
            path = features_among(inputs)
            known = read_known(path, self.digest, self.config) if path else None
            clip_format = self.config.MODEL.format
            videos = to_compare(
                sources([query], clip_format, scratch), sources([] if path else inputs, clip_format, other)
            )
            runtime.start_thread()
            return ranked(features_of(self.engines.embed, videos, self.loader(videos)), topk, known)

    def timeline(self, path: StrPath, name: StrPath, **settings: Any) -> Events:
        """Find the events of a long video; writes NAME.events.csv and the other files of a timeline.

        Args:
            path: the video.
            name: path without suffix of the files; or a folder, in which they are named after the video.
            settings: window, stride, threshold, hold, shortest, render, overwrite: as predict's flags.

        Raises:
            UserError: the video cannot be read, a file cannot be written, or a setting is invalid; the model has no
                stages, or the precision is refused.
        """
        if format_of(os.fspath(path), self.config.MODEL.format).lower() != VIDEO:
            raise UserError(
                f"{path}: a timeline is of a video, not of what MODEL.format {self.config.MODEL.format} says"
            )
        name = os.fspath(name)
        if os.path.isdir(name) or name.endswith(("/", os.sep)):
            name = os.path.join(name, stem_of(path))
        runtime.start_thread()
        stages, section = self.engines.timeline_stages, self.config.section("infer")
        return make_timeline(
            stages, os.fspath(path), section, self.labels, self.config.MODEL.topk, name, Settings(**settings),
            self.rejection,
        )  # fmt: skip
