"""Worker processes that can be killed: a file that hangs or crashes a decoder does not stop the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, NamedTuple, TypeVar

from stnet.utils.processes import Child, ChildDied
from stnet.utils.progress import Progress

_LINE_EVERY = 50  # items, at least, where there is no terminal for a bar
Item = TypeVar("Item")
Result = TypeVar("Result")


class Lost(NamedTuple):
    """Result of an item whose worker was killed after the timeout ("hang"), or died ("crash")."""

    problem: str
    reason: str


def work(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, timeout: float, chunk: int = 1
) -> Iterator[tuple[Item, Result | Lost]]:
    """Call `function(item)` for each item in forked worker processes.

    Args:
        function: runs in the workers; its result is sent through a pipe, so keep it small.
        items: each must be picklable.
        workers: number of processes. Each is used for many items; one that was killed is forked again.
        timeout: seconds that one item may take.
        chunk: items sent to a worker at a time. More than 1 pays where an item takes milliseconds.

    Yields:
        (item, result), in the order of completion; the result is a Lost where the worker was lost.

    Raises:
        UserError: raised by `function`.
        RuntimeError: a bug in `function`, with its traceback.
    """
    queue = deque(items)
    running: list[_Worker] = []
    try:
        while queue or any(worker.items for worker in running):
            for worker in running:
                if queue and len(worker.items) <= chunk // 2:  # before the last ones are done
                    worker.send(queue, chunk)
            while queue and len(running) < workers:
                running.append(_Worker(function))
                running[-1].send(queue, chunk)
            busy = [worker for worker in running if worker.items]
            left = min(worker.begun for worker in busy) + timeout - time.monotonic()
            wait([worker.child.pipe for worker in busy], max(0.0, left))
            for worker in busy:
                results = worker.receive(timeout)
                if worker.child.ended:
                    running.remove(worker)
                    queue.extendleft(reversed(worker.items))
                yield from results
    finally:
        for worker in running:
            worker.child.kill()


def work_with_progress(
    function: Callable[[Item], Result], items: Sequence[Item], what: str, **settings: Any
) -> Iterator[tuple[Item, Result | Lost]]:
    """Call `work`, with a bar or log lines that show rate and time left."""
    progress = Progress(len(items), what, len(items), min(1000, max(_LINE_EVERY, len(items) // 20)))
    try:
        for item, result in work(function, items, **settings):
            yield item, result
            progress.update(1)
    finally:
        progress.close()


class _Worker:
    """A child process, and the items that it was sent and has not answered, the current one first."""

    def __init__(self, function: Callable) -> None:
        self.child = Child(function)
        self.items: deque = deque()
        self.begun = 0.0  # time.monotonic() at which the current item began

    def send(self, queue: deque, chunk: int) -> None:
        """Send items from the queue."""
        items = [queue.popleft() for _ in range(min(chunk, len(queue)))]
        if not self.items:
            self.begun = time.monotonic()
        self.items.extend(items)
        self.child.send(items)

    def receive(self, timeout: float) -> list[tuple[Any, Any]]:
        """Receive (item, result) of the finished items. The result is a Lost where the child has ended."""
        results: list[tuple[Any, Any]] = []
        try:
            while self.items and self.child.pipe.poll():
                answer = self.child.receive(0)
                results.append((self.items.popleft(), answer))
                self.begun = time.monotonic()
        except ChildDied as error:
            results.append((self.items.popleft(), Lost("crash", str(error))))
            return results
        if self.items and time.monotonic() > self.begun + timeout:
            self.child.kill()
            lost = Lost("hang", f"it took more than {timeout:g} s; the process was stopped")
            results.append((self.items.popleft(), lost))
        return results
