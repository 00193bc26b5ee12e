"""A contender's own process: it builds its work, then does one timed iteration of it whenever it is asked.

Started by bench.measure.Contender. In what it is sent, a factory is "module:function"; called with the settings, it
returns a Work.
"""

import functools
import importlib
import os
import resource
import subprocess
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Callable, NamedTuple, Optional

from core.processes import die_with_parent


class Work(NamedTuple):
    """What a factory returns.

    Attributes:
        run: function of a case (plain data that says what to do); its time is measured.
        facts: function from what `run` returned to plain data, for comparing contenders; its time is not.
    """

    run: Callable
    facts: Optional[Callable] = None


def main(argv):
    """Serve until the parent closes the pipe or dies. Arguments: the pipe's number, the parent's process id."""
    die_with_parent(int(argv[1]))
    pipe = Connection(int(argv[0]))
    try:
        factory, settings = pipe.recv()
        work = _answer(pipe, lambda: build(factory, settings), keep=True)
        while work is not None:
            _answer(pipe, functools.partial(_iterate, work, *pipe.recv()))
    except (EOFError, BrokenPipeError):
        pass
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # some libraries hang or crash while they are taken down


def build(factory, settings):
    """What the function "module:function" returns for these keyword arguments."""
    module, _, function = factory.partition(":")
    return getattr(importlib.import_module(module), function)(**settings)


def _answer(pipe, act, keep=False):
    """Do something and send ("done", result), or (`keep`) return the result and send no more than ("done", None)."""
    try:
        result = act()
    except Exception as error:
        traceback.print_exc()
        lines = str(error).strip().splitlines()
        pipe.send(("raised", f"{type(error).__name__}: {lines[0] if lines else 'no message'}"))
        return None
    pipe.send(("done", None if keep else result))
    return result


def _iterate(work, case, times, wanted):
    """(seconds, seconds of processor time in all threads and ended child processes, facts or None) of an iteration.

    Times are means of `times` iterations, facts those of the last.
    """
    cpu, started = _cpu_seconds(), time.perf_counter()
    for _ in range(times):
        found = work.run(case)
    seconds, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    return seconds / times, cpu / times, work.facts(found) if wanted and work.facts else None


def _cpu_seconds():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def start_command(command, log, **variables):
    """Start a program that ends when this process does.

    Args:
        command: list of arguments.
        log: file for what it prints.
        variables: changes to the environment.

    Returns:
        subprocess.Popen.
    """
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **variables},
            preexec_fn=functools.partial(die_with_parent, os.getpid()),  # noqa: PLW1509 (no Python threads here)
        )


def check_ended(code, command, log):
    """Raise RuntimeError with the last line of a program's log unless its exit code is 0."""
    if code:
        raise RuntimeError(f"{' '.join(command[:3])} ended with {code}: {last_line(log)}")


def last_line(path):
    """The last line of a file that is not empty."""
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"


if __name__ == "__main__":
    main(sys.argv[1:])
