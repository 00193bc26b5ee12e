"""Timelines for requests: read in a process, computed in the network's thread, given window by window."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from stnet.inference.result import Result
from stnet.metrics.probabilities import softmax
from stnet.metrics.rejection import Judgement
from stnet.reader.errors import ClipError
from stnet.reader.windows import plan_windows
from stnet.serve.decoding import Cancellation, child_of, refusal
from stnet.serve.limits import Limits, Refused
from stnet.serve.predictor_thread import PredictorThread
from stnet.timeline.events import HOLD, THRESHOLD, counted, events_of
from stnet.timeline.windows import Timeline, Window
from stnet.utils.errors import UserError
from stnet.utils.processes import Child

if TYPE_CHECKING:
    from stnet.inference.predictor import Predictor  # needs Paddle, which is imported once the address is bound

DEFAULTS: dict[str, float | None] = {
    "window": 10.0,  # seconds
    "stride": 2.0,
    "threshold": THRESHOLD,  # see stnet.timeline.events
    "hold": HOLD,
    "shortest": None,  # seconds; None: half a window
}


def checked(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings completed with the defaults, and checked. Raises Refused."""
    unknown = sorted(settings.keys() - DEFAULTS)
    if unknown:
        raise Refused(400, "setting", f"{unknown[0]}: expected one of {', '.join(DEFAULTS)}")
    chosen = {**DEFAULTS, **{name: value for name, value in settings.items() if value is not None}}
    if chosen["shortest"] is None:
        chosen["shortest"] = chosen["window"] / 2
    try:
        plan_windows(chosen["window"], chosen["stride"], 1.0, 1, 1)
        events_of([], np.zeros((0, 1)), chosen["threshold"], chosen["hold"], chosen["shortest"])
    except UserError as error:
        raise Refused(400, "setting", str(error)) from None
    return chosen


class Stopped(Exception):
    """The request of this timeline was cancelled."""


class TimelineJob:
    """One video on its way through the network.

    Args:
        predictor: its timeline parts are made if they are not yet.
        thread: of the predictor.
        limits: of the video.
        path: of the video.
        settings: of `checked`.
    """

    def __init__(
        self, predictor: Predictor, thread: PredictorThread, limits: Limits, path: str, settings: dict[str, Any]
    ) -> None:
        self.predictor, self.thread, self.limits, self.path = predictor, thread, limits, path
        self.settings = settings
        self.cancellation = Cancellation()
        self.notes: list[str] = []
        self.length = 0.0  # seconds, as soon as it is known

    def begin(self, threads: ThreadPoolExecutor) -> None:
        """Start reading, in one of the threads."""
        loop = asyncio.get_running_loop()

        def put(window: Window | None) -> None:
            loop.call_soon_threadsafe(self.windows.put_nowait, window)

        self.windows: asyncio.Queue[Window | None] = asyncio.Queue()
        self.work = loop.run_in_executor(threads, self._run, put)

    async def next(self) -> Window | None:
        """Await the next window; None after the last.

        Raises:
            Refused: it cannot be read.
        """
        window = await self.windows.get()
        if window is None:
            await self.work
        return window

    async def stop(self) -> None:
        """Stop the work, if it is running."""
        self.cancellation.cancel()
        await asyncio.wait([self.work])
        self.work.exception()  # if there is one, `next` has raised it, or nobody waits

    def _run(self, put: Callable[[Window | None], None]) -> None:
        """Read the video and put each window, in a thread."""
        try:
            staged = self.thread.submit(lambda: self.predictor.engines.timeline_stages).result()
            queued = self.thread.queued(staged, self._raise_if_stopped)
            section = self.predictor.config.section("infer")
            sizes = self.settings["window"], self.settings["stride"]
            with closing(Timeline(queued, self.path, section, *sizes, child=self._start_child)) as timeline:
                self.length = timeline.facts.seconds
                for window in timeline.windows():
                    put(window)
                self.notes = timeline.notes
        except ClipError as error:
            raise refusal(error) from None
        finally:
            put(None)

    def _start_child(self, function: Callable[[Any], Any]) -> Child:
        """Start the process that reads."""
        child = child_of(self.limits, function)
        self.cancellation.hold(child)
        return child

    def _raise_if_stopped(self) -> None:
        if self.cancellation.cancelled:
            raise Stopped


def summary(
    windows: list[Window], labels: list[str], topk: int, settings: dict[str, Any], judged: list[Judgement]
) -> dict[str, Any]:
    """Windows and events of a video, as plain data. `judged`: whether each window is unknown; [] without rejection."""
    probabilities = softmax(np.stack([window.logits for window in windows]))
    spans = [(window.start, window.end) for window in windows]
    known = counted(probabilities, judged)
    events = events_of(spans, known, settings["threshold"], settings["hold"], settings["shortest"])
    pairs = zip(probabilities, judged or repeat(None))
    results = [Result.of(row, labels, topk, input_path=None, judged=judgement) for row, judgement in pairs]
    return {
        "windows": [
            {"start": round(start, 3), "end": round(end, 3), "categories": categories(result), **result.reject_facts}
            for (start, end), result in zip(spans, results)
        ],
        "events": [
            {
                "start": round(event.start, 3),
                "end": round(event.end, 3),
                "id": event.class_id,
                "name": labels[event.class_id],
                "score": event.probability,
            }
            for event in events
        ],
    }


def categories(result: Result, topk: int | None = None) -> list[dict[str, Any]]:
    """Classes of a result as plain data, the most probable first."""
    rows = list(zip(result.class_ids, result.label_names, result.scores))[:topk]
    return [{"id": number, "name": name, "score": score} for number, name, score in rows]
