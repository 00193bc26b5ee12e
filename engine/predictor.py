"""Videos in, classes out: what `predict`, a notebook and a server call."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from core.config import Config, load_config
from core.files import StrPath
from core.progress import Progress
from engine.inputs import Input, Source, sources
from engine.labels import load_labels
from engine.result import Result

if TYPE_CHECKING:
    from backends.engines import Engine
    from engine.explain import Explanation
    from models.model import Model
    from reader.clip import Clip
    from reader.loader import Loader

logger = logging.getLogger("stnet")


class Predictor:
    """A model that answers with the classes of videos.

    Args:
        weights: a .pdparams file; a folder that `inference` wrote; empty: the released weights, downloaded if need be.
        config: a Config, or a YAML file, relative to the working directory or to the project; default: what the
            description beside the weights says, or else configs/stnet.yaml, which the released weights fit.
        engine: what computes, one of backends.engines.ENGINES.
        device: "cpu", "gpu", or "auto": the GPU if one works.
        topk: classes in a result, at most all.

    Attributes:
        config, labels: what the weights were found to be made for.
        weights: absolute path of the weights.
        sha256: of the weights.

    Raises:
        UserError: no such configuration, labels, weights or engine, or they do not fit each other.
    """

    def __init__(
        self,
        weights: StrPath = "",
        config: Config | StrPath | None = None,
        engine: str = "auto",
        device: str = "auto",
        topk: int = 5,
        mode: str = "infer",
        clips: int | None = None,
    ) -> None:
        from core import runtime

        runtime.prepare()
        runtime.start(device)
        self.mode, self.topk = mode, topk
        ...
