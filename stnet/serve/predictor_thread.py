"""The one thread in which the network computes, batches of clips and stages of timelines one after another."""

from __future__ import annotations

import asyncio
import copy
import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from stnet import runtime
from stnet.inference.result import Result
from stnet.models.streaming import Run
from stnet.reader.clip import Clip
from stnet.serve.limits import Stats

if TYPE_CHECKING:
    from stnet.backends.stages import StagedNetwork
    from stnet.inference.predictor import Predictor  # needs Paddle, which is imported once the address is bound


class Waiting(NamedTuple):
    """A clip that waits for its batch."""

    clip: Clip
    topk: int
    answer: asyncio.Future[Result]


class PredictorThread:
    """A Predictor in a thread of its own.

    Args:
        predictor: its engine is made in this thread.
        window: seconds that a clip waits for others in its batch.
        stats: counters.
    """

    def __init__(self, predictor: Predictor, window: float, stats: Stats) -> None:
        self.predictor, self.window, self.stats = predictor, window, stats
        self.thread = ThreadPoolExecutor(1, "network", runtime.start_thread)
        self.waiting: deque[Waiting] = deque()
        self.at_work: asyncio.Task[None] | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Queue a function call; for other threads."""

        def timed() -> Any:
            with self.stats.computing():
                return function(*arguments)

        return self.thread.submit(timed)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Queue a function call, and await what it returns."""
        return await asyncio.wrap_future(self.submit(function, *arguments))

    async def prepare(self, function: Callable[[], Any]) -> None:
        """Call a function that makes the network ready; its time is not counted."""
        await asyncio.wrap_future(self.thread.submit(function))

    async def classify(self, clip: Clip, topk: int) -> Result:
        """Classify a clip, in a batch with others that come at about the same time; at least `topk` classes."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.waiting.append(Waiting(clip, topk, answer))
        if self.at_work is None:
            self.at_work = asyncio.ensure_future(self._work())
        return await answer  # _work skips it, if cancelled

    async def _work(self) -> None:
        """Compute batches until no clip waits."""
        try:
            while self.waiting:
                if len(self.waiting) < self.predictor.order.batch_size:
                    await asyncio.sleep(self.window)
                batch: list[Waiting] = []
                while self.waiting and len(batch) < self.predictor.order.batch_size:
                    entry = self.waiting.popleft()
                    if not entry.answer.done():
                        batch.append(entry)
                if batch:
                    await self._compute(batch)
        finally:
            self.at_work = None

    async def _compute(self, batch: list[Waiting]) -> None:
        self.stats.batches[len(batch)] += 1
        try:
            topk = max(entry.topk for entry in batch)
            results = await self.call(self.predictor.results_of, [entry.clip for entry in batch], topk)
        except Exception as error:
            for entry in batch:
                if not entry.answer.done():
                    entry.answer.set_exception(error)
            return
        for entry, result in zip(batch, results):
            if not entry.answer.done():
                entry.answer.set_result(result)

    def queued(self, staged: StagedNetwork, check: Callable[[], None]) -> StagedNetwork:
        """Copy of a staged network for another thread, each run of a stage queued in this one.

        Args:
            staged: made in this thread.
            check: called before each run; raises to stop.
        """

        def run_queued(run: Run, values: Any) -> Any:
            check()
            return self.submit(run, values).result()

        queued = copy.copy(staged)
        queued.runs = [functools.partial(run_queued, run) for run in staged.runs]
        return queued

    def close(self) -> None:
        """Stop the thread, once it is idle."""
        self.thread.shutdown()
