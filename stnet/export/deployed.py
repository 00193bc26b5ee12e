"""Engine of an exported model, from the folder that `inference` wrote."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from stnet.backends.deploy_yaml import FILE
from stnet.backends.engines import Run
from stnet.config import (
    LARGEST_SIDE,
    MOST_CLASSES,
    Config,
    InferSection,
    ModelSection,
    ReaderSection,
    TestSection,
    TrainSection,
    clip_problem,
)
from stnet.export.formats import exporter
from stnet.metrics.rejection import Rejection
from stnet.models.dygraph import Clips
from stnet.quantize.report import Bounds, ValidationReport, this_processor
from stnet.utils.errors import UserError, last_line
from stnet.utils.files import StrPath, read_regular, sha256_of
from stnet.utils.parsing import MAX_YAML, parse_yaml
from stnet.utils.schema import refuse_newer
from stnet.weights.rejection import checked_rejection

logger = logging.getLogger("stnet")


class Deployed(NamedTuple):
    """An exported model with its configuration."""

    engine: DeployedEngine
    config: Config
    labels: list[str]
    sha256: str  # of the largest file, which holds the weights
    precision: str  # from deploy.yaml


def digest_of(files: Sequence[str]) -> str:
    """SHA-256 of the largest of an export's files, which holds the weights."""
    return sha256_of(max(files, key=os.path.getsize))


class DeployedEngine:
    """An exported model; called as every engine is, see stnet.backends.engines.

    Args:
        run: the model.
        settings: mean, std and number of classes.
        facts: content of deploy.yaml.
        name: for the log.

    Raises:
        KeyError, TypeError, ValueError: the facts are invalid.
    """

    def __init__(self, run: Run, settings: ModelSection, facts: dict[str, Any], name: str) -> None:
        self.run, self.name, self.num_classes = run, name, settings.num_classes
        mean, std = settings.image_mean, settings.image_std
        self.mean, self.std = np.float32(mean), np.float32(std)
        _, _, self.channels, _, _ = facts["input"]["shape"]
        self.uint8 = one_of(facts["input"]["dtype"], "float32", "uint8") == "uint8"
        self.logits = one_of(facts["output"].get("kind", "probabilities"), "probabilities", "logits") == "logits"

    def __call__(self, clips: Clips) -> np.ndarray:
        """uint8 clips -> logits [B, num_classes]; of probabilities, their logarithms."""
        clips = np.asarray(clips)
        values: np.ndarray = clips
        if not self.uint8:
            mean, std = (np.tile(value, clips.shape[2] // 3)[:, None, None] for value in (self.mean, self.std))
            values = (clips / np.float32(255) - mean) / std
        answer = self.run(values.reshape(len(clips), -1, self.channels, *clips.shape[3:]))
        if answer.shape != (len(clips), self.num_classes):
            raise UserError(
                f"the model answers {len(clips)} clips with {list(answer.shape)}, not {self.num_classes} classes"
            )
        return answer if self.logits else np.log(np.maximum(answer, np.finfo(np.float32).tiny))


def one_of(value: object, *known: str) -> str:
    """Check that a value is one of the known. Raises ValueError."""
    if value not in known:
        raise ValueError(f"expected {' or '.join(known)}, found {value!r:.20}")
    return str(value)


def is_deployed(path: StrPath) -> bool:
    """Return True if a path is a folder with an export."""
    return os.path.isfile(os.path.join(path, FILE))


def load_deployed(folder: StrPath) -> Deployed:
    """Load the model in a folder.

    Raises:
        UserError: deploy.yaml or the model is damaged, or its runtime is not installed.
    """
    path = os.path.join(folder, FILE)
    facts = _read_facts(path)
    try:
        files = [os.path.join(folder, _plain_name(name)) for name in facts["model"]["files"]]
        config, labels = _config(facts), _labels(facts["labels"])
        if len(labels) != config.MODEL.num_classes:
            raise ValueError(f"{len(labels)} labels for {config.MODEL.num_classes} classes")
        _check_input(facts["input"]["shape"], config)
        prefix, suffix = os.path.splitext(next(file for file in files if not file.endswith(".pdiparams")))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration, OverflowError) as error:
        raise _damaged(path, error) from None
    precision = _precision(facts, files[0])
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        raise UserError(f"{path} names {os.path.basename(missing[0])}, which is not there")
    try:
        run, _, name = exporter("onnx" if suffix == ".onnx" else "paddle").load(prefix)
    except UserError:
        raise
    except Exception as error:  # both runtimes have exceptions of their own
        raise UserError(f"the model in {folder} cannot be loaded: {last_line(error)}") from None
    try:
        engine = DeployedEngine(run, config.MODEL, facts, name)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, error) from None
    engine.run = _checked(run, path, engine.logits)
    return Deployed(engine, config, labels, digest_of(files), precision)


def exported_rejection(folder: StrPath, digest: str) -> Rejection | None:
    """The threshold in deploy.yaml below which a clip is unknown; None if there is none.

    Args:
        digest: SHA-256 of the largest file, as in Deployed.

    Raises:
        UserError: it is damaged, or of another model.
    """
    path = os.path.join(folder, FILE)
    facts = _read_facts(path).get("reject")
    return None if facts is None else checked_rejection(facts, path, folder, digest)


def _precision(facts: dict[str, Any], file: str) -> str:
    """Precision of the model by deploy.yaml; warns of low precision without a valid report of this file, made here."""
    if "precision" not in facts:
        return "fp32"
    try:
        precision = f"{facts['precision']['precision']!s:.20}"
    except (KeyError, TypeError):
        precision = "unknown precision"
    folder = os.path.dirname(file)
    try:
        record = ValidationReport.read(facts["precision"])
        reason = record.figures.refusal(Bounds())
        if record.sha256 != sha256_of(file):
            reason = "its record is of another file"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        logger.warning("%s: the record of its precision is damaged (%s): nothing proves it", folder, last_line(error))
        return precision
    if not reason and record.processor != this_processor():
        reason = f"it was proven on another processor ({record.processor.model:.60}), which proves nothing on this one"
    if reason:
        logger.warning("%s computes in %.20s: %s", folder, record.precision, reason)
    return precision


def _checked(run: Run, path: str, logits: bool) -> Run:
    """Raise UserError where the model fails, or its answers are not those that deploy.yaml describes."""

    def checked(clips: np.ndarray) -> np.ndarray:
        try:
            answer = run(clips)
        except Exception as error:  # both runtimes have exceptions of their own
            raise UserError(f"the model does not take what {path} says: {last_line(error)}") from None
        in_range = np.abs(answer - 0.5) <= 0.501  # False for NaN
        if not logits and not (in_range.all() and (np.abs(answer.sum(axis=-1) - 1) <= 1e-2).all()):
            raise UserError(f"the model's answers are no probabilities, as {path} says")
        return answer

    return checked


def _plain_name(name: str) -> str:
    """Check that a name has no folder in it. Raises ValueError or TypeError."""
    if os.path.basename(name) != name or name in ("", ".", ".."):
        raise ValueError(f"expected the name of a file beside it, found {name!r:.40}")
    return name


def _check_input(shape: list[Any], config: Config) -> None:
    """Raise ValueError unless the shape of the model's input is that of the clips."""
    size, channels = config.INFER.target_size, (3, 3 * config.MODEL.seglen)
    if len(shape) != 5 or shape[2] not in channels or shape[3:] != [size, size]:
        raise ValueError(f"input {shape!r:.60} does not fit target_size {size} and seglen {config.MODEL.seglen}")


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(f"{path} is damaged ({type(error).__name__}: {error}); inference writes it anew")


def _read_facts(path: str) -> dict[str, Any]:
    try:
        facts = parse_yaml(read_regular(path, MAX_YAML))
        refuse_newer(facts, path)
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{path} is damaged; inference writes it anew") from None
    return facts


def _labels(names: Any) -> list[str]:
    """Parse class names. Raises ValueError or TypeError."""
    if type(names) is not list or not all(isinstance(name, (str, int, float)) for name in names):
        raise ValueError("expected a list of class names")
    labels = [str(name) for name in names]
    for name in labels:
        name.encode("utf-8")  # a lone surrogate, which no file can hold, is a ValueError, too
    return labels


def _config(facts: dict[str, Any]) -> Config:
    """Configuration by deploy.yaml; other settings have their defaults. Raises ValueError, KeyError or TypeError."""
    model, sampling, transform = facts["model"], facts["sampling"], facts["transform"]
    sizes = {"seg_num": sampling["seg_num"], "seglen": sampling["seglen"]}
    settings = ModelSection(
        name=model["name"], format=sampling["format"], num_classes=model["num_classes"], **sizes,
        image_mean=transform["mean"], image_std=transform["std"], labels="", topk=facts["output"].get("topk", 5),
    )  # fmt: skip
    infer = InferSection(short_size=transform["short_size"], target_size=transform["target_size"])
    sides = (infer.short_size, infer.target_size)
    for most, values in ((LARGEST_SIDE, sides), (MOST_CLASSES, (*sizes.values(), settings.num_classes, settings.topk))):
        for value in values:
            if type(value) is not int or not 1 <= value <= most:
                raise ValueError(f"expected a whole number from 1 to {most}, found {value!r:.20}")
    problem = clip_problem(**sizes, target_size=infer.target_size)
    if problem:
        raise ValueError(problem)
    for kind, name in (("format", settings.format), ("model", settings.name)):
        if not isinstance(name, str) or len(name) > 100:
            raise ValueError(f"expected the name of a {kind}, found {name!r:.20}")
    for row in (settings.image_mean, settings.image_std):
        if len(row) != 3 or not np.isfinite(np.float64(row)).all():
            raise ValueError(f"expected three numbers, found {row!r:.40}")
    if min(settings.image_std) <= 0:
        raise ValueError(f"expected positive deviations, found {settings.image_std!r:.40}")
    return Config(settings, TrainSection(), ReaderSection(), TestSection(), infer)
