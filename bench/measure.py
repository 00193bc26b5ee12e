"""Contenders, each in a process of its own, measured in turns; and what machine and versions they were measured on.

A shared or throttled machine changes its speed within minutes. So contenders take turns within each round, and a
ratio is the median over the rounds of the ratios within one.
"""

import contextlib
import importlib.metadata
import importlib.util
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any, NamedTuple

from bench.child import Work, build, last_line

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = (
    "paddlepaddle", "paddlepaddle-gpu", "numpy", "decord", "opencv-python", "opencv-python-headless", "pillow",
    "onnxruntime", "openvino", "torch", "paddle2onnx", "av",
)  # fmt: skip


class Settings(NamedTuple):
    """What every part is told.

    Attributes:
        rounds: of each measurement.
        quick: tiny networks and clips, to try whether everything runs.
        threads: that each contender computes with.
        folder: for files of the benchmark.
        environment: variables that contenders start with.
    """

    rounds: int
    quick: bool
    threads: int
    folder: str
    environment: dict

    def contender(self, name, factory, settings):
        """A new Contender."""
        return Contender(name, factory, settings, self.environment, self.folder, 120 if self.quick else 900)

    @contextlib.contextmanager
    def crew(self, factories):
        """A list of new Contenders from {name: (factory, its settings)}, all of which are closed at the end."""
        made = []
        try:
            for name, (factory, settings) in factories.items():
                made.append(self.contender(name, factory, settings))
            yield made
        finally:
            for contender in made:
                contender.close()

    def call(self, factory, **settings):
        """What a function returns that is called in a process of its own. Raises Failed."""
        with self.contender(factory, "bench.measure:once", {"function": factory, "settings": settings}) as made:
            return made.step(facts=True).facts


class Failed(Exception):
    """A contender raised, died or hung; the message says which."""


class Step(NamedTuple):
    """One iteration: seconds, seconds of processor time, and what the factory's Work.facts says of its result."""

    seconds: float
    cpu: float
    facts: Any


class Contender:
    """Work that is done in a new process, with libraries, threads and an environment of its own.

    The process is stopped between its turns, as threads that spin for a while after their work would slow others
    down. It ends when this object is closed or this process dies.

    Args:
        name: for people.
        factory: "module:function", see bench.child.
        settings: its keyword arguments.
        environment: variables of the process.
        folder: its working directory, where its output goes, too.
        timeout: seconds that one answer may take.
    """

    def __init__(self, name, factory, settings, environment, folder, timeout=900):
        self.name, self.timeout = name, timeout
        handle, self.log = tempfile.mkstemp(prefix="log-", dir=folder)
        path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH", "")]))
        self.pipe, theirs = Pipe()
        with theirs, os.fdopen(handle, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "bench.child", str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**environment, "PYTHONPATH": path},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # so that its children can be ended with it
            )
        self.pipe.send((factory, settings))
        self.is_ready = False

    def __enter__(self):
        """Itself."""
        return self

    def __exit__(self, *_):
        """End the process."""
        self.close()

    def ready(self):
        """Wait until the factory has returned. Raises Failed."""
        if not self.is_ready:
            self._receive()
            self.is_ready = True
            self._signal(signal.SIGSTOP)

    def step(self, case=None, times=1, facts=False):
        """The Step of an iteration, the mean of so many. Raises Failed, after which there are no more."""
        self.ready()
        self._signal(signal.SIGCONT)
        with contextlib.suppress(BrokenPipeError):  # reading says why
            self.pipe.send((case, times, facts))
        made = Step(*self._receive())
        self._signal(signal.SIGSTOP)
        return made

    def close(self):
        """End the process and its children."""
        if self.process.poll() is None:
            self._signal(signal.SIGKILL)
        self.process.wait()
        self.pipe.close()

    def _receive(self):
        try:
            if not self.pipe.poll(self.timeout):
                self.close()
                raise Failed(f"no answer in {self.timeout:g} s; it was ended")
            kind, value = self.pipe.recv()
        except (EOFError, ConnectionError):
            raise Failed(f"its process died ({_ending(self.process.wait())}): {last_line(self.log)}") from None
        if kind == "raised":
            self.close()
            raise Failed(value)
        return value

    def _signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def _ending(code):
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def once(function, settings):
    """Factory: call a function; its result is the facts."""
    return Work(lambda _: build(function, settings), lambda found: found)


class Timed(NamedTuple):
    """What was measured of one contender: seconds and processor seconds of each round, facts of its first result."""

    seconds: list
    cpu: list
    facts: Any

    @property
    def median(self):
        """Median seconds."""
        return statistics.median(self.seconds)

    def shared_by(self, count):
        """The same for one of `count` equal things that an iteration did."""
        return Timed([value / count for value in self.seconds], [value / count for value in self.cpu], self.facts)


def interleave(contenders, rounds, case=None, times=1, warm=1, failures=None):
    """Have contenders do their work in turns.

    Args:
        contenders: list of Contender; one that fails is closed and removed from it.
        rounds: turns of each that are measured. The order changes from round to round.
        case: what to do, see bench.child.Work.
        times: iterations in a turn; what counts is their mean.
        warm: turns before those that are measured.
        failures: list that gets a line for each contender that failed.

    Returns:
        contender's name -> Timed, without those that failed.
    """
    failures = [] if failures is None else failures
    steps = {contender.name: [] for contender in contenders}
    _try_each(contenders, contenders, lambda contender: contender.ready(), failures)
    for number in range(warm + rounds):
        turn = number % max(1, len(contenders))

        def step(contender, is_first=number == 0):
            steps[contender.name].append(contender.step(case, times, facts=is_first))

        _try_each(contenders, contenders[turn:] + contenders[:turn], step, failures)
    return {
        name: Timed([step.seconds for step in made[warm:]], [step.cpu for step in made[warm:]], made[0].facts)
        for name, made in steps.items()
        if name in {contender.name for contender in contenders}
    }


def _try_each(contenders, order, act, failures):
    """act(contender) for each in `order`; who fails leaves `contenders`."""
    for contender in list(order):
        try:
            act(contender)
        except Failed as error:
            contender.close()
            contenders.remove(contender)
            failures.append(f"{contender.name}: {error}")


def ratio(one, other, scale=1.0):
    """Median over the rounds of `scale` x one / other (Timed)."""
    return scale * statistics.median(a / b for a, b in zip(one.seconds, other.seconds))


def cpu_ratio(one, other):
    """The same by processor time, which other programs disturb less; it means little where idle threads spin."""
    return statistics.median(a / b for a, b in zip(one.cpu, other.cpu))


def installed(*modules):
    """Whether modules can be imported; they are not."""
    return all(importlib.util.find_spec(module) for module in modules)


def machine():
    """Processor, cores, memory, system, and how busy the machine is before the benchmark starts."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return {
        "cpu": _processor(),
        "cores": affinity,
        "memory_gb": round(memory, 1),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
    }


def _processor():
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def versions():
    """Version of Python and of each package that takes part, as far as it is installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
