"""What a part of the benchmark is told, how it measures, what it shows, and how that is printed."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Callable, NamedTuple

from bench import clips
from bench.contender import Contender, Failed, Prepare, Step


class Timed(NamedTuple):
    """Seconds and processor seconds of a contender in each round, and the result of its first iteration."""

    seconds: list[float]
    cpu: list[float]
    result: Any = None

    def per(self, count: int) -> Timed:
        """The same for one of `count` equal things that an iteration did."""
        return Timed([value / count for value in self.seconds], [value / count for value in self.cpu], self.result)

    def ratio(self, other: Timed) -> float:
        """Median over the rounds of the ratios within one: a shared machine changes its speed within minutes."""
        return median(one / base for one, base in zip(self.seconds, other.seconds))


@dataclass
class Part:
    """One part of the benchmark: how to measure (first five), and what was found, as plain data.

    `folder` is the contenders' working directory. `rows` are times in seconds, `ratio` against the contender `base`;
    `aims` what a value should be at most, or at least, and must be where results have to agree.
    """

    name: str
    rounds: int
    quick: bool  # tiny networks and clips, to try whether everything runs
    threads: int
    folder: str
    description: str = ""
    notes: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    aims: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nobody failed and results agree; other aims may be missed."""
        return not self.failures and all(aim["met"] for aim in self.aims if aim["must"])

    def contender(self, prepare: Prepare) -> Contender:
        """A new one, to be closed."""
        return Contender(prepare, self.folder, timeout=120 if self.quick else 900)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """What a function returns that is called in a process of its own. Raises Failed."""
        with contextlib.closing(self.contender(functools.partial(functools.partial, function, *args))) as contender:
            contender.ready()
            return contender.step().result

    def time(
        self, prepares: Mapping[str, Prepare], rounds: int = 0, times: int = 1, warm: int = 1, per: int = 1
    ) -> dict[str, Timed]:
        """Have contenders do their work in turns, in an order that changes. Those that fail are noted and left out.

        Args:
            times: iterations in a turn; what counts is their mean.
            warm: turns before those that are measured.
            per: equal things that an iteration does; the times are of one.
        """
        steps: dict[str, list[Step]] = {name: [] for name in prepares}
        crew = {name: self.contender(prepare) for name, prepare in prepares.items()}
        try:
            for number in range(-1, warm + (rounds or self.rounds)):
                turn, names = max(0, number) % max(1, len(crew)), list(crew)
                for name in names[turn:] + names[:turn]:
                    try:
                        if number < 0:
                            crew[name].ready()
                        else:
                            steps[name].append(crew[name].step(times, gives=number == 0))
                    except Failed as error:
                        self.failures.append(f"{name}: {error}")
                        crew.pop(name).close()
        finally:
            for contender in crew.values():
                contender.close()
        columns = {name: list(zip(*steps[name][warm:])) for name in crew}
        return {
            name: Timed(list(columns[name][0]), list(columns[name][1]), steps[name][0].result).per(per) for name in crew
        }

    @contextlib.contextmanager
    def going_on(self, what: str) -> Iterator[None]:
        """Take Failed as a failure of `what`, not of the whole part."""
        try:
            yield
        except Failed as error:
            self.failures.append(f"{what}: {error}")

    def draw_clips(self, count: int, size: tuple[int, int], frames: int) -> list[str]:
        """Paths of different clips of (width, height), which a note describes."""
        name = f"{self.folder}/{size[0]}x{size[1]}x{frames}"
        paths = [clips.draw_clip(f"{name}_{number:03d}.mp4", size, frames, seed=number) for number in range(count)]
        self.notes.append(f"clips of {size[0]} x {size[1]}, {frames} frames, H.264 with libx264's own settings")
        return paths

    def add(self, group: str, timed: Mapping[str, Timed], base: str = "") -> None:
        """Rows of one group."""
        for name, one in timed.items():
            ratio = one.ratio(timed[base]) if base in timed else None
            row = {"group": group, "name": name, "median": median(one.seconds), "cpu": median(one.cpu)}
            self.rows.append({**row, "seconds": one.seconds, "base": base, "ratio": ratio})

    def aim(
        self, text: str, value: float, limit: float, least: bool = False, unit: str = "", must: bool = False
    ) -> None:
        """Compare a value with what it should be at most, or at least; `must`: where results have to agree."""
        met = bool(value >= limit if least else value <= limit)
        aim = {"text": text, "value": value, "unit": unit, "aim": limit, "least": least, "met": met, "must": must}
        self.aims.append(aim)

    def aim_ratio(
        self, timed: Mapping[str, Timed], names: tuple[str, str], group: str, limit: float, least: bool = False
    ) -> None:
        """Compare the ratio of two contenders with what it should be, where both were measured."""
        if set(names) <= set(timed):
            self.aim(f"{group}: {names[0]} / {names[1]}", timed[names[0]].ratio(timed[names[1]]), limit, least)

    def lines(self) -> Iterator[str]:
        """The findings as printed lines."""
        yield f"== {self.name}: {self.description}"
        yield from (f"   {note}" for note in self.notes)
        group = None
        for row in self.rows:
            if row["group"] != group:
                group = row["group"]
                yield f"\n   {group:<56}{'median':>10}{'cpu':>10}   ratio"
            against = f"{row['ratio']:8.2f} x {row['base']}" if row["ratio"] and row["base"] != row["name"] else ""
            yield f"     {row['name']:<54}{_seconds(row['median'])}{_seconds(row['cpu'])}{against}"
        yield ""
        for aim in self.aims:
            bound, met = "at least" if aim["least"] else "at most", "met" if aim["met"] else "missed"
            unit, word = aim["unit"], "must be" if aim["must"] else "aim"
            yield f"   {aim['text']} = {aim['value']:.3g}{unit} ({word} {bound} {aim['aim']:.3g}{unit}: {met})"
        yield from (f"   FAILED: {failure}" for failure in self.failures)


def _seconds(value: float) -> str:
    return f"{value:8.2f} s" if value >= 10 else f"{value * 1000:7.1f} ms"
