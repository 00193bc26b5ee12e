"""Checks of Host, Origin and token of each request, and security headers of each answer."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import re
from typing import NamedTuple

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stnet.serve.answers import error_answer
from stnet.serve.limits import NotTaken, Refused, in_time

_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::\d{1,5})?", re.ASCII)
# Paths without a token: the page before it has one, and health checks.
_OPEN = ("/", "/health", "/health/live", "/health/ready", "/docs", "/openapi.json", "/favicon.ico")
_OPEN_BELOW = ("/static/", "/docs/")
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
_HEAD_BYTES = 16 << 10  # of the address and the headers
_SEND_SECONDS = 60  # for a client to take a piece of an answer
_LINGER_SECONDS = 1  # for a client to read why its upload is refused


class Rules(NamedTuple):
    """Which requests are answered.

    Without `loopback`, this machine's addresses are not known: any IP address counts as one of them, as no page on the
    web can have it for a name.
    """

    loopback: bool  # only this machine can connect
    token: str = ""  # "": none is asked for
    hosts: frozenset[str] = frozenset()  # further names of this server, in small letters

    def check(self, scope: Scope) -> None:
        """Check a request.

        Raises:
            Refused: 400: two lengths; 403: Host or Origin is not this server's; 401: no token; 431: head too large.
        """
        size = len(scope["raw_path"]) + len(scope["query_string"])
        size += sum(len(name) + len(value) for name, value in scope["headers"])
        if size > _HEAD_BYTES:
            raise Refused(431, "head", f"address and headers have more than the {_HEAD_BYTES} bytes that are read")
        headers: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name, []).append(value)
        if b"transfer-encoding" in headers and b"content-length" in headers:
            raise Refused(400, "length", "Content-Length beside Transfer-Encoding: which of them counts is not clear")
        host = b" ".join(headers.get(b"host", [])).decode("latin-1").lower()
        if not self._is_name(host):
            raise Refused(
                403, "host", f"the Host header is {host[:80]!r}, which is no name of this server: see --allowed_hosts"
            )
        for origin in headers.get(b"origin", []):
            if origin.decode("latin-1").lower() not in (f"http://{host}", f"https://{host}"):
                message = f"a page of {origin[:80].decode('latin-1')!r} asks, and only this server's own may"
                raise Refused(403, "origin", message)
        is_open = scope["path"] in _OPEN or scope["path"].startswith(_OPEN_BELOW)
        if self.token and not is_open:
            kind, _, token = b" ".join(headers.get(b"authorization", [])).partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self.token.encode()):
                raise Refused(401, "token", "the token is missing or wrong: send it as 'Authorization: Bearer TOKEN'")

    def _is_name(self, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].strip("[]")
        if name == "localhost" or name in self.hosts:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.loopback


class Guard:
    """Middleware that refuses requests before they reach the application.

    Args:
        app: the application.
        rules: which requests are answered.
    """

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        app = self.app
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}  # uvicorn, which keeps the first, leaves the body out
        try:
            self.rules.check(scope)
        except Refused as refused:
            app = error_answer(scope["path"], refused)
        with contextlib.suppress(NotTaken):  # the connection is closed
            await app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer, to which the security headers are added.

    Where the answer comes before the whole body was read, the connection is closed; not at once, or the client may
    never read the answer.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        names = {name: value for name, value in scope["headers"]}
        self._has_rest = b"transfer-encoding" in names or names.get(b"content-length", b"0") != b"0"

    async def receive(self) -> Message:
        message = await self._receive()
        self._has_rest = message["type"] == "http.request" and message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            if self._has_rest:
                headers["connection"] = "close"
        elif self._has_rest and not message.get("more_body", False):
            await self._send_in_time({**message, "more_body": True})
            await self._linger()
            message = {"type": "http.response.body"}
        await self._send_in_time(message)

    async def _send_in_time(self, message: Message) -> None:
        try:
            await in_time(self._send(message), _SEND_SECONDS)
        except asyncio.TimeoutError:
            raise NotTaken from None

    async def _linger(self) -> None:
        async def read_over() -> None:
            while self._has_rest:
                await self.receive()

        try:
            await in_time(read_over(), _LINGER_SECONDS)
        except asyncio.TimeoutError:
            self._has_rest = False
