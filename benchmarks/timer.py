"""Timer of contenders: each in a process of its own, in turns, for several rounds, with ratios to the first.

A shared machine changes its speed within minutes: ratios are medians of the ratios within each round.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, TimeoutError
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Callable, NamedTuple

from stnet import runtime
from stnet.utils.processes import set_parent_death_signal

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[[], Any]  # one iteration; a function that it returns is called for the result, not timed
Prepare = Callable[[], Run]  # not timed: a function of a module, or functools.partial of one
_runs: list[Run] = []  # of this process, if it is a contender's


class Times(NamedTuple):
    """Seconds and processor seconds (threads and ended children) of each round, and the first turn's result."""

    seconds: list[float]
    cpu: list[float]
    result: Any = None

    def per(self, count: int) -> Times:
        """Divide by the number of items of an iteration."""
        return Times([value / count for value in self.seconds], [value / count for value in self.cpu], self.result)

    def ratio(self, other: Times) -> float:
        """Median of the ratios within each round."""
        return median(one / base for one, base in zip(self.seconds, other.seconds))


class Contender:
    """Process of one contender, which ends when it is closed or this process dies; it prints to standard error.

    It is paused between its turns, as threads that spin after their work would slow the others down.
    """

    def __init__(self, prepare: Prepare, folder: str, timeout: float) -> None:
        self.timeout = timeout
        self.pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start, (os.getpid(), folder))
        self.process = self.pool.submit(os.getpid)
        self.prepared = self.pool.submit(_prepare, prepare)

    def turn(self, times: int = 0) -> Any:
        """Run `times` iterations: (mean seconds, processor seconds, last result); 0: prepare. Raises RuntimeError."""
        self._signal(signal.SIGCONT)
        try:
            answer = (self.pool.submit(_iterate, times) if times else self.prepared).result(self.timeout)
        except BrokenExecutor:
            raise RuntimeError("its process died") from None
        except TimeoutError:
            raise RuntimeError(f"no answer in {self.timeout:g} s; it was ended") from None
        self._signal(signal.SIGSTOP)
        return answer

    def close(self) -> None:
        """End the process and its children."""
        self._signal(signal.SIGKILL)
        self.pool.shutdown()

    def _signal(self, number: int) -> None:
        with contextlib.suppress(BrokenExecutor, ProcessLookupError):
            os.killpg(self.process.result(), number)


def _start(parent: int, folder: str) -> None:
    os.setsid()  # so that its children can be ended with it
    set_parent_death_signal(parent)
    os.dup2(2, 1)
    os.chdir(folder)
    runtime.disable_telemetry()
    multiprocessing.set_start_method(None, force=True)  # the default again, for its data workers


def _prepare(prepare: Prepare) -> None:
    _runs.append(prepare())


def _iterate(times: int) -> tuple[float, float, Any]:
    cpu, started = _cpu_seconds(), time.perf_counter()
    for _ in range(times):
        result = _runs[0]()
    seconds, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    return seconds / times, cpu / times, result() if callable(result) else result


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Timer:
    """Measures contenders in a folder, prints tables, and keeps failures; `quick`: tiny sizes."""

    def __init__(self, rounds: int, quick: bool, folder: str) -> None:
        self.rounds, self.quick, self.folder, self.threads = rounds, quick, folder, runtime.threads()
        self.timeout = 120 if quick else 900  # seconds of one turn
        self.failures: list[str] = []
        self.tables: dict[str, Mapping[str, Times]] = {}

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function in a process of its own."""
        with contextlib.closing(Contender(partial(partial, function, *args), self.folder, self.timeout)) as contender:
            contender.turn()
            return contender.turn(1)[2]

    def time(self, prepares: Mapping[str, Prepare], rounds: int = 0, times: int = 1, warm: int = 1) -> dict[str, Times]:
        """Time contenders in turns of `times` iterations, in changing order; one that fails is left out.

        `warm` turns come before the `rounds` that are measured.
        """
        turns: dict[str, list[Any]] = {name: [] for name in prepares}
        contenders = {name: Contender(prepare, self.folder, self.timeout) for name, prepare in prepares.items()}
        with contextlib.ExitStack() as stack:
            for contender in contenders.values():
                stack.callback(contender.close)
            for number in range(1 + warm + (rounds or self.rounds)):  # in the first they are prepared
                first, names = max(0, number - 1) % max(1, len(contenders)), list(contenders)
                for name in names[first:] + names[:first]:
                    try:
                        turns[name].append(contenders[name].turn(times if number else 0))
                    except Exception as error:  # whatever its libraries raise
                        problem = (str(error).strip() or "no message").splitlines()[0]
                        self.fail(f"{name}: {type(error).__name__}: {problem}")
                        contenders.pop(name).close()
        rows = {name: list(zip(*turns[name][1 + warm :])) for name in contenders}
        return {name: Times(list(row[0]), list(row[1]), turns[name][1][2]) for name, row in rows.items()}

    def table(self, title: str, timed: Mapping[str, Times]) -> None:
        """Print medians, and ratios to the first."""
        self.tables[title] = timed
        print(f"\n{title:<60}{'median':>10}{'cpu':>10}   ratio")
        for name, one in timed.items():
            ratio = one.ratio(next(iter(timed.values())))
            print(
                f"  {name:<58}{_format_seconds(median(one.seconds))}{_format_seconds(median(one.cpu))}{ratio:8.2f}",
                flush=True,
            )

    def ratio(self, timed: Mapping[str, Times], one: str, other: str, aim: str) -> None:
        """Print the ratio of two contenders, where both were measured, and its aim."""
        if one in timed and other in timed:
            print(f"  {one} / {other} = {timed[one].ratio(timed[other]):.3g} (aim: {aim})", flush=True)

    def agree(self, text: str, difference: float, limit: float) -> None:
        """Print a difference of results; above the limit it is a failure."""
        print(f"  {text}: {difference:.3g} (must be at most {limit:.3g})", flush=True)
        if not difference <= limit:
            self.fail(f"{text}: {difference:.3g}")

    def fail(self, text: str) -> None:
        """Print a failure; the exit code will be 1."""
        self.failures.append(text)
        print(f"  FAILED: {text}", flush=True)


def _format_seconds(seconds: float) -> str:
    return f"{seconds:8.2f} s" if seconds >= 10 else f"{seconds * 1000:7.1f} ms"


def run(benchmark: Callable[[Timer], None], draw: Callable[[Mapping, str], None] | None = None) -> int:
    """Run a benchmark by the command line. Returns the exit code: 1 if a contender failed or results disagree."""
    flags = argparse.ArgumentParser(description=sys.modules[benchmark.__module__].__doc__)
    flags.add_argument("--rounds", type=int, default=5, help="turns of each contender that count (default: 5)")
    flags.add_argument("--quick", action="store_true", help="tiny sizes: does everything run? The times mean nothing")
    if draw:
        flags.add_argument("--picture", default="", metavar="FILE", help="draw the tables' ratios there, as PNG")
    args = flags.parse_args()
    os.environ.setdefault("STNET_THREADS", os.environ.get("OMP_NUM_THREADS", ""))
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        timer = Timer(max(1, args.rounds), args.quick, folder)
        print(f"== {benchmark.__name__}: {timer.threads} threads, {timer.rounds} rounds", flush=True)
        benchmark(timer)
    if draw and args.picture:
        draw(timer.tables, args.picture)
    return 1 if timer.failures else 0
