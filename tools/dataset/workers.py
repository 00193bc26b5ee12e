"""Work over many files in processes that can be killed: a file that hangs or crashes a decoder costs that file only."""

import contextlib
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from multiprocessing.connection import wait
from typing import NamedTuple

from core.errors import UserError
from core.processes import die_with_parent
from core.progress import Progress


class Lost(NamedTuple):
    """Instead of a result: the worker had to be killed ("hang"), or died ("crash")."""

    problem: str
    reason: str


def work(function, items, workers, timeout, chunk=1):
    """Call `function(item)` for each item in forked worker processes.

    Args:
        function: runs in the workers; what it returns travels through a pipe, so keep it small.
        items: list; each must be picklable.
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
        while queue or any(worker.given for worker in crew):
            for worker in crew:
                worker.top_up(queue, chunk)
            busy = [worker for worker in crew if worker.given]
            left = min(worker.deadline for worker in busy) - time.monotonic()
            wait([worker.pipe for worker in busy], max(0.0, left))
            for worker in busy:
                yield from worker.finished(queue)
    finally:
        for worker in crew:
            worker.end()


def work_with_progress(function, items, what, **settings):
    """`work`, with a bar or log lines that show rate and time left."""
    progress = Progress(len(items), what, len(items), min(1000, max(1, len(items) // 20)))
    try:
        for item, result in work(function, items, **settings):
            yield item, result
            progress.update(1)
    finally:
        progress.close()


def cores():
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """One forked process, forked when there is work, and the items it was given, the current one first."""

    def __init__(self, function, timeout):
        self.function, self.timeout = function, timeout
        self.process = None
        self.given = deque()
        self.deadline = 0.0

    def top_up(self, queue, chunk):
        """Give more items from the queue before the last ones are done."""
        if not queue or len(self.given) > chunk // 2:
            return
        if self.process is None:
            self._start()
        items = [queue.popleft() for _ in range(min(chunk, len(queue)))]
        if not self.given:
            self.deadline = time.monotonic() + self.timeout
        self.given.extend(items)
        with contextlib.suppress(OSError):  # it crashed meanwhile, as `finished` will see
            self.pipe.send(items)

    def finished(self, queue):
        """List of (item, result) that are there; what a lost worker had yet to do goes back to the queue."""
        done = []
        try:
            while self.given and self.pipe.poll():
                answer = self.pipe.recv()
                if isinstance(answer, Exception):
                    raise answer
                done.append((self.given.popleft(), answer[0]))
                self.deadline = time.monotonic() + self.timeout
        except (EOFError, ConnectionError):
            done.append((self.given.popleft(), self._lost(timed_out=False)))
        else:
            if self.given and time.monotonic() > self.deadline:
                done.append((self.given.popleft(), self._lost(timed_out=True)))
        if self.process is None:
            queue.extendleft(reversed(self.given))
            self.given.clear()
        return done

    def end(self):
        """Kill and reap the process."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
            self.pipe.close()
            self.process = None

    def _start(self):
        context = multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(self.function, theirs, os.getpid()), daemon=True)
        self.process.start()
        theirs.close()

    def _lost(self, timed_out):
        process = self.process
        if not timed_out:
            process.join()
        self.end()
        if timed_out:
            return Lost("hang", f"it took more than {self.timeout:g} s; the process was stopped")
        if process.exitcode < 0:
            return Lost("crash", f"the decoder crashed ({signal.Signals(-process.exitcode).name})")
        return Lost("crash", f"the decoder ended itself (exit code {process.exitcode})")


def _serve(function, pipe, parent):
    """A worker's whole life."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders write there about damaged files; the report names those
    while True:
        for item in pipe.recv():
            try:
                answer = (function(item),)
            except UserError as error:
                answer = error
            except Exception:  # a bug: the parent raises it, with this traceback
                answer = RuntimeError(f"at {item!r:.300}:\n{traceback.format_exc()}")
            pipe.send(answer)
