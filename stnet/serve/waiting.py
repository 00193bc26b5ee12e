"""Waiting for a time, and for one of a number of slots, without losing a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Answer = TypeVar("Answer")


async def in_time(coming: Awaitable[Answer], seconds: float) -> Answer:
    """As asyncio.wait_for, which before Python 3.12 loses a cancellation that comes just when the work is done.

    Whatever comes of it, the work has ended afterwards.

    Raises:
        asyncio.TimeoutError: the work was cancelled, as it took longer.
    """
    task = asyncio.ensure_future(coming)
    try:
        await asyncio.wait({task}, timeout=max(0.0, seconds))
    except asyncio.CancelledError:
        await _end(task)
        raise
    if not task.done():
        await _end(task)
        raise asyncio.TimeoutError
    return task.result()


async def _end(task: asyncio.Future[Answer]) -> None:
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # nobody else asks for it
