"""Limits of requests, refusals, waiting with a timeout, and counters: what the modules of the server share."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic
from typing import NamedTuple, TypeVar

Answer = TypeVar("Answer")


class Limits(NamedTuple):
    """Largest values for one request, and of all requests together."""

    bytes: int = 256 << 20  # of an upload
    seconds: float = 3600.0  # of a video
    frames: int = 120_000  # of a video
    pixels: int = 4096 * 2304  # of a frame
    request_seconds: float = 120.0  # from admission to the answer
    queue: int = 16  # requests accepted at once


class NotTaken(Exception):
    """The client does not read its answer."""


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: of HTTP.
        code: a word for programs.
        message: one plain line for people.
        retry_after: seconds after which to try again; None: it would be refused again.
    """

    expected = True  # the fault of a request, not of the code: it passes between processes without a traceback

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(status, code, message, retry_after)  # all of them: it is pickled
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def __str__(self) -> str:
        """The message."""
        return self.message


@dataclass
class Stats:
    """Counters since the start, and the number of slots in use."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)  # by action and outcome
    queue: int = 0  # slots in use
    batches: Counter[int] = field(default_factory=Counter)  # by size
    decodings: int = 0
    decoders_died: int = 0  # killed for taking too long, or crashed
    decoding_seconds: float = 0.0
    computing_seconds: float = 0.0
    lock: Lock = field(default_factory=Lock)  # for what several threads count

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Count a decoding, and its time."""
        begun = monotonic()
        try:
            yield
        finally:
            with self.lock:
                self.decodings += 1
                self.decoding_seconds += monotonic() - begun

    def decoder_died(self) -> None:
        """Count a decoding process that crashed or was killed."""
        with self.lock:
            self.decoders_died += 1

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Count the time of the network."""
        begun = monotonic()
        try:
            yield
        finally:
            self.computing_seconds += monotonic() - begun


async def in_time(work: Awaitable[Answer], seconds: float) -> Answer:
    """asyncio.wait_for, which before Python 3.12 loses a cancellation that comes just when the work is done.

    The work has ended when this returns or raises.

    Raises:
        asyncio.TimeoutError: the work took longer and was cancelled.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({task}, timeout=max(0.0, seconds))
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if not task.done():
        await _cancel(task)
        raise asyncio.TimeoutError
    return task.result()


async def _cancel(task: asyncio.Future[Answer]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # nobody else asks for it
