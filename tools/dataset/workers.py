"""Worker processes that can be killed: a file that hangs or crashes a decoder does not stop the others."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, NamedTuple, TypeVar

from stnet.utils.processes import Child
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
    crew = [_Worker(function, timeout) for _ in range(min(workers, len(queue)))]
    try:
        while queue or any(worker.items for worker in crew):
            for worker in crew:
                worker.top_up(queue, chunk)
            busy = [worker for worker in crew if worker.items]
            left = min(worker.deadline for worker in busy) - time.monotonic()
            wait([worker.child.pipe for worker in busy if worker.child], max(0.0, left))
            for worker in busy:
                yield from worker.finished(queue)
    finally:
        for worker in crew:
            worker.end()


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
    """One child process, forked when there is work, and the items it was given, the current one first."""

    def __init__(self, function: Callable, timeout: float) -> None:
        self.function, self.timeout = function, timeout
        self.child: Child | None = None
        self.items: deque = deque()
        self.deadline = 0.0

    def top_up(self, queue: deque, chunk: int) -> None:
        """Send more items from the queue before the last ones are done."""
        if not queue or len(self.items) > chunk // 2:
            return
        if self.child is None:
            self.child = Child(self.function)
        more = [queue.popleft() for _ in range(min(chunk, len(queue)))]
        if not self.items:
            self.deadline = time.monotonic() + self.timeout
        self.items.extend(more)
        self.child.send(more)

    def finished(self, queue: deque) -> list[tuple[Any, Any]]:
        """Collect (item, result) of finished items; the other items of a lost worker go back to the queue."""
        results: list[tuple[Any, Any]] = []
        try:
            while self.items and self.child is not None:
                answer = self.child.receive(0)
                results.append((self.items.popleft(), answer))
                self.deadline = time.monotonic() + self.timeout
        except EOFError:
            child, self.child = self.child, None
            assert child is not None  # it was given items
            results.append((self.items.popleft(), Lost("crash", f"the decoder {child.exit_reason()}")))
        except TimeoutError:  # no more answers yet
            if time.monotonic() > self.deadline:
                self.end()
                lost = Lost("hang", f"it took more than {self.timeout:g} s; the process was stopped")
                results.append((self.items.popleft(), lost))
        if self.child is None:
            queue.extendleft(reversed(self.items))
            self.items.clear()
        return results

    def end(self) -> None:
        """Kill the process."""
        if self.child is not None:
            self.child.kill()
            self.child = None
