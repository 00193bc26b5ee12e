"""The proof that a network in fewer bits still gives the classes of float32: its figures, its record, its verdict."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backends.processor import Processor, this_processor
from core.files import StrPath, read_regular
from metrics.probabilities import softmax

FEWEST = 200  # clips of a proof
AGREEMENT = 0.99  # share of clips with equal most probable class, by default
RECORD = "record.json"
_RECORD_BYTES = 1 << 20


class Precision(NamedTuple):
    """The number format that is asked for.

    Args:
        name: fp32, bf16, int8 or auto.
        calibrate: a list, folder or glob of clips to calibrate and to prove it with; "": a proof that is kept.
        agreement: share of the clips that must keep their class.
        unproven: use it all the same where they do not, or where they are too few.
    """

    name: str = "fp32"
    calibrate: str = ""
    agreement: float = AGREEMENT
    unproven: bool = False


class Figures(NamedTuple):
    """What two engines gave for the same clips."""

    clips: int
    equal: int  # clips whose most probable class is the same
    largest: float  # difference of a probability
    mean: float  # difference of the probabilities
    labelled: int  # clips whose class is known
    right_fp32: int  # of these, those that float32 classifies rightly
    right: int
    seconds_fp32: float  # a clip, median
    seconds: float

    @classmethod
    def of(
        cls, expected: np.ndarray, found: np.ndarray, labels: Sequence[int | None], seconds: tuple[float, float]
    ) -> Figures:
        """The figures of logits [clips, classes].

        Args:
            expected, found: in float32, and in the precision to be proven; what is not finite agrees with nothing.
            labels: of the clips, None where unknown.
            seconds: a clip, of both.
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
            *map(float, seconds),
        )  # fmt: skip

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Figures:
        """Figures from plain data. Raises ValueError, KeyError or TypeError where no comparison gives such."""
        figures = cls(**values)
        for name in cls._fields:
            value, kind = values[name], type(values[name])
            if kind is not _KINDS[name] or not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} is {value!r:.20}")
        whole = figures.equal <= figures.clips and max(figures.right, figures.right_fp32) <= figures.labelled
        whole = whole and figures.seconds > 0 and figures.seconds_fp32 > 0 and math.isfinite(figures.speedup)
        if not (figures.clips and whole and figures.labelled <= figures.clips and figures.mean <= figures.largest <= 1):
            raise ValueError("the figures contradict each other")
        return figures

    def refusal(self, agreement: float) -> str:
        """Why they prove nothing; "" where at least a share `agreement` of enough clips has its class."""
        if self.clips < FEWEST:
            return f"not proven: {self.clips} clips were compared, at least {FEWEST} are needed"
        if self.equal < agreement * self.clips:
            return f"refused: fewer than {agreement:.2%} of the clips keep their class"
        return ""

    @property
    def speedup(self) -> float:
        """How many times as fast as float32."""
        return self.seconds_fp32 / self.seconds if self.seconds else 0.0

    def words(self) -> str:
        """One line."""
        line = (
            f"{self.equal} of {self.clips} clips keep their class, probabilities differ by {self.largest:.4f} at most, "
            f"{self.mean:.6f} on average"
        )
        if self.labelled:
            line += f"; top-1 {self.right / self.labelled:.4f}, in float32 {self.right_fp32 / self.labelled:.4f}"
        return f"{line}; {self.speedup:.2f} times as fast"


_KINDS = {"clips": int, "equal": int, "largest": float, "mean": float, "labelled": int, "right_fp32": int}
_KINDS |= {"right": int, "seconds_fp32": float, "seconds": float}


class Record(NamedTuple):
    """A proof, or the lack of one: what was compared, where, and what came of it."""

    precision: str
    processor: Processor
    runtimes: dict[str, str]  # versions
    sha256: str  # of the file that was run
    calibration: dict[str, Any]  # "clips", how many; "sha256", of the list they are from
    in_float32: list[str]  # layers that were left so
    figures: Figures

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Record:
        """A record from plain data that anyone may have written. Raises ValueError, KeyError or TypeError."""
        fields = {name: values[name] for name in cls._fields}
        fields["processor"] = processor = Processor(**fields["processor"])
        fields["figures"] = Figures.read(fields["figures"])
        record = cls(**fields)
        texts = [record.precision, record.sha256, *record.runtimes.values(), *record.in_float32]
        texts += [processor.model, processor.instructions, record.calibration["sha256"]]
        if not all(isinstance(text, str) for text in texts) or type(record.calibration["clips"]) is not int:
            raise ValueError("a value is of another type")
        return record

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return {**self._asdict(), "processor": self.processor._asdict(), "figures": self.figures._asdict()}

    def foreign(self, runtimes: Mapping[str, str]) -> str:
        """What it was made with that is not what is here; "" where nothing is."""
        here = this_processor()
        if self.processor != here:
            return f"another processor ({self.processor.model:.60})"
        if self.runtimes != dict(runtimes):
            return f"other versions ({', '.join(f'{name} {version}' for name, version in self.runtimes.items())})"
        return ""


def read_record(path: StrPath) -> Record:
    """The record in a file. Raises OSError, ValueError, KeyError, TypeError or RecursionError where there is none."""
    return Record.read(json.loads(read_regular(path, _RECORD_BYTES)))
