"""Contenders: work that is done, and timed, in processes of its own."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, TimeoutError
from pathlib import Path
from typing import Any, Callable, NamedTuple
from uuid import uuid4

from stnet import runtime
from stnet.utils.processes import set_parent_death_signal

ROOT = Path(__file__).resolve().parents[1]
Run = Callable[
    [], Any
]  # one iteration; should the first return a function, that is called for the result, off the clock
Prepare = Callable[[], Run]  # what a contender does before: a function of a module, or functools.partial of one
_runs: list[Run] = []  # of this process, if it is a contender's


class Failed(Exception):
    """A contender raised, died or hung; the message says which."""


class Step(NamedTuple):
    """One iteration: seconds, processor seconds of all threads and ended child processes, and what it gives."""

    seconds: float
    cpu: float
    result: Any


class Contender:
    """A process with libraries and threads of its own, which ends when this object is closed or this process dies.

    It is stopped between its turns, as threads that spin for a while after their work would slow others down.

    Args:
        folder: its working directory, where its output goes, too.
        timeout: seconds that one answer may take.
    """

    def __init__(self, prepare: Prepare, folder: str, timeout: float) -> None:
        self.log, self.timeout = Path(folder, f"{uuid4()}.log"), timeout
        spawn = multiprocessing.get_context("spawn")
        self.pool = ProcessPoolExecutor(1, spawn, _start, (os.getpid(), folder, self.log))
        self.process = self.pool.submit(os.getpid)
        self.prepared = self.pool.submit(_prepare, prepare)

    def ready(self) -> None:
        """Wait until it is prepared. Raises Failed."""
        self._answer(self.prepared)
        self._signal(signal.SIGSTOP)

    def step(self, times: int = 1, gives: bool = True) -> Step:
        """The mean of some iterations, and the last one's result if it is to give one. Raises Failed."""
        self._signal(signal.SIGCONT)
        step = self._answer(self.pool.submit(_iterate, times, gives))
        self._signal(signal.SIGSTOP)
        return step

    def close(self) -> None:
        """End the process and its children."""
        self._signal(signal.SIGKILL)
        self.pool.shutdown()

    def _answer(self, future: Future) -> Any:
        try:
            return future.result(self.timeout)
        except BrokenExecutor:
            problem = "its process died"
        except TimeoutError:
            problem = f"no answer in {self.timeout:g} s; it was ended"
        except Exception as error:  # whatever its libraries raise
            problem = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        printed = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise Failed(f"{problem} (it printed last: {printed[-1][:200]})" if printed else problem)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(BrokenExecutor, ProcessLookupError):
            os.killpg(self.process.result(), number)


def _start(parent: int, folder: str, log: Path) -> None:
    os.setsid()  # so that its children can be ended with it
    set_parent_death_signal(parent)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    runtime.disable_telemetry()
    multiprocessing.set_start_method(None, force=True)  # the system's own again, for its data workers


def _prepare(prepare: Prepare) -> None:
    _runs.append(prepare())


def _iterate(times: int, gives: bool) -> Step:
    cpu, started = _cpu_seconds(), time.perf_counter()
    for _ in range(times):
        result = _runs[0]()
    seconds, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    return Step(seconds / times, cpu / times, (result() if callable(result) else result) if gives else None)


def _cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def program(*arguments: str, **variables: str) -> subprocess.Popen[bytes]:
    """Start Python in a contender's process, with changes to the environment; it ends with that process."""
    follow = functools.partial(set_parent_death_signal, os.getpid())
    return subprocess.Popen([sys.executable, *arguments], env={**os.environ, **variables}, preexec_fn=follow)  # noqa: PLW1509


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a program. Raises RuntimeError unless it ends with 0."""
    if process.wait():
        raise RuntimeError(f"a program ended with {process.returncode}")
