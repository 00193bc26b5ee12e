"""Validation of low precision: comparison with float32 on the user's clips, cached with the files, and read again."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stnet import runtime
from stnet.backends.cache import ExportCache, code_of, export_cache_of
from stnet.backends.engines import OnnxRuntime, Task
from stnet.quantize.calibrate import Clips, Quantizer, Reading
from stnet.quantize.formats import LowPrecisionFormat
from stnet.quantize.report import (
    FEWEST,
    RECORD,
    AgreementStats,
    Bounds,
    Precision,
    Speed,
    ValidationReport,
    read_record,
    this_processor,
)
from stnet.reader.sources import Source
from stnet.utils.atomic import write_json
from stnet.utils.errors import UserError, last_line

if TYPE_CHECKING:
    from stnet.backends.engines import Compute
    from stnet.backends.exported import Exported
    from stnet.backends.stages import StagedNetwork
    from stnet.config import Config
    from stnet.quantize.networks import LowPrecisionNetwork

logger = logging.getLogger("stnet")
_ROUNDS, _LONGEST = 9, 60.0  # of timing: runs of each engine, and seconds
_PAUSE = 0.05  # seconds, after which the threads of the other engine no longer spin
_UNPROVEN = (
    "--unproven uses it all the same, --calibrate with other clips tries again, and --precision=fp32 needs no proof"
)
_PROVE_ANEW = "--calibrate with your clips makes it anew; where it does not, delete that folder"
_KIND = "precision"  # folder of the weights' cache
_NOT_SCORING = ("labels", "metrics", "topk")  # keys of MODEL
_ACCEPTED, _REFUSED = 0, 1  # cache entries: a refused network does not replace an accepted one


class Comparison:
    """Compares low precision with float32, which computes each clip once.

    Args:
        network: in low precision.
        folder: of its files.
        videos: the clips.
        spare: see stnet.quantize.calibrate.Reading.
    """

    def __init__(
        self, network: LowPrecisionNetwork, folder: str, config: Config, videos: Sequence[Source], spare: list[Source]
    ) -> None:
        self.network, self.folder, self.config = network, folder, config
        self.videos, self.spare = list(videos), spare
        self.expected: dict[str | None, np.ndarray] = {}  # logits in float32, by path
        self.batch = np.empty(0)

    def agreement(self) -> AgreementStats:
        """Compute the agreement of the files as they are now. Raises UserError: no clip could be read."""
        reading = Reading(self.config, self.videos, self.spare)
        engine, found = self.network.load(self.folder), dict[Any, np.ndarray]()
        float32 = None if self.expected else self.network.float32()
        read: list[Source] = []
        with contextlib.closing(reading.batches(f"{self.network.kind.name} beside fp32")) as batches:
            for videos, clips in batches:
                read += videos
                paths = [video.path for video in videos]
                found.update(zip(paths, engine(clips)))
                if float32:
                    self.expected.update(zip(paths, float32(clips)))
                if len(self.batch) < (at_once := self.network.at_once):
                    self.batch = np.concatenate([self.batch, clips])[:at_once] if len(self.batch) else clips
        if float32:
            self.videos = read
        del engine, float32
        runtime.release_memory()
        common = [video for video in read if video.path in self.expected]
        if not common:
            raise UserError("none of the clips that are to prove the precision could be read")
        expected, low = (np.stack([logits[video.path] for video in common]) for logits in (self.expected, found))
        return AgreementStats.of(expected, low, [video.label for video in common])

    def speed(self) -> Speed:
        """Time both engines in turns on clips in memory."""
        engines: list[Compute] = [self.network.float32(), self.network.load(self.folder)]
        for engine in engines:
            engine(self.batch)  # the first run takes longer
        seconds: list[list[float]] = [[] for _ in engines]
        began = time.monotonic()
        while len(seconds[0]) < _ROUNDS and not (seconds[0] and time.monotonic() - began > _LONGEST):
            for engine, taken in zip(engines, seconds):
                time.sleep(_PAUSE)
                start = time.perf_counter()
                engine(self.batch)
                taken.append((time.perf_counter() - start) / len(self.batch))
        name = getattr(engines[0], "name", "Paddle")
        return Speed(name, len(self.batch), *(float(np.median(taken)) for taken in seconds))


class Validated(NamedTuple):
    """A low-precision network ready to compute, with its validation report."""

    low_precision_format: LowPrecisionFormat
    folder: str
    record: ValidationReport
    engine: Exported | StagedNetwork


class Validation:
    """Makes a low-precision network and its validation report, or reads them from the weights' cache.

    Args:
        network: whole or in stages; each has its own report.
        clips: to make the report with, unless the cached one was made with them; None: use the cached one.
        wanted: bounds, and whether to use the network where it exceeds them.
    """

    def __init__(
        self, network: LowPrecisionNetwork, task: Task, config: Config, clips: Clips | None, wanted: Precision
    ) -> None:
        self.kind, self.network, self.task, self.config = network.kind, network, task, config
        self.clips, self.wanted = clips, wanted
        self.problems: list[str] = []  # why cached entries are not used
        kind, layers = network.kind, task.model.network.sublayers(include_self=True)
        tools = (
            Validation,
            Comparison,
            Reading,
            LowPrecisionFormat,
            type(kind),
            Quantizer,
            OnnxRuntime,
            AgreementStats,
        )
        code = code_of(*tools, *network.made_by, type(task.model), *map(type, layers))
        scoring = config.scoring()
        settings = {name: value for name, value in scoring["MODEL"].items() if name not in _NOT_SCORING}
        facts = [kind.name, kind.runtimes(), code, settings, scoring["INFER"], list(this_processor())]
        self.dependencies = [*facts, *network.facts]

    def found(self) -> Validated:
        """Read or make the network; no other process replaces it meanwhile.

        Raises:
            UserError: there is none, or it is damaged, or refused.
            OSError: it cannot be kept.
        """
        entries = [[*self.dependencies, entry] for entry in (_ACCEPTED, _REFUSED)]
        with export_cache_of(self.task.model.network, entries, self.task.digest, _KIND) as cached:
            records = self._valid_records(cached)
            fitting = {entry: record for entry, record in records.items() if self._is_current(record)}
            if not fitting:
                entry = self._make(cached, records.get(_ACCEPTED))
                fitting = {entry: read_record(os.path.join(cached.folders[entry], RECORD))}
            bounds = self.wanted.bounds
            entry = min(fitting, key=lambda entry: (bool(fitting[entry].figures.refusal(bounds)), entry))
            record, folder = fitting[entry], cached.use(entry)
            self._check_bounds(record, accepted_stays=entry == _REFUSED and _ACCEPTED in records)
            return Validated(self.kind, folder, record, self._load(folder))

    def _valid_records(self, cached: ExportCache) -> dict[int, ValidationReport]:
        """Reports by cache entry; damaged and foreign ones are logged and left out."""
        records = {}
        for entry, folder in enumerate(cached.folders):
            if os.path.lexists(folder):
                record, problem = self._read(folder) if cached.is_whole(entry) else (None, "damaged")
                if record is not None:
                    records[entry] = record
                else:
                    self.problems.append(f"the one in {folder} is {problem}")
                    logger.warning("precision %s: the proof in %s is %s: not believed", self.kind.name, folder, problem)
        return records

    def _read(self, folder: str) -> tuple[ValidationReport | None, str]:
        """Read the report in a folder; or None, and the reason why it cannot be used."""
        try:
            record = read_record(os.path.join(folder, RECORD))
            sha256 = self.network.sha256(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            return None, f"damaged ({last_line(error)})"
        foreign = record.foreign(self.kind.runtimes())
        if foreign:
            return None, f"of {foreign}"
        if (record.precision, record.sha256) != (self.kind.name, sha256):
            return None, "damaged (its record is of another file)"
        return record, ""

    def _is_current(self, record: ValidationReport) -> bool:
        """Check that a new report would be the same: from the same clips, with nothing left to try."""
        if self.clips is None:
            return True
        final = not record.figures.refusal(self.wanted.bounds) or record.searched or record.figures.clips < FEWEST
        return record.calibration["sha256"] == self.clips.digest and final

    def _check_bounds(self, record: ValidationReport, accepted_stays: bool) -> None:
        reason = record.figures.refusal(self.wanted.bounds)
        if reason and not self.wanted.unproven:
            kept = "; the proof that was kept stays" if accepted_stays and self.clips is not None else ""
            fact = f"precision {self.kind.name} {reason}: {record.figures}{kept}"
            raise UserError(fact, _UNPROVEN)
        if reason:
            logger.warning("precision %s %s; used all the same", self.kind.name, reason)

    def _load(self, folder: str) -> Exported | StagedNetwork:
        try:
            return self.network.load(folder)
        except UserError:
            raise
        except Exception as error:  # runtimes have exceptions of their own
            fact = f"precision {self.kind.name}: the file in {folder} cannot be loaded ({last_line(error)})"
            raise UserError(fact, _PROVE_ANEW) from None

    def _make(self, cached: ExportCache, accepted: ValidationReport | None) -> int:
        """Make the network and its report; returns the cache entry."""
        proof = f"precision {self.kind.name} has no proof{self.network.what}"
        if self.clips is None and self.problems:
            raise UserError(f"{proof} to believe: {'; '.join(self.problems)}", _PROVE_ANEW)
        if self.clips is None:
            raise UserError(
                f"{proof} for these weights and sizes on this processor",
                "set --calibrate to a list of 264 clips or more, labels optional: the proof is kept",
            )
        clips = self.clips
        left = len(clips.comparison) + len(clips.spare)
        if left < FEWEST and not self.wanted.unproven:
            few = f"{left} clips are left to compare, at least {FEWEST} are needed"
            raise UserError(f"precision {self.kind.name} not proven: {few}", _UNPROVEN)
        self.kind.check_making()

        def write(folder: str) -> int:
            figures = self._write(folder, clips)
            worse = accepted is not None and not accepted.figures.refusal(Bounds()) and figures.refusal(Bounds())
            return _REFUSED if worse or figures.refusal(self.wanted.bounds) else _ACCEPTED

        return cached.make(write)

    def _write(self, folder: str, clips: Clips) -> AgreementStats:
        """Write all files of the folder."""
        spare = list(clips.spare)
        self.network.write_float32(folder)
        calibrated = 0
        if self.kind.calibrated:
            calibrated = self.network.prepare(folder, lambda: self._calibration_clips(clips, spare))
            runtime.release_memory()
        comparison = Comparison(self.network, folder, self.config, clips.comparison, spare)
        figures, in_float32, searched = self._search(folder, comparison)
        record = ValidationReport(
            self.kind.name, this_processor(), self.kind.runtimes(), self.network.sha256(folder),
            {"clips": calibrated, "sha256": clips.digest}, in_float32, searched, figures, comparison.speed(),
        )  # fmt: skip
        write_json(f"{folder}/{RECORD}", record.to_dict())
        self.network.finish(folder)
        return figures

    def _calibration_clips(self, clips: Clips, spare: list[Source]) -> Iterator[np.ndarray]:
        """Read the calibration clips anew, each uint8 [1, T, 3 * seglen, H, W]."""
        reading = Reading(self.config, clips.calibration, spare)
        with contextlib.closing(reading.batches("calibrating")) as batches:
            for _, frames in batches:
                yield from (clip[None] for clip in frames)

    def _search(self, folder: str, comparison: Comparison) -> tuple[AgreementStats, list[str], bool]:
        """Keep layers in float32 until the bounds hold: (agreement, these layers, whether no more can be kept)."""
        figures, in_float32 = comparison.agreement(), list[str]()
        logger.info("precision %s: %s", self.kind.name, figures)
        fp32_layers = self.network.fp32_layers(folder)
        while figures.clips >= FEWEST and figures.refusal(self.wanted.bounds):
            further = next(fp32_layers, None)
            if further is None:
                return figures, in_float32, True
            in_float32 = further
            logger.info("precision %s, but for %s", self.kind.name, ", ".join(in_float32))
            figures = comparison.agreement()
            logger.info("precision %s: %s", self.kind.name, figures)
        return figures, in_float32, not self.kind.calibrated
