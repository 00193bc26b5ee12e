"""uvicorn with an address bound early, timeouts for silent clients, an orderly shutdown, and JSON logs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from datetime import datetime, timezone
from types import FrameType
from typing import Any, NamedTuple, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from stnet.utils.errors import UserError
from stnet.utils.parsing import PrintableFormatter

_OTHER_PORT = "set --port to another, or to 0 for any that is free"
_CONNECTIONS = 512
_HEAD_BYTES = 16 << 10  # of the request line and the headers
_HEAD_SECONDS = 15.0  # until they are there


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC, ISO 8601), level, message, and the record's `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        content = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content)


def set_log_format(as_json: bool) -> None:
    """Let every handler of the root logger write JSON, or plain lines with a date."""
    plain = PrintableFormatter("[%(levelname)s %(asctime)s] %(message)s", "%Y-%m-%d %H:%M:%S")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(JsonFormatter() if as_json else plain)


class Address(NamedTuple):
    """Address at which a server listens.

    Attributes:
        socket: bound.
        host, port: numbers.
    """

    socket: socket.socket
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True where only this machine can connect."""
        return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback

    @property
    def url(self) -> str:
        """URL for a browser on this machine."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def bind(host: str, port: int) -> Address:
    """Bind an address, at which clients are refused until the server is ready.

    Raises:
        UserError: it is in use, or none of this machine's.
    """
    try:
        family, _, _, _, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(where)
        except OSError:
            taken.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        if getattr(error, "errno", 0) == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is in use by another program", _OTHER_PORT) from None
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"cannot listen at {host}, port {port}: {reason}", "set --host to an address of this machine"
        ) from None
    found = taken.getsockname()
    return Address(taken, found[0], found[1])


class Protocol(H11Protocol):
    """One connection: closed where a request's head does not come in time, and at once where there are too many."""

    _watch: asyncio.TimerHandle | None = None
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        if len(self.connections) > _CONNECTIONS:
            transport.abort()
        else:
            self._check_later()

    def on_response_complete(self) -> None:
        """An answer is sent."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed."""
        if self._watch:
            self._watch.cancel()
        super().connection_lost(exc)

    def _check_later(self) -> None:
        self._watch = self.loop.call_later(_HEAD_SECONDS, self._check)

    def _check(self) -> None:
        is_late = self.loop.time() - self._idle_since >= _HEAD_SECONDS
        if is_late and (self.conn.their_state is h11.IDLE or self.transport.is_closing()):
            self.transport.abort()
        else:
            self._check_later()


class Server(uvicorn.Server):
    """Server that calls `on_ready`; the first SIGTERM or Ctrl-C waits for running requests, the second does not."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.should_exit = False
        self._on_ready = on_ready
        self.number = 0  # of the second signal

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        try:
            await super().startup(sockets)
        except OSError as error:  # another program has begun to listen there meanwhile
            raise UserError(f"cannot listen: {error.strerror or error}", _OTHER_PORT) from None
        self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        if self.should_exit:
            self.force_exit, self.number = True, sig
            return
        self.should_exit = True
        with contextlib.suppress(OSError):  # the terminal may be gone
            name = signal.Signals(sig).name
            os.write(2, f"{name}: finishing what runs; SIGTERM or Ctrl-C to stop at once\n".encode())


async def serve(
    app: ASGIApp,
    address: Address,
    on_ready: Callable[[], None],
    close: Callable[[], Awaitable[None]],
    drain_seconds: float,
) -> int:
    """Answer until a signal comes. Returns the exit code.

    Args:
        app: the application.
        address: bound.
        on_ready: called when the first request can come.
        close: shuts the service down.
        drain_seconds: timeout of running requests after the signal, in seconds.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        cast(Any, app), http=Protocol, loop="asyncio", ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_graceful_shutdown=int(drain_seconds) + 1,
    )  # fmt: skip
    server = Server(config, on_ready)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # what uvicorn puts back, and then raises the signal once more
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, server.handle_exit)
    await server.serve(sockets=[address.socket])
    if not server.force_exit:
        await close()
    return 128 + server.number if server.force_exit else 0
