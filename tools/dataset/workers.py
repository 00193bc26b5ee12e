"""Work over many files in processes that can be killed: a file that hangs or crashes a decoder costs that file only."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from core.errors import UserError
from core.processes import die_with_parent
from core.progress import Progress

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkProcess


Item = TypeVar("Item")
Result = TypeVar("Result")


class Lost(NamedTuple):
    """Instead of a result: the worker had to be killed ("hang"), or died ("crash")."""

    problem: str
    reason: str


def work(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, timeout: float, chunk: int = 1
) -> Iterator[tuple[Item, Result | Lost]]:
    """Call `function(item)` for each item in forked worker processes.

    Args:
        function: runs in the workers; what it returns travels through a pipe, so keep it small.
        items: each must be picklable.
        workers: processes. They live on from item to item; only one that had to be killed is forked anew.
        timeout: seconds that one item may take.
        chunk: items sent to a worker at a time. More than 1 pays where an item takes milliseconds.

    Yields:
        (item, result), in the order of completion; the result is a Lost where the worker was lost.

    Raises:
        UserError: raised by `function`.
        RuntimeError: a bug in `function`, with its traceback.
    """
    queue = deque(items)
    crew = [_Worker(function, timeout) for _ in range(min(workers, len(queue)))]
    try:
        while queue or any(worker.items for worker in crew):
            for worker in crew:
                worker.top_up(queue, chunk)
            busy = [worker for worker in crew if worker.items]
            left = min(worker.deadline for worker in busy) - time.monotonic()
            wait([worker.pipe for worker in busy], max(0.0, left))
            for worker in busy:
                yield from worker.finished(queue)
    finally:
        for worker in crew:
            worker.end()


def work_with_progress(
    function: Callable[[Item], Result], items: Sequence[Item], what: str, **settings: Any
) -> Iterator[tuple[Item, Result | Lost]]:
    """`work`, with a bar or log lines that show rate and time left."""
    progress = Progress(len(items), what, len(items), min(1000, max(1, len(items) // 20)))
    try:
        for item, result in work(function, items, **settings):
            yield item, result
            progress.update(1)
    finally:
        progress.close()


def cores() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """One forked process, forked when there is work, and the items it was given, the current one first."""

    pipe: Connection  # set while there is a process

    def __init__(self, function: Callable, timeout: float) -> None:
        self.function, self.timeout = function, timeout
        self.process: ForkProcess | None = None
        self.items: deque = deque()
        self.deadline = 0.0

    def top_up(self, queue: deque, chunk: int) -> None:
        """Give more items from the queue before the last ones are done."""
        if not queue or len(self.items) > chunk // 2:
            return
        if self.process is None:
            self._start()
        more = [queue.popleft() for _ in range(min(chunk, len(queue)))]
        if not self.items:
            self.deadline = time.monotonic() + self.timeout
        self.items.extend(more)
        with contextlib.suppress(OSError):  # it crashed meanwhile, as `finished` will see
            self.pipe.send(more)

    def finished(self, queue: deque) -> list[tuple[Any, Any]]:
        """(item, result) of those that are there; what a lost worker had yet to do goes back to the queue."""
        results = []
        try:
            while self.items and self.pipe.poll():
                answer = self.pipe.recv()
                if isinstance(answer, Exception):
                    raise answer
                results.append((self.items.popleft(), answer[0]))
                self.deadline = time.monotonic() + self.timeout
        except (EOFError, ConnectionError):
            results.append((self.items.popleft(), self._lost(timed_out=False)))
        else:
            if self.items and time.monotonic() > self.deadline:
                results.append((self.items.popleft(), self._lost(timed_out=True)))
        if self.process is None:
            queue.extendleft(reversed(self.items))
            self.items.clear()
        return results

    def end(self) -> None:
        """Kill and reap the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.function, theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()

    def _lost(self, timed_out: bool) -> Lost:
        process = self.process
        assert process is not None  # it was given items
        if not timed_out:
            process.join()
        self.end()
        if timed_out:
            return Lost("hang", f"it took more than {self.timeout:g} s; the process was stopped")
        code = process.exitcode
        assert code is not None  # it has ended
        if code < 0:
            return Lost("crash", f"the decoder crashed ({signal.Signals(-code).name})")
        return Lost("crash", f"the decoder ended itself (exit code {code})")


def _serve(function: Callable, pipe: Connection, parent: int) -> None:
    """A worker's whole life."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write there about damaged files; the report names those
    while True:
        for item in pipe.recv():
            try:
                answer: tuple | Exception = (function(item),)
            except UserError as error:
                answer = error
            except Exception:  # a bug: the parent raises it, with this traceback
                answer = RuntimeError(f"at {item!r:.300}:\n{traceback.format_exc()}")
            pipe.send(answer)
