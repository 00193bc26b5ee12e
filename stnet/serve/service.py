"""The service: slots for requests, decoding in processes, one thread for the network."""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from importlib import metadata
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from stnet.inference.explain import Explanation
from stnet.reader.decode import decoder_asked_for
from stnet.reader.formats import VIDEO
from stnet.reader.sources import format_of
from stnet.serve import timelines
from stnet.serve.decoding import Decoders, Job
from stnet.serve.limits import Limits, Refused, Stats, in_time
from stnet.serve.predictor_thread import PredictorThread
from stnet.timeline.events import unknown_note
from stnet.utils.errors import UserError

if TYPE_CHECKING:
    from stnet.inference.predictor import Predictor  # needs Paddle, which is imported once the address is bound

logger = logging.getLogger("stnet")
__all__ = ["Limits", "Slot", "Refused", "Service"]
Answer = TypeVar("Answer")
_LONGEST_RETRY = 60  # seconds
_POLL = 0.02  # seconds between looks at the queue while it closes


class Slot:
    """One of the slots for requests, and how the request in it ended.

    Args:
        deadline: of the request, by time.monotonic.
        seconds: that a request may take.
    """

    def __init__(self, deadline: float, seconds: float) -> None:
        self.deadline, self.seconds = deadline, seconds
        self.outcome = "gone"  # until it has ended otherwise

    async def within(self, work: Awaitable[Answer]) -> Answer:
        """Await work until the deadline, then cancel it. Raises Refused."""
        try:
            return await in_time(work, self.deadline - monotonic())
        except asyncio.TimeoutError:
            raise Refused(504, "time", f"it took more than the {self.seconds:g} s that a request may") from None

    @asynccontextmanager
    async def hold(self, semaphore: asyncio.Semaphore) -> AsyncIterator[None]:
        """Hold a semaphore, and release it also where the request is cancelled just as it gets it. Raises Refused."""
        acquired = asyncio.ensure_future(semaphore.acquire())
        try:
            await self.within(acquired)
            yield
        finally:
            if not acquired.cancelled():
                semaphore.release()


class Service:
    """Answers requests with one Predictor.

    All but `slot` and `info` runs in one event loop, in which `start` comes first and `close` last.

    Args:
        predictor: of videos.
        limits: of each request, and of all.
        decoders: processes that read videos.
        window: seconds that a clip waits for others in its batch.

    Attributes:
        stats: counters.

    Raises:
        UserError: the model takes no videos, or STNET_DECODER names no decoder.
    """

    def __init__(self, predictor: Predictor, limits: Limits, decoders: int = 2, window: float = 0.01) -> None:
        if format_of("upload.mp4", predictor.config.MODEL.format).lower() != VIDEO:
            raise UserError(f"uploads are videos, not what MODEL.format {predictor.config.MODEL.format} says")
        decoder_asked_for()  # a wrong name is refused here, not at each request
        self.predictor, self.limits, self.stats = predictor, limits, Stats()
        self.decoders = Decoders(decoders, limits, self.stats)
        self.thread = PredictorThread(predictor, window, self.stats)
        self.timeline_jobs = ThreadPoolExecutor(1, "timelines")  # one at a time
        self.seconds = 1.0  # from accepting a request to its answer, on average
        self.closing = False
        self.no_timeline: UserError | None = None  # why there is none, though the model could

    async def start(self) -> None:
        """Make the engine and the decoding processes, before the first request. Raises UserError."""
        self.one_timeline = asyncio.Semaphore(1)
        await self.decoders.start()
        await self.thread.prepare(lambda: self.predictor.engine)
        if _passes(self.predictor.engines.check_explains):
            await self.thread.prepare(lambda: self.predictor.engines.stages)
        if _passes(self._check_timeline):
            try:
                await self.thread.prepare(lambda: self.predictor.engines.timeline_stages)
            except UserError as error:
                self.no_timeline = error
                logger.warning("no timelines: %s", error)

    async def close(self) -> None:
        """Refuse new requests, finish running ones, and stop all threads and processes."""
        self.closing = True
        while self.stats.queue:
            await asyncio.sleep(_POLL)
        self.timeline_jobs.shutdown()
        self.thread.close()
        self.decoders.close()

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Hold a slot, from before the body is read until the answer is sent. Raises Refused."""
        if self.closing or self.stats.queue >= self.limits.queue:
            code, reason = ("closing", "it is closing") if self.closing else ("full", "all places are taken")
            self.stats.requests["place", code] += 1
            retry_after = max(1, min(_LONGEST_RETRY, math.ceil(self.seconds)))  # when a slot is likely to be free
            raise Refused(503, code, f"the server takes no request now: {reason}", retry_after)
        self.stats.queue += 1
        begun = monotonic()
        try:
            yield Slot(begun + self.limits.request_seconds, self.limits.request_seconds)
        finally:
            self.stats.queue -= 1
            self.seconds += 0.1 * (monotonic() - begun - self.seconds)

    def info(self) -> dict[str, Any]:
        """Facts about the model and the limits."""
        config, limits = self.predictor.config, self.limits._asdict()
        limits.pop("queue")
        try:
            version = metadata.version("stnet-paddle")
        except metadata.PackageNotFoundError:
            version = "of a checkout"
        return {
            "model": config.MODEL.name,
            "version": version,
            "weights": self.weights(),
            "num_classes": config.MODEL.num_classes,
            "topk": self.predictor.topk,
            "seg_num": config.section("infer").seg_num,
            "seglen": config.MODEL.seglen,
            "precision": self.predictor.engines.precision.name,
            "has_shares": _passes(self.predictor.engines.check_explains),
            "has_timeline": _passes(self._check_timeline),
            "limits": limits,
            "timeline": timelines.DEFAULTS,
            **({"reject": self.predictor.rejection._asdict()} if self.predictor.rejection else {}),
        }

    def weights(self) -> dict[str, str]:
        """File name and SHA-256 of the weights."""
        name = os.path.basename(self.predictor.weights).encode("utf-8", "backslashreplace").decode()
        return {"name": name, "sha256": self.predictor.digest}

    def _check_timeline(self) -> None:
        self.predictor.engines.check_stages()
        if self.no_timeline:
            raise self.no_timeline

    async def classify(
        self,
        path: str,
        *,
        slot: Slot | None = None,
        topk: int | None = None,
        frames: bool = False,
        shares: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """Classify a video: yields {"state": ...} on the way, at the end {"result": ...}.

        Args:
            path: of the upload; nothing else is opened.
            slot: of `slot`; None: one is taken.
            topk: number of classes; None: as many as the predictor gives.
            frames: with pictures of the segments.
            shares: with the shares of the segments in the logits.

        Raises:
            Refused
        """
        with self._counted("classify", slot) as slot:
            if topk is not None and topk < 1:
                raise Refused(400, "setting", f"topk: expected a whole number of at least 1, found {topk}")
            topk = min(topk or self.predictor.topk, self.predictor.config.MODEL.num_classes)
            if shares:
                _require(self.predictor.engines.check_explains)
            yield {"state": "queued"}
            job = Job(path, self.predictor.config.section("infer"), frames)
            async with slot.hold(self.decoders.slots):
                yield {"state": "decoding"}
                reading = await slot.within(self.decoders.read(job))
            yield {"state": "computing"}
            result = await slot.within(self.thread.classify(reading.clip, topk))
            answer = {
                "categories": timelines.categories(result, topk),
                **result.reject_facts,
                "video": reading.facts,
                "segments": reading.segments,
            }
            if shares:
                explanation = await slot.within(self.thread.call(result.explain, topk, 0))
                answer["shares"] = _shares(explanation)
            slot.outcome = "ok"
            yield {"result": {**answer, "notes": reading.notes}}

    async def timeline(self, path: str, *, slot: Slot | None = None, **settings: Any) -> AsyncIterator[dict[str, Any]]:
        """Make a timeline: yields {"state", "seconds", "of"} on the way, at the end {"result": ...}.

        Args:
            path, slot: as for `classify`.
            settings: window, stride, threshold, hold, shortest, as predict's; None: the default.

        Raises:
            Refused
        """
        with self._counted("timeline", slot) as slot:
            chosen = timelines.checked(settings)
            _require(self._check_timeline)
            yield {"state": "queued", "seconds": 0, "of": 0}
            async with slot.hold(self.one_timeline):
                yield {"state": "decoding", "seconds": 0, "of": 0}
                job = timelines.TimelineJob(self.predictor, self.thread, self.limits, path, chosen)
                job.begin(self.timeline_jobs)
                try:
                    windows = []
                    while (window := await slot.within(job.next())) is not None:
                        windows.append(window)
                        seconds, length = round(window.end, 2), round(job.length, 2)
                        yield {"state": "computing", "seconds": seconds, "of": length}
                finally:
                    await job.stop()
            predictor, judged = self.predictor, []
            if predictor.rejection:
                judged = predictor.rejection.judge(np.stack([window.logits for window in windows]))
                job.notes.append(unknown_note(judged))
            answer = timelines.summary(windows, predictor.labels, predictor.topk, chosen, judged)
            slot.outcome = "ok"
            yield {"result": {**answer, "notes": job.notes}}

    @contextmanager
    def _counted(self, action: str, slot: Slot | None) -> Iterator[Slot]:
        """Count the outcome of a request, in a new slot if it has none."""
        with ExitStack() as stack:
            slot = slot or stack.enter_context(self.slot())
            try:
                yield slot
            except Refused as error:
                slot.outcome = error.code
                raise
            except UserError as error:
                slot.outcome = "failed"
                raise Refused(500, "failed", str(error)) from None
            except Exception:  # a bug: counted, and passed on
                slot.outcome = "failed"
                raise
            finally:
                self.stats.requests[action, slot.outcome] += 1


def _shares(explanation: Explanation) -> list[dict[str, Any]]:
    """Shares of the segments in the logits of an explanation's classes, as plain data."""
    return [
        {"id": c.class_id, "name": c.label, "score": c.score, "logit": c.logit, "shares": c.shares, "rest": c.rest}
        for c in explanation.classes
    ]


def _passes(check: Callable[[], None]) -> bool:
    try:
        check()
    except UserError:
        return False
    return True


def _require(check: Callable[[], None]) -> None:
    try:
        check()
    except UserError as error:
        raise Refused(400, "cannot", str(error)) from None
