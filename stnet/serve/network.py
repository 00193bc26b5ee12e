"""The one thread in which the network computes; those who want something of it take turns there."""

from __future__ import annotations

import asyncio
import copy
import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from stnet import runtime
from stnet.serve.stats import Stats

if TYPE_CHECKING:
    from stnet.backends.parts import StagedNetwork
    from stnet.inference.predictor import Predictor
    from stnet.inference.result import Result
    from stnet.models.streaming import Run
    from stnet.reader.clip import Clip


class Waiting(NamedTuple):
    """A clip that waits for its batch."""

    clip: Clip
    topk: int
    answer: asyncio.Future[Result]


class Network:
    """A Predictor in a thread of its own.

    Args:
        predictor: makes its engine here.
        window: seconds that a clip waits for others to be computed with.
        stats: counts.
    """

    def __init__(self, predictor: Predictor, window: float, stats: Stats) -> None:
        self.predictor, self.window, self.stats = predictor, window, stats
        self.thread = ThreadPoolExecutor(1, "network", runtime.start_thread)
        self.waiting: deque[Waiting] = deque()
        self.at_work: asyncio.Task[None] | None = None

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Have a function called when it is its turn; for other threads."""
        return self.thread.submit(self._timed, function, *arguments)

    async def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function returns when it is its turn."""
        return await asyncio.wrap_future(self.submit(function, *arguments))

    async def prepare(self, function: Callable[[], Any]) -> None:
        """Call what makes the network ready, which is no answer's computing."""
        await asyncio.wrap_future(self.thread.submit(function))

    def _timed(self, function: Callable[..., Any], *arguments: Any) -> Any:
        with self.stats.computing():
            return function(*arguments)

    async def classify(self, clip: Clip, topk: int) -> Result:
        """The result of a clip, with at least so many classes; computed with others that come at about the time."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self.waiting.append(Waiting(clip, topk, answer))
        if self.at_work is None:
            self.at_work = asyncio.ensure_future(self._work())
        return await answer  # who is cancelled leaves a cancelled future behind, which is passed over

    async def _work(self) -> None:
        """Compute what waits, until nothing does."""
        try:
            while self.waiting:
                if len(self.waiting) < self.predictor.order.batch_size:
                    await asyncio.sleep(self.window)
                await self._compute(self._batch())
        finally:
            self.at_work = None

    def _batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        while self.waiting and len(batch) < self.predictor.order.batch_size:
            entry = self.waiting.popleft()
            if not entry.answer.done():
                batch.append(entry)
        return batch

    async def _compute(self, batch: list[Waiting]) -> None:
        if not batch:
            return
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

    def parts_in_turn(self, parts: StagedNetwork, go_on: Callable[[], None]) -> StagedNetwork:
        """A StagedNetwork for another thread, each step of which takes its turn here.

        Args:
            go_on: is called before each; raises to stop.
        """

        def in_turn(run: Run, values: Any) -> Any:
            go_on()
            return self.submit(run, values).result()

        turns = copy.copy(parts)
        turns.runs = [functools.partial(in_turn, run) for run in parts.runs]
        return turns

    def close(self) -> None:
        """End the thread, when it is idle."""
        self.thread.shutdown()
