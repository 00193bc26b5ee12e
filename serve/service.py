"""The engine room of a server: places for requests, decoding in processes, one thread for the network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from serve.limits import Limits, Refused

if TYPE_CHECKING:
    from engine.predictor import Predictor

__all__ = ["Limits", "Place", "Refused", "Service"]


class Place(NamedTuple):
    """One of the places for requests."""

    deadline: float  # by time.monotonic


class Service:
    """Answers requests with one Predictor."""

    def __init__(self, predictor: Predictor, limits: Limits, decoders: int = 2, window: float = 0.01) -> None:
        self.predictor, self.limits = predictor, limits

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Take a place, from before the body is read until the answer is gone. Raises Refused(503)."""
        raise NotImplementedError
        yield

    async def classify(
        self,
        path: str,
        *,
        place: Place | None = None,
        topk: int | None = None,
        frames: bool = False,
        shares: bool = False,
    ) -> AsyncIterator[dict[str, Any]]:
        """{"state": ...} as it goes, at the end {"result": ...}. Raises Refused."""
        raise NotImplementedError
        yield {}

    async def timeline(
        self, path: str, *, place: Place | None = None, **settings: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """{"state", "seconds", "of"} as it goes, at the end {"result": ...}. Raises Refused."""
        raise NotImplementedError
        yield {}

    def info(self) -> dict[str, Any]:
        """What GET /api/info says."""
        raise NotImplementedError

    async def start(self) -> None:
        """Make the engine and the decoding processes, before the first request."""

    async def close(self) -> None:
        """Refuse new requests, and finish those that run."""
