"""Class probabilities of clips."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from core.config import Config, load_config
from core.files import StrPath
from core.progress import Progress
from engine.labels import load_labels

if TYPE_CHECKING:
    from backends.engines import Compute
    from engine.explain import Explainer
    from models.model import Model
    from reader.loader import Loader

logger = logging.getLogger("stnet")
Result = dict[str, Any]


class Predictor:
    """A model that answers with the classes of clips.

    Args:
        weights: file or folder; empty: the released weights, downloaded if need be.
        config: a configuration, or a YAML file, relative to the working directory or to the project.
        engine: what computes, the name of one of backends.engines.ENGINES.
        use_gpu: True, False, or "auto": the GPU if one works; None: the device that core.runtime.start has chosen.
        clips: how many there will be in all, if that is known.

    Attributes:
        weights: absolute path of the weights.

    Raises:
        UserError: no such configuration, labels, weights or engine, or they do not fit each other.
    """

    def __init__(
        self,
        weights: StrPath = "",
        config: Config | StrPath = "configs/stnet.yaml",
        engine: str = "auto",
        use_gpu: bool | Literal["auto"] | None = "auto",
        clips: int | None = None,
    ) -> None:
        from core import runtime

        runtime.prepare()
        from backends.engines import ENGINES, make_engine
        from engine.loading import load_model
        from models import model_section

        ENGINES.get(engine)  # an unknown name is refused first
        if not isinstance(config, Config):
            config = load_config(os.fspath(config), model_section)
        self.config = config
        self.labels = load_labels(config.MODEL.labels, config.MODEL.num_classes)
        if use_gpu is not None:
            runtime.start(use_gpu)
        model, self.weights, digest = load_model(config, "infer", os.fspath(weights), self.labels)
        self.engine = make_engine(engine, model, config.section("infer"), clips, digest)
        self._explainer = functools.partial(_explainer, engine, model, self.engine, self.labels, digest)

    def explainer(self) -> Explainer:
        """What explains the classes of a clip. Raises UserError where the model's logits do not split."""
        return self._explainer()

    def predict(self, paths: StrPath | Iterable[StrPath], topk: int | None = None) -> Iterator[Result]:
        """The classes of clips, given by their paths; see `results`."""
        from reader.loader import build_loader

        paths = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
        if paths:
            yield from self.results(build_loader(self.config, "infer", paths=paths), topk)

    def results(self, loader: Loader, topk: int | None = None, log_interval: int = 10) -> Iterator[Result]:
        """The top classes of every readable clip of a loader, in its order; the log names the others.

        Args:
            loader: in list order.
            topk: classes per clip, at most all; default: MODEL.topk of the configuration.

        Yields:
            {"path", "predictions": [{"class", "label", "probability"}]}, the most probable class first.

        Raises:
            UserError: no clip could be read.
        """
        topk = topk or self.config.MODEL.topk
        progress = Progress(len(loader.dataset), "predict", len(loader), log_interval)
        with contextlib.closing(progress), contextlib.closing(loader.epoch()) as batches:
            for batch in batches:
                if not batch.indices:
                    continue
                for index, row in zip(batch.indices, softmax(self.engine(batch.clips))):
                    yield {"path": loader.dataset.clips[index].path, "predictions": top(row, self.labels, topk)}
                progress.update(len(batch.indices))


def _explainer(name: str, model: Model, engine: Compute, labels: Sequence[str], digest: str) -> Explainer:
    from backends.parts import make_parts
    from engine.explain import Explainer

    return Explainer(make_parts(name, model, model.config.section("infer"), digest), engine, model.config, labels)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [B, num_classes] of logits."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def top(probabilities: np.ndarray, labels: Sequence[str], topk: int) -> list[dict[str, Any]]:
    """The `topk` most probable classes of one clip, most probable first."""
    order = np.argsort(-probabilities, kind="stable")[:topk]
    return [{"class": int(i), "label": labels[i], "probability": float(probabilities[i])} for i in order]
