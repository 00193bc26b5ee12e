"""What a service answers is what predict answers."""

import asyncio
import base64
import io

import numpy as np
import pytest
from conftest import write_video
from PIL import Image
from serving import answers, result, scores, served

from stnet.export.deploy import deploy
from stnet.inference.predictor import Predictor
from stnet.quantize.report import Precision
from stnet.serve.limits import Limits, Refused
from stnet.serve.service import Service
from stnet.utils.errors import UserError


@pytest.fixture(scope="module")
def predictor(trained, clip_set):
    weights = trained / "STNET_final.pdparams"
    return Predictor(weights, clip_set / "tiny.yaml", engine="paddle", device="cpu", topk=4)


def expected(predictor, path):
    (prediction,) = predictor.predict(path)
    return dict(zip(prediction.class_ids, prediction.scores))


def test_a_video_has_the_classes_that_predict_gives_it(predictor, clip_set):
    path = str(clip_set / "val 1.mp4")
    told = served(predictor, lambda service: answers(service.classify(path)))
    assert [answer.get("state") for answer in told] == ["queued", "decoding", "computing", None]
    answer = told[-1]["result"]
    assert scores(answer) == pytest.approx(expected(predictor, path), abs=1e-6)
    assert [row["name"] for row in answer["categories"]] == ["abcd"[row["id"]] for row in answer["categories"]]
    assert answer["video"].items() >= {"frames": 12, "width": 40, "height": 30}.items()
    assert answer["notes"] == []
    (read,) = predictor.predict(path)
    assert [segment["frames"] for segment in answer["segments"]] == read.clip().segments
    assert all("image" not in segment for segment in answer["segments"])
    assert "shares" not in answer


def test_videos_that_come_together_are_one_batch_and_each_has_its_own_classes(predictor, clip_set):
    paths = [str(clip_set / f"val {number}.mp4") for number in range(6)]

    async def at_once(service):
        told = await asyncio.gather(*(result(service.classify(path, topk=4)) for path in paths))
        return told, service.stats

    told, stats = served(predictor, at_once, window=0.5)
    assert max(stats.batches) == predictor.config.INFER.batch_size == 4
    assert sum(size * count for size, count in stats.batches.items()) == 6
    for path, answer in zip(paths, told):
        assert scores(answer) == pytest.approx(expected(predictor, path), abs=1e-6)
    assert stats.requests == {("classify", "ok"): 6}
    assert stats.decodings == 6


def test_topk_says_how_many_classes(predictor, clip_set):
    path = str(clip_set / "val 0.mp4")

    async def three(service):
        requests = (service.classify(path, topk=topk) for topk in (1, 3, 9))
        return await asyncio.gather(*map(result, requests))

    assert [len(answer["categories"]) for answer in served(predictor, three)] == [1, 3, 4]
    with pytest.raises(Refused, match="topk: expected a whole number of at least 1, found 0"):
        served(predictor, lambda service: result(service.classify(path, topk=0)))


def test_the_pictures_are_the_frames_of_each_segment_side_by_side(predictor, clip_set):
    path = str(clip_set / "val 0.mp4")
    answer = served(predictor, lambda service: result(service.classify(path, frames=True)))
    (read,) = predictor.predict(path)
    frames = read.clip().frames
    for segment, pair in zip(answer["segments"], np.split(frames, 2)):
        kind, data = segment["image"].split(",")
        assert kind == "data:image/jpeg;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        assert (image.format, image.size) == ("JPEG", (192, 96))
        for slot, frame in enumerate(pair):
            tile = np.asarray(image.crop((96 * slot, 0, 96 * slot + 96, 96)), float)
            enlarged = np.asarray(Image.fromarray(frame).resize((96, 96), Image.BILINEAR), float)
            assert np.abs(tile - enlarged).mean() < 12  # of 255: what JPEG makes of noise


def test_the_shares_of_the_segments_are_those_of_the_explanation(predictor, clip_set):
    path = str(clip_set / "val 2.mp4")
    answer = served(predictor, lambda service: result(service.classify(path, topk=2, shares=True)))
    (prediction,) = predictor.predict(path)
    reasons = prediction.explain(topk=2, grid=0).classes
    assert [(row["id"], row["name"]) for row in answer["shares"]] == [(r.class_id, r.label) for r in reasons]
    for row, reason in zip(answer["shares"], reasons):
        assert row["shares"] == pytest.approx(reason.shares, abs=1e-5)
        assert sum(row["shares"]) + row["rest"] == pytest.approx(row["logit"], abs=1e-4)


def test_a_timeline_has_the_windows_and_events_of_predict(predictor, tmp_path):
    path = str(write_video(tmp_path / "long.mp4", frames=60))
    settings = {"window": 1.0, "stride": 0.5, "threshold": 0.25, "hold": 0.2, "shortest": None}
    told = served(predictor, lambda service: answers(service.timeline(path, **settings)))
    events = predictor.timeline(path, tmp_path / "out", **settings)
    answer = told[-1]["result"]
    assert [(e["start"], e["end"], e["id"]) for e in answer["events"]] == [
        (round(e.start, 3), round(e.end, 3), e.class_id) for e in events
    ]
    assert [e["score"] for e in answer["events"]] == pytest.approx([e.probability for e in events], abs=1e-6)
    assert [row["start"] for row in answer["windows"]] == [i / 2 for i in range(9)]
    assert all(sum(scores(row).values()) == pytest.approx(1) for row in answer["windows"])
    progress = [(row["seconds"], row["of"]) for row in told if row.get("state") == "computing"]
    assert progress == [(1 + i / 2, 5.0) for i in range(9)]
    assert "windows of 1.00 s" in answer["notes"][0]


def test_classes_come_while_a_timeline_is_computed(predictor, clip_set, tmp_path):
    long, short = str(write_video(tmp_path / "long.mp4", frames=500)), str(clip_set / "val 0.mp4")

    async def both(service):
        order = []
        async for answer in service.timeline(long, window=1, stride=0.2):
            if answer.get("state") == "computing" and not order:
                order.append("timeline begins")
                one = asyncio.ensure_future(result(service.classify(short)))
                one.add_done_callback(lambda _: order.append("classes"))
        order.append("timeline ends")
        return order, await one

    order, answer = served(predictor, both)
    assert order == ["timeline begins", "classes", "timeline ends"]
    assert scores(answer) == pytest.approx(expected(predictor, short), abs=1e-6)


def test_an_export_is_served_without_shares_and_timelines(predictor, clip_set, tmp_path):
    deploy(predictor.model, predictor.config.section("infer"), predictor.labels, str(tmp_path), "paddle")
    exported, path = Predictor(tmp_path, device="cpu"), str(clip_set / "val 3.mp4")

    async def work(service):
        for request in (service.classify(path, shares=True), service.timeline(path)):
            with pytest.raises(Refused, match="an export does not show its segments") as refusal:
                await answers(request)
            assert (refusal.value.status, refusal.value.code) == (400, "cannot")
        return service.info(), await result(service.classify(path, topk=4))

    info, answer = served(exported, work)
    assert (info["has_shares"], info["has_timeline"]) == (False, False)
    assert scores(answer) == pytest.approx(expected(exported, path), abs=1e-6)


def test_the_info_says_what_there_is(predictor):
    info = Service(predictor, Limits(seconds=7), 1).info()
    assert info.items() >= {"model": "STNET", "num_classes": 4, "topk": 4, "seg_num": 2, "seglen": 2}.items()
    assert info["precision"] == "fp32"
    assert info["has_shares"]
    assert info["limits"]["seconds"] == 7
    assert "queue" not in info["limits"]
    assert info["timeline"] == {"window": 10.0, "stride": 2.0, "threshold": 0.8, "hold": 0.5, "shortest": None}


def test_a_model_of_other_things_than_videos_is_not_served(predictor, monkeypatch):
    monkeypatch.setattr(predictor.config.MODEL, "format", "upside")
    with pytest.raises(UserError, match="uploads are videos, not what MODEL.format upside says"):
        Service(predictor, Limits(), 1)


@pytest.mark.slow
def test_a_server_in_int8_has_timelines_only_with_their_own_proof(trained, clip_set):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("paddle2onnx")
    pytest.importorskip("ml_dtypes")
    weights, path = trained / "STNET_final.pdparams", str(clip_set / "val 3.mp4")
    made = Precision("int8", str(clip_set / "train.list"), unproven=True)
    assert Predictor(weights, clip_set / "tiny.yaml", device="cpu", precision=made).report
    kept = made._replace(calibrate="")

    async def work(service):
        with pytest.raises(Refused, match="precision int8 has no proof of timelines"):
            await answers(service.timeline(path))
        with pytest.raises(Refused, match="reasons are computed in fp32, not in int8"):
            await answers(service.classify(path, shares=True))
        return service.info(), await result(service.classify(path))

    info, answer = served(Predictor(weights, clip_set / "tiny.yaml", device="cpu", topk=4, precision=kept), work)
    assert (info["has_shares"], info["has_timeline"], len(answer["categories"])) == (False, False, 4)
    with_proof = Predictor(weights, clip_set / "tiny.yaml", device="cpu", precision=made)
    told = served(with_proof, lambda service: result(service.timeline(path, window=1.0)))
    assert with_proof.engines.timeline_stages.name == "ONNX Runtime in int8"
    assert told["windows"]
