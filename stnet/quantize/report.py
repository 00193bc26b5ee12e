"""The proof that a network in fewer bits still gives the classes of float32: its figures, its record, its verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stnet.metrics.probabilities import softmax
from stnet.quantize.processor import Processor, this_processor
from stnet.utils.files import StrPath, read_regular
from stnet.utils.parsing import parse_json

FEWEST = 200  # clips of a proof
RECORD = "record.json"
_RECORD_BYTES = 1 << 20
_LARGEST = 1e15  # of any number in a record; no clips are as many, and nothing takes so long


class Bounds(NamedTuple):
    """What figures must keep to; docs/precision.md says how the defaults were chosen.

    Args:
        agreement: share of the clips that must keep their class.
        difference: how far the probability of any class of any clip may move.
    """

    agreement: float = 0.99
    difference: float = 0.2


class Precision(NamedTuple):
    """The number format that is asked for.

    Args:
        name: fp32, bf16, int8 or auto.
        calibrate: a list, folder or glob of clips to calibrate and to prove it with; "": a proof that is kept.
        agreement, difference: see Bounds.
        unproven: use it all the same where they are not kept to, or where the clips are too few.
    """

    name: str = "fp32"
    calibrate: str = ""
    agreement: float = Bounds().agreement
    unproven: bool = False
    difference: float = Bounds().difference

    @property
    def bounds(self) -> Bounds:
        """What the figures must keep to."""
        return Bounds(self.agreement, self.difference)


class AgreementStats(NamedTuple):
    """What two engines gave for the same clips."""

    clips: int
    equal: int  # clips whose most probable class is the same
    largest: float  # difference of a probability
    mean: float  # difference of the probabilities
    labelled: int  # clips whose class is known
    right_fp32: int  # of these, those that float32 classifies rightly
    right: int

    @classmethod
    def of(cls, expected: np.ndarray, found: np.ndarray, labels: Sequence[int | None]) -> AgreementStats:
        """The figures of logits [clips, classes].

        Args:
            expected, found: in float32, and in the precision to be proven; what is not finite agrees with nothing.
            labels: of the clips, None where unknown.
        """
        finite = np.isfinite(expected).all(axis=1) & np.isfinite(found).all(axis=1)
        first, second = expected.argmax(axis=1), found.argmax(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(softmax(expected) - softmax(found))
        apart[~finite] = 1.0
        known = np.array([label is not None for label in labels], bool)
        truth = np.array([-1 if label is None else label for label in labels])
        return cls(
            len(expected), int((finite & (first == second)).sum()), float(apart.max()), float(apart.mean()),
            int(known.sum()), int((known & (first == truth)).sum()), int((known & finite & (second == truth)).sum()),
        )  # fmt: skip

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> AgreementStats:
        """Figures from plain data. Raises ValueError, KeyError or TypeError where no comparison gives such."""
        figures = cls(**values)
        for name in cls._fields:
            _check_number(name, values[name], float if name in ("largest", "mean") else int)
        whole = figures.equal <= figures.clips and max(figures.right, figures.right_fp32) <= figures.labelled
        if not (figures.clips and whole and figures.labelled <= figures.clips and figures.mean <= figures.largest <= 1):
            raise ValueError("the figures contradict each other")
        return figures

    def refusal(self, bounds: Bounds) -> str:
        """Why they prove nothing; "" where enough clips keep to the bounds."""
        if self.clips < FEWEST:
            return f"not proven: {self.clips} clips were compared, at least {FEWEST} are needed"
        reasons = []
        if self.equal < bounds.agreement * self.clips:
            reasons.append(f"fewer than {bounds.agreement:.2%} of the clips keep their class")
        if self.largest > bounds.difference:
            reasons.append(f"a probability differs by more than {bounds.difference:g}")
        return f"refused: {', and '.join(reasons)}" if reasons else ""

    def words(self) -> str:
        """One line."""
        line = (
            f"{self.equal} of {self.clips} clips keep their class, probabilities differ by {self.largest:.4f} at most, "
            f"{self.mean:.6f} on average"
        )
        if self.labelled:
            line += f"; top-1 {self.right / self.labelled:.4f}, in float32 {self.right_fp32 / self.labelled:.4f}"
        return line


class Speed(NamedTuple):
    """Seconds a clip, medians, of two engines that ran in turns, with nothing beside them."""

    fp32: str  # the engine that computes in float32
    batch: int  # clips at once
    seconds_fp32: float
    seconds: float

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Speed:
        """From plain data. Raises ValueError, KeyError or TypeError where nothing takes such time."""
        speed = cls(**values)
        _check_number("batch", speed.batch, int)
        for seconds in (speed.seconds_fp32, speed.seconds):
            _check_number("seconds", seconds, float)
        if not isinstance(speed.fp32, str) or not (speed.batch and speed.seconds and speed.seconds_fp32):
            raise ValueError("no engine is so fast")
        return speed

    @property
    def ratio(self) -> float:
        """How many times as fast as float32."""
        return self.seconds_fp32 / self.seconds

    def words(self) -> str:
        """A few."""
        return f"{self.ratio:.2f} times as fast as float32 by {self.fp32:.60}, {self.batch} at once"


def _check_number(name: str, value: float, kind: type[int | float]) -> None:
    if type(value) is not kind or not 0 <= value < _LARGEST:
        raise ValueError(f"{name} is {value!r:.20}")


class ValidationReport(NamedTuple):
    """A proof, or the lack of one: what was compared, where, and what came of it."""

    precision: str
    processor: Processor
    runtimes: dict[str, str]  # versions
    sha256: str  # of the file that was run
    calibration: dict[str, Any]  # "clips", how many; "sha256", of the list they are from
    in_float32: list[str]  # layers that were left so
    searched: bool  # no more layers can be left so
    figures: AgreementStats
    speed: Speed

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> ValidationReport:
        """A record from plain data that anyone may have written. Raises ValueError, KeyError or TypeError."""
        fields = {name: values[name] for name in cls._fields}
        fields["processor"] = processor = Processor(**fields["processor"])
        fields["figures"], fields["speed"] = AgreementStats.read(fields["figures"]), Speed.read(fields["speed"])
        record = cls(**fields)
        texts = [record.precision, record.sha256, *record.runtimes.values(), *record.in_float32]
        texts += [processor.model, processor.instructions, record.calibration["sha256"]]
        if (
            not all(isinstance(text, str) for text in texts)
            or type(record.calibration["clips"]) is not int
            or type(record.searched) is not bool
        ):
            raise ValueError("a value is of another type")
        return record

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        parts = {name: getattr(self, name)._asdict() for name in ("processor", "figures", "speed")}
        return {**self._asdict(), **parts}

    def words(self) -> str:
        """One line: how right, and how fast."""
        return f"{self.figures.words()}; {self.speed.words()}"

    def foreign(self, runtimes: Mapping[str, str]) -> str:
        """What it was made with that is not what is here; "" where nothing is."""
        here = this_processor()
        if self.processor != here:
            return f"another processor ({self.processor.model:.60})"
        if self.runtimes != dict(runtimes):
            return f"other versions ({', '.join(f'{name} {version}' for name, version in self.runtimes.items())})"
        return ""


def read_record(path: StrPath) -> ValidationReport:
    """The record in a file. Raises OSError, ValueError, KeyError or TypeError where there is none."""
    return ValidationReport.read(parse_json(read_regular(path, _RECORD_BYTES)))
