"""Connections that send no request, or half a one, are closed, and do not keep others out."""

import asyncio
import os
import signal

import pytest

pytest.importorskip("fastapi_offline", reason="bash run.sh setup serve installs what a server needs")

from stnet.serve import guard, server


@pytest.fixture(autouse=True)
def same_signals():
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before):
        signal.signal(number, handler)


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def endless(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})


def served(work, app=app):
    """What the coroutine function `work` of a port returns; the server ends with 0 after it."""

    async def whole():
        address, ready, closed = server.bind("127.0.0.1", 0), asyncio.Event(), []

        async def close():
            closed.append(True)

        task = asyncio.ensure_future(server.serve(app, address, ready.set, close, 5))
        await asyncio.wait_for(ready.wait(), 10)
        try:
            return await asyncio.wait_for(work(address.port), 10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            assert (await task, closed) == (0, [True])

    return asyncio.run(whole())


async def opened(port, data=b""):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    return reader, writer


async def ended(reader):
    """What comes until the server closes the connection."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


def test_a_head_that_does_not_come_ends_the_connection(monkeypatch):
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.1)

    async def work(port):
        heads = (b"", b"GET / HTTP/1.1\r\nHost:", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET")
        waiting = [await opened(port, data) for data in heads]
        return [await ended(reader) for reader, _ in waiting]

    nothing, half, one = served(work)
    assert (nothing, half) == (b"", b"")
    assert one.startswith(b"HTTP/1.1 200 OK")
    assert one.endswith(b"ok")


def test_too_many_connections_are_closed_and_the_others_are_answered(monkeypatch):
    monkeypatch.setattr(server, "_CONNECTIONS", 3)

    async def work(port):
        held = [await opened(port) for _ in range(3)]
        await asyncio.sleep(0.1)
        reader, _ = await opened(port)
        assert await ended(reader) == b""
        reader, writer = held[0]
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return await ended(reader)

    assert served(work).endswith(b"ok")


def test_a_client_that_does_not_take_its_answer_is_left_without_a_traceback(monkeypatch, caplog):
    monkeypatch.setattr(guard, "_SEND_SECONDS", 0.2)
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.2)

    async def work(port):
        reader, writer = await opened(port, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        writer.transport.pause_reading()
        await asyncio.sleep(1.5)
        writer.transport.resume_reading()
        return await ended(reader)

    served(work, guard.Guard(endless, guard.Rules(loopback=True)))  # and it has come to an end
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(
    ("host", "is_loopback", "url"),
    [("127.0.0.1", True, "http://127.0.0.1:"), ("localhost", True, "http://"), ("0.0.0.0", False, "http://127.0.0.1:")],
)
def test_an_address_knows_who_can_reach_it(host, is_loopback, url):
    address = server.bind(host, 0)
    with address.socket:
        assert address.is_loopback is is_loopback
        assert address.url.startswith(url)
        assert address.url.endswith(f":{address.port}/")
