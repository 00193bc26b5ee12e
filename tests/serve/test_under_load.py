"""Many callers at once, and many requests after each other."""

import asyncio
import gc
import os

import pytest
from serving import result, scores, served

from stnet.inference.predictor import Predictor
from stnet.serve.limits import Refused


@pytest.fixture(scope="module")
def predictor(trained, clip_set):
    weights = trained / "STNET_final.pdparams"
    return Predictor(weights, clip_set / "tiny.yaml", engine="paddle", device="cpu", topk=4)


@pytest.fixture(scope="module")
def expected(predictor, clip_set):
    """Score by class of each clip, as predict has them."""
    paths = [str(clip_set / f"val {number}.mp4") for number in range(6)]
    return {path: dict(zip(r.class_ids, r.scores)) for path, r in zip(paths, predictor.predict(paths))}


async def asked(service, path, waits):
    """Score by class of a video, asked for anew as often as the server is full, after the time that it says."""
    while True:
        try:
            return scores(await result(service.classify(path)))
        except Refused as error:
            assert (error.status, error.code) == (503, "full")
            assert 1 <= error.retry_after <= 60
            waits.append(error.retry_after)
            await asyncio.sleep(error.retry_after)


async def from_callers(count, calls, ask):
    """`calls` answers of ask(number), from so many callers at once, each of whom waits for its answer."""
    numbers = iter(range(calls))

    async def caller():
        return [(number, await ask(number)) for number in numbers]

    return dict(row for rows in await asyncio.gather(*(caller() for _ in range(count))) for row in rows)


@pytest.mark.slow
def test_200_calls_of_20_callers_are_all_answered_rightly_where_they_honour_retry_after(predictor, expected):
    paths, waits = list(expected), []

    async def work(service):
        told = await from_callers(20, 200, lambda number: asked(service, paths[number % 6], waits))
        return told, service.stats

    told, stats = served(predictor, work, queue=16)
    assert len(told) == 200
    for number, answer in told.items():
        assert answer == pytest.approx(expected[paths[number % 6]], abs=1e-6)
    assert waits  # 4 found no place
    assert stats.requests == {("classify", "ok"): 200, ("place", "full"): len(waits)}
    assert stats.queue == 0
    assert max(stats.batches) > 1


def test_who_finds_no_place_is_told_when_to_come_again_and_who_has_one_gets_the_right_answer(predictor, expected):
    paths = list(expected)

    async def one(service, number):
        try:
            return scores(await result(service.classify(paths[number % 6])))
        except Refused as error:
            return error

    async def work(service):
        return await asyncio.gather(*(one(service, number) for number in range(200)))

    told = served(predictor, work, queue=16)
    refused = [answer for answer in told if isinstance(answer, Refused)]
    assert len(refused) == 200 - 16
    assert {(error.status, error.code, error.retry_after) for error in refused} == {(503, "full", 1)}
    for number, answer in enumerate(told):
        if not isinstance(answer, Refused):
            assert answer == pytest.approx(expected[paths[number % 6]], abs=1e-6)


def rss(pid):
    """Bytes of memory that a process has."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.long
def test_a_thousand_requests_take_no_more_memory_than_a_hundred(predictor, expected, capsys):
    paths, figures = list(expected), []

    async def work(service):
        for calls in (100, 1000):
            await from_callers(16, calls, lambda number: asked(service, paths[number % 6], []))
            gc.collect()
            figures.append([rss(os.getpid()), *sorted(rss(child.pid) for child in service.decoders.idle)])

    served(predictor, work)
    grown = [later - earlier for earlier, later in zip(*figures)]
    with capsys.disabled():
        print("MB of server and decoders, after 100 and 1100:", [[round(n / 1e6, 1) for n in row] for row in figures])
    assert sum(grown) < 50e6
