"""Validation report: agreement of low precision with float32 on the user's clips, speed, and the processor."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stnet import runtime
from stnet.metrics.probabilities import softmax
from stnet.utils.files import StrPath, read_regular
from stnet.utils.parsing import parse_json

FEWEST = 200  # clips of a report that is accepted
RECORD = "record.json"
_RECORD_BYTES = 1 << 20
_LARGEST = 1e15  # bound on any number in a record


class Processor(NamedTuple):
    """Model and instruction sets of a processor, as far as number formats depend on them."""

    model: str
    vnni: bool  # products of bytes are summed without saturating
    bf16: bool
    instructions: str  # digest of the names of all instruction sets


def this_processor() -> Processor:
    """Read the processor that this runs on; outside of Linux its fields are empty."""
    pairs = (line.partition(":") for line in runtime.processor().splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, _, value in pairs}
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    model = " ".join(facts[key] for key in ("model name", "cpu family", "model", "stepping") if key in facts)
    vnni = bool(flags & {"avx512_vnni", "avx_vnni", "asimd"})  # ARM never saturates
    bf16 = bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})
    return Processor(model, vnni, bf16, hashlib.sha256(" ".join(sorted(flags)).encode()).hexdigest()[:16])


class Bounds(NamedTuple):
    """Limits of the disagreement with float32; docs/precision.md says how the defaults were chosen.

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
        calibrate: list, folder or glob of clips to calibrate and compare with; "": use the cached validation report.
        agreement, difference: see Bounds.
        unproven: use it even where the bounds are exceeded or the clips are too few.
    """

    name: str = "fp32"
    calibrate: str = ""
    agreement: float = Bounds().agreement
    unproven: bool = False
    difference: float = Bounds().difference

    @property
    def bounds(self) -> Bounds:
        """Agreement and difference together."""
        return Bounds(self.agreement, self.difference)


class AgreementStats(NamedTuple):
    """Agreement of two engines on the same clips."""

    clips: int
    equal: int  # clips whose most probable class is the same
    largest: float  # difference of a probability
    mean: float  # difference of the probabilities
    labelled: int  # clips whose class is known
    right_fp32: int  # of these, those that float32 classifies rightly
    right: int

    @classmethod
    def of(cls, expected: np.ndarray, found: np.ndarray, labels: Sequence[int | None]) -> AgreementStats:
        """Compare logits [clips, classes].

        Args:
            expected, found: in float32 and in low precision; a row that is not finite agrees with nothing.
            labels: of the clips, None where unknown.
        """
        finite = np.isfinite(expected).all(axis=1) & np.isfinite(found).all(axis=1)
        first, second = expected.argmax(axis=1), found.argmax(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            differences = np.abs(softmax(expected) - softmax(found))
        differences[~finite] = 1.0
        known = np.array([label is not None for label in labels], bool)
        truth = np.array([-1 if label is None else label for label in labels])
        return cls(
            len(expected), int((finite & (first == second)).sum()), float(differences.max()), float(differences.mean()),
            int(known.sum()), int((known & (first == truth)).sum()), int((known & finite & (second == truth)).sum()),
        )  # fmt: skip

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> AgreementStats:
        """Parse plain data. Raises ValueError, KeyError or TypeError where the numbers contradict each other."""
        stats = cls(**values)
        for name in cls._fields:
            _check_number(name, values[name], float if name in ("largest", "mean") else int)
        counts = stats.equal <= stats.clips and max(stats.right, stats.right_fp32) <= stats.labelled <= stats.clips
        if not (stats.clips and counts and stats.mean <= stats.largest <= 1):
            raise ValueError("the figures contradict each other")
        return stats

    def refusal(self, bounds: Bounds) -> str:
        """Reason for which low precision is refused; "" where enough clips keep to the bounds."""
        if self.clips < FEWEST:
            return f"not proven: {self.clips} clips were compared, at least {FEWEST} are needed"
        reasons = []
        if self.equal < bounds.agreement * self.clips:
            reasons.append(f"fewer than {bounds.agreement:.2%} of the clips keep their class")
        if self.largest > bounds.difference:
            reasons.append(f"a probability differs by more than {bounds.difference:g}")
        return f"refused: {', and '.join(reasons)}" if reasons else ""

    def __str__(self) -> str:
        """Describe the agreement on one line."""
        line = (
            f"{self.equal} of {self.clips} clips keep their class, probabilities differ by {self.largest:.4f} at most, "
            f"{self.mean:.6f} on average"
        )
        if self.labelled:
            line += f"; top-1 {self.right / self.labelled:.4f}, in float32 {self.right_fp32 / self.labelled:.4f}"
        return line


class Speed(NamedTuple):
    """Median seconds a clip of two engines that ran in turns, with nothing else running."""

    fp32: str  # the engine that computes in float32
    batch: int  # clips at once
    seconds_fp32: float
    seconds: float

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Speed:
        """Parse plain data. Raises ValueError, KeyError or TypeError where a number is impossible."""
        speed = cls(**values)
        _check_number("batch", speed.batch, int)
        for seconds in (speed.seconds_fp32, speed.seconds):
            _check_number("seconds", seconds, float)
        if not isinstance(speed.fp32, str) or not (speed.batch and speed.seconds and speed.seconds_fp32):
            raise ValueError("no engine is so fast")
        return speed

    @property
    def ratio(self) -> float:
        """Speed relative to float32; above 1 is faster."""
        return self.seconds_fp32 / self.seconds

    def __str__(self) -> str:
        """Describe the speed in a few words."""
        return f"{self.ratio:.2f} times as fast as float32 by {self.fp32:.60}, {self.batch} at once"


def _check_number(name: str, value: float, kind: type[int | float]) -> None:
    if type(value) is not kind or not 0 <= value < _LARGEST:
        raise ValueError(f"{name} is {value!r:.20}")


class ValidationReport(NamedTuple):
    """Record of one comparison with float32: the files, the processor, the versions, agreement and speed."""

    precision: str
    processor: Processor
    runtimes: dict[str, str]  # versions
    sha256: str  # of the file that was run
    calibration: dict[str, Any]  # "clips": number; "sha256": digest of the list that they are from
    in_float32: list[str]  # layers kept in float32
    searched: bool  # no further layers can be kept in float32
    figures: AgreementStats
    speed: Speed

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> ValidationReport:
        """Parse plain data from an untrusted file. Raises ValueError, KeyError or TypeError."""
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

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain data, which `read` takes."""
        parts = {name: getattr(self, name)._asdict() for name in ("processor", "figures", "speed")}
        return {**self._asdict(), **parts}

    def __str__(self) -> str:
        """Describe agreement and speed on one line."""
        return f"{self.figures}; {self.speed}"

    def foreign(self, runtimes: Mapping[str, str]) -> str:
        """Describe the other processor or versions that it was made with; "" where they are those of this machine."""
        if self.processor != this_processor():
            return f"another processor ({self.processor.model:.60})"
        if self.runtimes != dict(runtimes):
            return f"other versions ({', '.join(f'{name} {version}' for name, version in self.runtimes.items())})"
        return ""


def read_record(path: StrPath) -> ValidationReport:
    """Read a report from a file. Raises OSError, ValueError, KeyError or TypeError."""
    return ValidationReport.read(parse_json(read_regular(path, _RECORD_BYTES)))
