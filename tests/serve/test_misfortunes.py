"""What goes wrong with one request costs no other."""

import asyncio
import os
import signal
import struct

import pytest
from conftest import write_video
from misbehaving import acting
from serving import answers, result, scores, served

from stnet.inference.predictor import Predictor
from stnet.serve.decoding import Decoders
from stnet.serve.limits import Refused


@pytest.fixture(scope="module")
def predictor(trained, clip_set):
    weights = trained / "STNET_final.pdparams"
    return Predictor(weights, clip_set / "tiny.yaml", engine="paddle", device="cpu", topk=4)


@pytest.fixture
def good(clip_set):
    return str(clip_set / "val 0.mp4")


@pytest.fixture
def bad(tmp_path):
    """A function: the path of a file that makes the decoder do a thing."""

    def write(word):
        path = tmp_path / f"{word}.mp4"
        path.write_text(word)
        return str(path)

    return write


def misbehave(service):
    """Have its decoders do what files say."""
    service.decoders = Decoders(service.decoders.count, service.limits, service.stats, acting)


async def refusal(request):
    """Why a request is refused, in full."""
    with pytest.raises(Refused) as refused:
        await answers(request)
    return refused.value.args


def children(service):
    return [child.pid for child in service.decoders.idle]


def test_a_decoder_that_hangs_is_ended_at_the_time_limit_of_its_request(predictor, good, bad):
    async def work(service):
        before = children(service)
        hung, answer = await asyncio.gather(refusal(service.classify(bad("hang"))), result(service.classify(good)))
        again = await result(service.classify(good))
        return hung, scores(answer) == scores(again), before, children(service), service.stats

    hung, same, before, after, stats = served(predictor, work, change=misbehave, request_seconds=5)
    assert hung == (504, "time", "it took more than the 5 s that a request may", None)
    assert same
    assert len(set(before) & set(after)) == 1
    assert stats.requests == {("classify", "time"): 1, ("classify", "ok"): 2}
    assert stats.queue == 0


def test_the_time_of_a_request_counts_from_its_admission(predictor, good):
    async def work(service):
        with service.slot() as slot:
            slot.deadline -= 120
            return await refusal(service.classify(good, slot=slot))

    assert served(predictor, work, request_seconds=120)[:2] == (504, "time")


def test_a_decoder_that_crashes_costs_its_request_alone(predictor, good, bad):
    async def work(service):
        told = [await refusal(service.classify(bad("crash"))) for _ in range(3)]
        return told, await result(service.classify(good)), service.stats

    told, answer, stats = served(predictor, work, decoders=1, change=misbehave)
    assert told == [(422, "crashed", "the decoder crashed (SIGSEGV)", None)] * 3
    assert len(answer["categories"]) == 4
    assert stats.decoders_died == 3


def test_kill_9_of_a_decoder_costs_the_one_request_that_it_works_for(predictor, good, bad):
    async def work(service):
        (victim,) = children(service)
        asleep = asyncio.ensure_future(refusal(service.classify(bad("sleep"))))
        while service.decoders.idle:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        others = [asyncio.ensure_future(result(service.classify(good))) for _ in range(4)]
        os.kill(victim, signal.SIGKILL)
        return await asleep, await asyncio.gather(*others)

    told, others = served(predictor, work, decoders=1, change=misbehave)
    assert told == (422, "crashed", "the decoder crashed (SIGKILL)", None)
    assert len(others) == 4


def test_kill_9_of_an_idle_decoder_costs_nothing(predictor, good):
    async def work(service):
        for pid in children(service):
            os.kill(pid, signal.SIGKILL)
        while not all(child.pipe.poll() for child in service.decoders.idle):  # readable at its end
            await asyncio.sleep(0.01)
        return await asyncio.gather(*(result(service.classify(good)) for _ in range(3))), service.stats

    told, stats = served(predictor, work)
    assert len(told) == 3
    assert stats.decoders_died == 2


def test_kill_9_of_a_decoder_just_before_it_gets_a_video_costs_nothing(predictor, good, bad):
    async def work(service):
        for child in service.decoders.idle:
            child.send = killed_first(child)
        answers = await asyncio.gather(*(result(service.classify(good)) for _ in range(2)))
        return answers, service.stats.decoders_died, await refusal(service.classify(bad("crash")))

    def killed_first(child):
        def send(items):
            os.kill(child.pid, signal.SIGKILL)
            type(child).send(child, items)

        return send

    told, died, crashed = served(predictor, work, change=misbehave)
    assert [len(answer["categories"]) for answer in told] == [4, 4]
    assert died == 2
    assert crashed[:2] == (422, "crashed")


def test_kill_9_of_a_new_decoder_costs_nothing_once(predictor, good):
    async def work(service):
        decoders, started = service.decoders, []
        begin = decoders.begin

        def killed(times):
            def start():
                child = begin()
                started.append(child.pid)
                if len(started) <= times:
                    os.kill(child.pid, signal.SIGKILL)
                return child

            return start

        answers = []
        for times in (1, 2):
            decoders.idle.pop().kill()
            started.clear()
            decoders.begin = killed(times)
            request = service.classify(good)
            answers.append(await (result(request) if times == 1 else refusal(request)))
            assert len(started) == 2
        return answers, service.stats.decoders_died

    (answer, refused), died = served(predictor, work, decoders=1)
    assert len(answer["categories"]) == 4
    assert refused == (422, "crashed", "the decoder crashed (SIGKILL)", None)
    assert died == 3


def test_kill_9_of_what_decoders_are_forked_from_costs_nothing_where_they_are_idle(predictor, good):
    async def work(service):
        pids = children(service)
        with open(f"/proc/{pids[0]}/stat", encoding="ascii") as file:
            os.kill(int(file.read().rpartition(")")[2].split()[1]), signal.SIGKILL)
        while not all(child.pipe.poll() for child in service.decoders.idle):  # readable at its end
            await asyncio.sleep(0.01)
        return pids, await asyncio.gather(*(result(service.classify(good)) for _ in range(3))), children(service)

    before, told, after = served(predictor, work)
    assert len(told) == 3
    assert not set(before) & set(after)


def test_who_goes_away_leaves_the_place_and_the_decoder_to_others(predictor, good, bad):
    async def work(service):
        gone = asyncio.ensure_future(answers(service.classify(bad("sleep"))))
        while service.decoders.idle:
            await asyncio.sleep(0.01)
        with pytest.raises(Refused):
            await answers(service.classify(good))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await result(service.classify(good)), service.stats

    answer, stats = served(predictor, work, decoders=1, change=misbehave, queue=1)
    assert len(answer["categories"]) == 4
    assert stats.requests == {("classify", "gone"): 1, ("place", "full"): 1, ("classify", "ok"): 1}


def test_who_closes_a_request_halfway_frees_all_that_it_had(predictor, good, tmp_path):
    long = str(write_video(tmp_path / "long.mp4", frames=150))

    async def work(service):
        for request in (service.classify(good), service.timeline(long, window=1, stride=0.1)):
            async for answer in request:
                if answer["state"] == "computing":
                    break
            await request.aclose()
            assert service.stats.queue == 0
        return await result(service.timeline(long, window=1, stride=1)), service.stats

    answer, stats = served(predictor, work)
    assert len(answer["windows"]) == 12
    assert stats.requests == {("classify", "gone"): 1, ("timeline", "gone"): 1, ("timeline", "ok"): 1}


def test_a_bug_in_a_decoder_is_raised_with_its_traceback_and_the_decoder_goes_on(predictor, good, bad):
    async def work(service):
        before = children(service)
        with pytest.raises(RuntimeError, match="(?s)Traceback.*ZeroDivisionError: a bug"):
            await answers(service.classify(bad("bug")))
        await answers(service.classify(good))
        return before == children(service), service.stats.requests

    same, requests = served(predictor, work, decoders=1, change=misbehave)
    assert same
    assert requests == {("classify", "failed"): 1, ("classify", "ok"): 1}


def test_a_network_that_fails_says_so_and_goes_on(predictor, good, monkeypatch):
    async def work(service):
        engine = predictor.engine
        monkeypatch.setitem(vars(predictor.engines), "logits", lambda clips: engine(clips) * float("nan"))
        told = await refusal(service.classify(good))
        monkeypatch.setitem(vars(predictor.engines), "logits", engine)
        return told, await result(service.classify(good))

    told, answer = served(predictor, work)
    assert told == (500, "failed", "the engine gave no logits of 4 classes", None)
    assert len(answer["categories"]) == 4


def test_closing_finishes_what_runs_and_refuses_what_is_new(predictor, good):
    async def work(service):
        running = [asyncio.ensure_future(result(service.classify(good))) for _ in range(3)]
        await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(service.close())
        await asyncio.sleep(0)
        late = await refusal(service.classify(good))
        told = await asyncio.gather(*running)
        pids = children(service)
        await closing
        return late, told, pids

    late, told, pids = served(predictor, work)
    assert late[:2] == (503, "closing")
    assert len(told) == 3
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


LIMITS = [
    ({"seconds": 0.5}, "too_long", "it is 1 s long, and at most 0.5 s are read"),
    ({"frames": 11}, "too_many_frames", "it has 12 frames or more, and at most 11 are read"),
    ({"pixels": 1199}, "too_large_frames", "its frames are of 40 x 30 pixels, and at most 1199 are read"),
]


@pytest.mark.parametrize("what", ["classify", "timeline"])
@pytest.mark.parametrize(("limits", "code", "words"), LIMITS)
def test_a_video_beyond_a_limit_is_refused_in_so_many_words(predictor, good, what, limits, code, words):
    told = served(predictor, lambda service: refusal(getattr(service, what)(good)), **limits)
    assert told == (422, code, words, None)


@pytest.mark.parametrize("what", ["classify", "timeline"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "the file is empty (0 bytes)"),
        ("no video at all", "no frame can be decoded (Invalid data found when processing input)"),
        ("#EXTM3U\n#EXTINF:2,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "no frame can be decoded"),
        ("ffconcat version 1.0\nfile inside.mp4\n", "none of a video file, a playlist perhaps"),
    ],
)
def test_what_is_no_video_is_refused_in_plain_words(predictor, tmp_path, what, content, words):
    path = tmp_path / "x.mp4"
    path.write_text(content)
    status, code, message, _ = served(predictor, lambda service: refusal(getattr(service, what)(str(path))))
    assert (status, code) == (422, "no_video")
    assert "\n" not in message
    assert words in message


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"window": 0.0}, "window and stride: expected more than 0 seconds, found 0 and 2"),
        ({"stride": float("nan")}, "window and stride: expected more than 0 seconds, found 10 and nan"),
        ({"threshold": 0.2}, "threshold and hold: expected 0 < hold <= threshold <= 1, found 0.2 and 0.5"),
        ({"render": "a.mp4"}, "render: expected one of window, stride, threshold, hold, shortest"),
    ],
)
def test_settings_that_make_no_sense_are_refused(predictor, good, settings, words):
    assert served(predictor, lambda service: refusal(service.timeline(good, **settings))) == (
        400,
        "setting",
        words,
        None,
    )


def jpeg(side):
    """The head of a JPEG of so many pixels a side, which has no pixel."""
    start = struct.pack(">2HBHHB", 0xFFC0, 17, 8, side, side, 3) + bytes([1, 34, 0, 2, 17, 0, 3, 17, 0])
    return b"\xff\xd8" + start + struct.pack(">2HB", 0xFFDA, 12, 3) + bytes([1, 0, 2, 0, 3, 0, 0, 63, 0]) + bytes(64)


def gif(side):
    """A GIF of so many pixels a side, with one frame."""
    frame = b"," + struct.pack("<4HB", 0, 0, side, side, 0) + b"\x02\x16" + b"\x8c-\x99\x87*\x1c\xdc3\xa0\x02u\xec" * 2
    return b"GIF89a" + struct.pack("<2H3B", side, side, 0x80, 0, 0) + bytes(6) + frame[:34] + b"\0;"


@pytest.mark.parametrize(
    "content",
    [gif(65535), gif(8000), jpeg(65535), jpeg(30000)],
    ids=["gif 65535", "gif 8000", "jpeg 65535", "jpeg 30000"],
)
@pytest.mark.parametrize("what", ["classify", "timeline"])
def test_frames_of_absurd_size_are_refused_and_cost_no_memory(predictor, good, tmp_path, what, content):
    (tmp_path / "x.mp4").write_bytes(content)

    async def work(service):
        told = await refusal(getattr(service, what)(str(tmp_path / "x.mp4")))
        peaks = [peak(child.pid) for child in service.decoders.idle]
        return told, peaks, await result(service.classify(good))

    (status, code, message, _), peaks, _ = served(predictor, work, decoders=1)
    assert status == 422, message
    assert code in ("too_large_frames", "no_video")
    assert all(count < 1 << 29 for count in peaks)


def peak(pid):
    """The most bytes of memory that a process has had."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("VmHWM"))
