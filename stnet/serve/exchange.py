"""One upload, from its slot to the answer; cancelled when the client disconnects."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from stnet.serve.answers import FAULT, NDJSON, fault_of, line
from stnet.serve.limits import NotTaken, Refused
from stnet.serve.service import Service, Slot
from stnet.serve.uploads import UploadFolder, received

logger = logging.getLogger("stnet")
T = TypeVar("T")
Steps = AsyncIterator["dict[str, Any]"]


class AppState(NamedTuple):
    """Objects that answer requests."""

    service: Service
    folder: UploadFolder
    body_seconds: float  # timeout of an upload
    one_at_a_time: asyncio.Lock  # for bodies that are in memory whole


def app_state(request: Request) -> AppState:
    """AppState of the application that create_app built."""
    state: AppState = request.app.state.state
    return state


async def answer(request: Request, work: Callable[[str, Slot], Steps], as_lines: bool) -> Response:
    """Receive an upload, and answer with its result.

    Args:
        request: with the upload.
        work: called with path and slot; yields {"state": ...} and at the end {"result": ...}.
        as_lines: answer with a line for each of these, else with the result alone.

    Raises:
        Refused: before the first line.
        ClientDisconnect: the client left.
    """
    state = app_state(request)
    async with contextlib.AsyncExitStack() as stack:
        slot = stack.enter_context(state.service.slot())
        max_bytes = state.service.limits.bytes
        path = await stack.enter_async_context(received(request, state.folder, max_bytes, state.body_seconds))
        steps = work(path, slot)
        if isinstance(steps, AsyncGenerator):
            stack.push_async_callback(steps.aclose)
        if not as_lines:
            return JSONResponse(await unless_disconnected(request.receive, result_of(steps)))
        first = await unless_disconnected(request.receive, steps.__anext__())
        return NdjsonResponse(first, steps, stack.pop_all())


async def result_of(steps: Steps) -> dict[str, Any]:
    """Result of the last step."""
    result: dict[str, Any] = {}
    async for step in steps:
        result = step.get("result", result)
    return result


async def unless_disconnected(receive: Receive, work: Awaitable[T]) -> T:
    """Await `work`; cancel it and raise ClientDisconnect when the client leaves. The body must have been read."""

    async def disconnect() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnect())
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        gone.cancel()
        task.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class NdjsonResponse(Response):
    """NDJSON: a line for each step, as they come; the stack is closed at the end."""

    media_type = NDJSON

    def __init__(self, first: dict[str, Any], rest: Steps, stack: contextlib.AsyncExitStack) -> None:
        super().__init__(headers={"X-Accel-Buffering": "no"})  # asks proxies to pass each line on
        del self.headers["content-length"]
        self._first, self._rest, self._stack = first, rest, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all lines."""
        async with self._stack:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            with contextlib.suppress(ClientDisconnect):
                await unless_disconnected(receive, self._send_lines(send))

    async def _send_lines(self, send: Send) -> None:
        async def send_line(item: dict[str, Any], more: bool = True) -> None:
            await send({"type": "http.response.body", "body": line(item), "more_body": more})

        await send_line(self._first)
        try:
            async for step in self._rest:
                await send_line(step)
        except Refused as refused:
            await send_line(fault_of(refused))
        except NotTaken:
            raise
        except Exception:  # a bug: the status is sent already, so the last line says it
            logger.exception("a fault while a request was answered")
            await send_line(fault_of(FAULT))
        await send({"type": "http.response.body"})
