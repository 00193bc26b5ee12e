"""The proof that a network in fewer bits is right: made on the user's clips, kept beside its files, and read again."""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING, NamedTuple

from stnet import runtime
from stnet.backends.cache import ExportCache, code_of, export_cache_of
from stnet.backends.engines import OnnxRuntime, Task
from stnet.quantize.calibration import Clips, Reading
from stnet.quantize.compare import Comparison
from stnet.quantize.formats import LowPrecisionFormat
from stnet.quantize.processor import this_processor
from stnet.quantize.quantize import Quantizer
from stnet.quantize.report import FEWEST, RECORD, AgreementStats, Bounds, Precision, ValidationReport, read_record
from stnet.utils.atomic import write_json
from stnet.utils.errors import UserError, last_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from stnet.backends.exported import Exported
    from stnet.backends.parts import StagedNetwork
    from stnet.config import Config
    from stnet.quantize.networks import LowPrecisionNetwork
    from stnet.reader.sources import Source

logger = logging.getLogger("stnet")
_UNPROVEN = (
    "--unproven uses it all the same, --calibrate with other clips tries again, and --precision=fp32 needs no proof"
)
_PROVE_ANEW = "--calibrate with your clips makes it anew; where it does not, delete that folder"
_KIND = "precision"  # folder of the weights' cache
_NOT_SCORING = ("labels", "metrics", "topk")  # keys of MODEL
_PROVEN, _REFUSED = 0, 1  # places: what is refused replaces nothing that is proven


class Proven(NamedTuple):
    """A network in fewer bits, with its record."""

    low_precision_format: LowPrecisionFormat
    folder: str
    record: ValidationReport
    engine: Exported | StagedNetwork


class Proof:
    """A network in one number format, kept with its record in the weights' cache.

    Args:
        network: in that format, whole or in parts; what is proven of one proves nothing of the other.
        clips: to make it with, unless what is kept was made with them; None: what is kept.
        wanted: what its figures must keep to, and whether it is used where they do not.
    """

    def __init__(
        self, network: LowPrecisionNetwork, task: Task, config: Config, clips: Clips | None, wanted: Precision
    ) -> None:
        self.kind, self.network, self.task, self.config = network.kind, network, task, config
        self.clips, self.wanted = clips, wanted
        self.problems: list[str] = []  # why what is kept is not believed
        model, kind = task.model, network.kind
        made_by = (
            Proof,
            Comparison,
            Reading,
            LowPrecisionFormat,
            type(kind),
            Quantizer,
            OnnxRuntime,
            AgreementStats,
            *network.made_by,
        )
        code = code_of(*made_by, type(model), *map(type, model.network.sublayers(include_self=True)))
        scoring = config.scoring()
        settings = {name: value for name, value in scoring["MODEL"].items() if name not in _NOT_SCORING}
        facts = [kind.name, kind.runtimes(), code, settings, scoring["INFER"], list(this_processor())]
        self.dependencies = [*facts, *network.facts]

    def found(self) -> Proven:
        """What is kept or made, ready to compute; no other process replaces it meanwhile.

        Raises:
            UserError: there is none, or it is damaged, or refused.
            OSError: it cannot be kept.
        """
        places = [[*self.dependencies, place] for place in (_PROVEN, _REFUSED)]
        with export_cache_of(self.task.model.network, places, self.task.digest, _KIND) as cached:
            records = self._believed(cached)
            fitting = {place: record for place, record in records.items() if self._answers(record)}
            if not fitting:
                place = self._made(cached, records.get(_PROVEN))
                fitting = {place: read_record(os.path.join(cached.folders[place], RECORD))}
            bounds = self.wanted.bounds
            place = min(fitting, key=lambda place: (bool(fitting[place].figures.refusal(bounds)), place))
            record, folder = fitting[place], cached.use(place)
            self._judge(record, stays=place == _REFUSED and _PROVEN in records)
            return Proven(self.kind, folder, record, self._loaded(folder))

    def _believed(self, cached: ExportCache) -> dict[int, ValidationReport]:
        """The records that are to be believed, by their places."""
        records = {}
        for place, folder in enumerate(cached.folders):
            if os.path.lexists(folder):
                record, problem = self._read(folder) if cached.is_whole(place) else (None, "damaged")
                if record is not None:
                    records[place] = record
                else:
                    self.problems.append(f"the one in {folder} is {problem}")
                    logger.warning("precision %s: the proof in %s is %s: not believed", self.kind.name, folder, problem)
        return records

    def _read(self, folder: str) -> tuple[ValidationReport | None, str]:
        """The record in a folder; or None, and why it is not to be believed."""
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

    def _answers(self, record: ValidationReport) -> bool:
        """Whether a record is what would be made: nothing else can be without clips."""
        if self.clips is None:
            return True
        settled = not record.figures.refusal(self.wanted.bounds) or record.searched or record.figures.clips < FEWEST
        return record.calibration["sha256"] == self.clips.digest and settled

    def _judge(self, record: ValidationReport, stays: bool) -> None:
        reason = record.figures.refusal(self.wanted.bounds)
        if reason and not self.wanted.unproven:
            kept = "; the proof that was kept stays" if stays and self.clips is not None else ""
            fact = f"precision {self.kind.name} {reason}: {record.figures.words()}{kept}"
            raise UserError(fact, _UNPROVEN)
        if reason:
            logger.warning("precision %s %s; used all the same", self.kind.name, reason)

    def _loaded(self, folder: str) -> Exported | StagedNetwork:
        try:
            return self.network.load(folder)
        except UserError:
            raise
        except Exception as error:  # the runtimes have types of their own
            fact = f"precision {self.kind.name}: the file in {folder} cannot be loaded ({last_line(error)})"
            raise UserError(fact, _PROVE_ANEW) from None

    def _made(self, cached: ExportCache, kept: ValidationReport | None) -> int:
        """Make the proof; returns its place."""
        proof = f"precision {self.kind.name} has no proof{self.network.what}"
        if self.clips is None and self.problems:
            raise UserError(f"{proof} to believe: {'; '.join(self.problems)}", _PROVE_ANEW)
        if self.clips is None:
            raise UserError(
                f"{proof} for these weights and sizes on this processor",
                "set --calibrate to a list of 264 clips or more, labels optional: the proof is kept",
            )
        clips = self.clips
        there = len(clips.gate) + len(clips.spare)
        if there < FEWEST and not self.wanted.unproven:
            few = f"{there} clips are left to compare, at least {FEWEST} are needed"
            raise UserError(f"precision {self.kind.name} not proven: {few}", _UNPROVEN)
        self.kind.check_making()

        def write(folder: str) -> int:
            figures = self._make(folder, clips)
            lasts = kept is not None and not kept.figures.refusal(Bounds()) and figures.refusal(Bounds())
            return _REFUSED if lasts or figures.refusal(self.wanted.bounds) else _PROVEN

        return cached.make(write)

    def _make(self, folder: str, clips: Clips) -> AgreementStats:
        """Write all files of the folder."""
        spare = list(clips.spare)
        self.network.write_float32(folder)
        calibrated = 0
        if self.kind.calibrated:
            calibrated = self.network.prepare(folder, lambda: self._calibration(clips, spare))
            runtime.release_memory()
        comparison = Comparison(self.network, folder, self.config, clips.gate, spare)
        figures, in_float32, searched = self._search(folder, comparison)
        record = ValidationReport(
            self.kind.name, this_processor(), self.kind.runtimes(), self.network.sha256(folder),
            {"clips": calibrated, "sha256": clips.digest}, in_float32, searched, figures, comparison.speed(),
        )  # fmt: skip
        write_json(f"{folder}/{RECORD}", record.plain())
        self.network.finish(folder)
        return figures

    def _calibration(self, clips: Clips, spare: list[Source]) -> Iterator[np.ndarray]:
        """The clips to calibrate with, one by one, read anew at each call."""
        reading = Reading(self.config, clips.calibration, spare)
        with contextlib.closing(reading.batches("calibrating")) as batches:
            for _, frames in batches:
                yield from (clip[None] for clip in frames)

    def _search(self, folder: str, comparison: Comparison) -> tuple[AgreementStats, list[str], bool]:
        """The figures, the layers that are in float32 for them, and whether no more can be."""
        figures, in_float32 = comparison.figures(), list[str]()
        logger.info("precision %s: %s", self.kind.name, figures.words())
        fp32_layers = self.network.fp32_layers(folder)
        while figures.clips >= FEWEST and figures.refusal(self.wanted.bounds):
            further = next(fp32_layers, None)
            if further is None:
                return figures, in_float32, True
            in_float32 = further
            logger.info("precision %s, but for %s", self.kind.name, ", ".join(in_float32))
            figures = comparison.figures()
            logger.info("precision %s: %s", self.kind.name, figures.words())
        return figures, in_float32, not self.kind.calibrated
