"""A cancellation counts however late it comes, and slots come back."""

import asyncio
import base64
import json
import time

import pytest

pytest.importorskip("fastapi_offline", reason="bash run.sh setup serve installs what a server needs")

from stnet.serve.guard import Rules
from stnet.serve.limits import Refused
from stnet.serve.paddlex import WrongRequest, unpack
from stnet.serve.service import Slot


async def late_cancelled(slot, ready):
    task = asyncio.ensure_future(slot.within(ready))
    await asyncio.sleep(0)
    ready.set_result(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_who_leaves_just_when_the_work_is_done_has_left():
    async def work():
        await late_cancelled(Slot(time.monotonic() + 60, 60), asyncio.get_running_loop().create_future())

    asyncio.run(work())


def test_a_slot_comes_back_from_who_leaves_just_when_it_is_given():
    async def hold(slot, slots):
        async with slot.hold(slots):
            await asyncio.sleep(60)

    async def work():
        slots = asyncio.Semaphore(1)
        await slots.acquire()
        task = asyncio.ensure_future(hold(Slot(time.monotonic() + 60, 60), slots))
        for _ in range(3):
            await asyncio.sleep(0)
        slots.release()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return slots.locked()

    assert asyncio.run(work()) is False


def test_much_beside_a_base64_video_is_refused_before_it_is_parsed(tmp_path):
    body = tmp_path / "body"
    for text in (json.dumps({"video": "AAAA", "a": [1] * 100_000}), json.dumps([1] * 100_000)):
        body.write_text(text)
        with pytest.raises(WrongRequest, match="more than 65536 bytes beside the field video"):
            unpack(body, 1 << 20)


def test_a_base64_video_is_taken_with_escapes_and_from_the_outermost_field(tmp_path):
    body, content = tmp_path / "body", bytes(range(256)) * 4
    text = base64.b64encode(content).decode()
    escaped = json.dumps({"video": text}).replace("/", "\\/").replace("+", "\\u002b")
    for whole in (escaped, json.dumps({"x": {"video": "a"}, "video": text})):
        body.write_text(whole)
        assert unpack(body, 1 << 20) is None
        assert body.read_bytes() == content


def test_a_request_with_two_lengths_is_refused():
    headers = [(b"host", b"localhost"), (b"transfer-encoding", b"chunked"), (b"content-length", b"3")]
    with pytest.raises(Refused) as refused:
        Rules(loopback=True).check({"path": "/", "raw_path": b"/", "query_string": b"", "headers": headers})
    assert refused.value.status == 400


def test_a_json_that_begins_with_a_byte_order_mark_is_read(tmp_path):
    body = tmp_path / "body"
    body.write_text(json.dumps({"video": base64.b64encode(b"content").decode(), "topk": 3}), encoding="utf-8-sig")
    assert unpack(body, 1 << 20) == 3
    assert body.read_bytes() == b"content"
