"""The engines of one model: logits, features and stages, each made at its first use."""

from __future__ import annotations

import ctypes
import functools
import os
import weakref
from typing import TYPE_CHECKING

from stnet.backends.embedder import make_embedder
from stnet.backends.engines import Task
from stnet.backends.stages import StagedNetwork, build_stages
from stnet.config import Config
from stnet.export.deployed import Deployed, load_deployed
from stnet.models.model import Model
from stnet.quantize.networks import StagedLowPrecision
from stnet.quantize.report import Precision, ValidationReport
from stnet.quantize.run import choose, computing
from stnet.utils.errors import UserError

if TYPE_CHECKING:
    from stnet.backends.embedder import Embed
    from stnet.backends.engines import Compute

_USE_WEIGHTS = "use the weights it was made from"
_HOLD_THREADS = ("_logits", "logits", "embed", "stages", "_timeline")  # cached properties with threads or locks
_ALL: weakref.WeakSet[ModelEngines] = weakref.WeakSet()


class ModelEngines:
    """Engines of one model. A forked process makes its own.

    Args:
        model: in evaluation mode.
        config: whose section INFER gives the sizes of the clips.
        digest: SHA-256 of the weights.
        name: one of stnet.backends.engines.ENGINES.
        precision: to compute logits and timelines in.
        clips: number of all clips, if known.
    """

    def __init__(
        self, model: Model, config: Config, digest: str, name: str, precision: Precision, clips: int | None = None
    ) -> None:
        self.model, self.config, self.digest, self.name = model, config, digest, name
        self.precision, self.clips = precision, clips
        _ALL.add(self)

    def set_precision(self, name: str) -> None:
        """Use the precision that another process has chosen."""
        made = vars(self).get("_logits")
        if made is None or (made[1].precision if made[1] else "fp32") != name:
            for attribute in ("_logits", "logits"):
                vars(self).pop(attribute, None)
            self.precision = self.precision._replace(name=name, calibrate="")

    @functools.cached_property
    def logits(self) -> Compute:
        """Function from uint8 clips [B, seg_num, 3 * seglen, H, W] to logits. Raises UserError."""
        return self._logits[0]

    @property
    def report(self) -> ValidationReport | None:
        """Validation report of the precision of `logits`; None: fp32. Raises UserError."""
        return None if self.precision.name == "fp32" else self._logits[1]

    @functools.cached_property
    def _logits(self) -> tuple[Compute, ValidationReport | None]:
        task = Task(self.model, self.config.section("infer"), self.clips, self.digest)
        return computing(task, self.config, self.precision, self.name)

    @functools.cached_property
    def embed(self) -> Embed:
        """Function from uint8 clips to features, in fp32. Raises UserError where the model has none."""
        return make_embedder(self.name, self.model, self.config.section("infer"), self.digest)

    def check_stages(self) -> None:
        """Raise UserError where the model has no stages: it has no segments, or is an export."""
        if self.model.streaming() is None:
            name = self.config.MODEL.name
            raise UserError(f"{name} has no segments: it has no timeline, and no shares of segments")

    def check_explains(self) -> None:
        """Raise UserError where there are no explanations: as `check_stages`, or in low precision."""
        self.check_stages()
        if self.precision.name not in ("fp32", "auto"):
            raise UserError(f"reasons are computed in fp32, not in {self.precision.name}")

    @functools.cached_property
    def stages(self) -> StagedNetwork:
        """Stages of the model, in fp32. Raises as `check_stages`."""
        self.check_stages()
        return build_stages(self.name, self.model, self.config.section("infer"), self.digest)

    @property
    def timeline_stages(self) -> StagedNetwork:
        """Stages of the model, in the requested precision. Raises as `check_stages`, or the precision is refused."""
        return self._timeline[0]

    @property
    def timeline_report(self) -> ValidationReport | None:
        """Validation report of the precision of `timeline_stages`; None: fp32. Raises UserError."""
        return self._timeline[1]

    @functools.cached_property
    def _timeline(self) -> tuple[StagedNetwork, ValidationReport | None]:
        self.check_stages()
        task = Task(self.model, self.config.section("infer"), digest=self.digest)
        validated = choose(task, self.config, self.precision, self.name, StagedLowPrecision)
        if validated is None:
            return self.stages, None
        assert isinstance(validated.engine, StagedNetwork)
        return validated.engine, validated.record


class DeployedEngines(ModelEngines):
    """Engine of an export, which gives logits alone.

    Args:
        folder: that `inference` wrote.
        deployed: what was loaded from it.
    """

    def __init__(self, folder: str, deployed: Deployed) -> None:
        self.folder, self.deployed, self.process = folder, deployed, os.getpid()
        self.precision = Precision(deployed.precision)
        _ALL.add(self)

    @functools.cached_property
    def _logits(self) -> tuple[Compute, ValidationReport | None]:
        forked = os.getpid() != self.process
        return (load_deployed(self.folder) if forked else self.deployed).engine, None

    @functools.cached_property
    def embed(self) -> Embed:
        """Raise UserError."""
        raise UserError("an export gives classes alone, and no features", _USE_WEIGHTS)

    def check_stages(self) -> None:
        """Raise UserError."""
        raise UserError("an export does not show its segments: it has no timeline, and no shares", _USE_WEIGHTS)


def _forget_engines() -> None:
    """In a forked process, which lacks the threads of the parent's engines, let new ones be made.

    An extra reference keeps the parent's engines: to free them would wait for these threads.
    """
    for engines in list(_ALL):
        for made in (vars(engines).pop(name, None) for name in _HOLD_THREADS):
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))


os.register_at_fork(after_in_child=_forget_engines)
