"""uvicorn, with an address that is taken early, bounds on clients that send nothing, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, NamedTuple, cast

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from stnet.utils.errors import UserError

_OTHER_PORT = "set --port to another, or to 0 for any that is free"

_CONNECTIONS = 512
_HEAD_BYTES = 16 << 10  # of the request line and the headers
_HEAD_SECONDS = 15.0  # until they are there


class Address(NamedTuple):
    """Where a server listens.

    Attributes:
        socket: bound.
        host, port: numbers.
    """

    socket: socket.socket
    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback

    @property
    def url(self) -> str:
        """What a browser on this machine can open."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def bind(host: str, port: int) -> Address:
    """Take an address, at which clients are refused until the server is ready.

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
    """One connection: closed where a request's head does not come, and at once where there are too many."""

    _watch: asyncio.TimerHandle | None = None
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        if len(self.connections) > _CONNECTIONS:
            transport.abort()
        else:
            self._look_later()

    def on_response_complete(self) -> None:
        """An answer is out."""
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        if self._watch:
            self._watch.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._watch = self.loop.call_later(_HEAD_SECONDS, self._look)

    def _look(self) -> None:
        is_late = self.loop.time() - self._idle_since >= _HEAD_SECONDS
        if is_late and (self.conn.their_state is h11.IDLE or self.transport.is_closing()):
            self.transport.abort()
        else:
            self._look_later()


class Server(uvicorn.Server):
    """Says when it is ready; SIGTERM and Ctrl-C finish what runs, the second one does not."""

    def __init__(self, config: uvicorn.Config, say_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.should_exit = False
        self._say_ready = say_ready
        self.number = 0  # of the signal that was not waited for

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        try:
            await super().startup(sockets)
        except OSError as error:  # another program has begun to listen there meanwhile
            raise UserError(f"cannot listen: {error.strerror or error}", _OTHER_PORT) from None
        self._say_ready()

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
    app: ASGIApp, address: Address, say_ready: Callable[[], None], close: Callable[[], Awaitable[None]], patience: float
) -> int:
    """Answer until a signal comes. Returns the exit code.

    Args:
        app: what answers.
        address: where.
        say_ready: called when the first request can come.
        close: finishes what the application needs.
        patience: seconds in which what runs at the signal must end.
    """
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        cast(Any, app), http=Protocol, loop="asyncio", ws="none", lifespan="off", log_config=None, access_log=False,
        server_header=False, proxy_headers=False, h11_max_incomplete_event_size=_HEAD_BYTES,
        timeout_graceful_shutdown=int(patience) + 1,
    )  # fmt: skip
    server = Server(config, say_ready)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # what uvicorn puts back, and then raises the signal once more
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, server.handle_exit)
    await server.serve(sockets=[address.socket])
    if not server.force_exit:
        await close()
    return 128 + server.number if server.force_exit else 0
