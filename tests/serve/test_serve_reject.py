"""serve --reject: what a service answers to videos that belong to no class."""

import base64
import json
import shutil
from pathlib import Path

import pytest
from conftest import write_video
from entries import eval_entry, run
from running import running
from serving import answers, result, scores, served

from stnet.inference.predictor import Predictor
from stnet.metrics.rejection import FACTS, Rejection
from stnet.weights.rejection import write_rejection


@pytest.fixture(scope="module")
def weights(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for suffix in ("pdparams", "json"):
        shutil.copy(trained / f"STNET_final.{suffix}", folder / f"STNET_final.{suffix}")
    return folder / "STNET_final.pdparams"


@pytest.fixture(scope="module")
def paths(weights, clip_set):
    """(a clip that keeps its class, one that is unknown) by the threshold between them, which is kept."""
    plain = Predictor(weights, clip_set / "tiny.yaml", "paddle", "cpu", 4)
    results = sorted(plain.predict([clip_set / "val 0.mp4", clip_set / "val 1.mp4"]), key=lambda r: -r.scores[0])
    threshold = (results[0].scores[0] + results[1].scores[0]) / 2
    write_rejection(weights, plain.digest, Rejection(1.0, threshold), 0.5, 2, "val.list")
    return [result.input_path for result in results]


@pytest.fixture(scope="module")
def predictor(weights, paths, clip_set):
    return Predictor(weights, clip_set / "tiny.yaml", "paddle", "cpu", 4, reject=True)


def test_a_service_answers_unknown_with_the_reason_and_the_classes(predictor, paths):
    for path, is_unknown in zip(paths, (False, True)):
        answer = served(predictor, lambda service, path=path: result(service.classify(path)))
        (read,) = predictor.predict(path)
        assert (answer["is_unknown"], answer["answer"]) == (is_unknown, read.answer)
        assert answer["scaled_probability"] == pytest.approx(read.judged.scaled_probability, abs=1e-6)
        assert answer["threshold"] == predictor.rejection.threshold
        assert scores(answer) == pytest.approx(dict(zip(read.class_ids, read.scores)), abs=1e-6)


def test_a_timeline_says_which_windows_are_unknown(predictor, tmp_path):
    path, settings = str(write_video(tmp_path / "long.mp4", frames=60)), {"window": 1.0, "stride": 0.5}
    settings.update(threshold=0.25, hold=0.2)
    answer = served(predictor, lambda service: answers(service.timeline(path, **settings)))[-1]["result"]
    events = predictor.timeline(path, tmp_path / "out", **settings)
    lines = [json.loads(line) for line in (tmp_path / "out.windows.jsonl").read_text().splitlines()]
    assert [row["is_unknown"] for row in answer["windows"]] == [line["is_unknown"] for line in lines]
    assert answer["notes"][-1] == events.note
    assert [row["id"] for row in answer["events"]] == [event.class_id for event in events]
    assert all(len(row["categories"]) == 4 for row in answer["windows"])


def test_the_paths_of_a_server_agree_and_only_one_with_the_flag_says_it(clip_set, weights, paths, predictor, tmp_path):
    content = Path(paths[1]).read_bytes()
    for flags in ([], ["--reject"]):
        folder = tmp_path / f"server{len(flags)}"
        folder.mkdir()
        with running(folder, clip_set, weights.parent, *flags) as server:
            told = server.classify(content).json()
            sent = {"video": base64.b64encode(content).decode()}
            paddlex = server.ask("POST", "video-classification", json=sent).json()
            info = server.ask("GET", "api/info").json()
        keys = {*FACTS} if flags else set()
        assert {*told} == {"categories", "video", "segments", "notes", *keys}
        assert {*paddlex["result"]} == {"categories", *keys}
        assert {key: told[key] for key in keys} == {key: paddlex["result"][key] for key in keys}
        assert told["categories"][:2] == paddlex["result"]["categories"][:2]
        assert told.get("answer") == ("unknown" if flags else None)
        assert info.get("reject") == (predictor.rejection._asdict() if flags else None)


def test_eval_and_serve_of_one_clip_agree(clip_set, weights, tmp_path):
    """The only clip of a list is the threshold itself, and keeps its class."""
    for suffix in ("pdparams", "json"):
        shutil.copy(weights.with_suffix(f".{suffix}"), tmp_path / f"STNET_final.{suffix}")
    (tmp_path / "one.list").write_text(f"{clip_set}/val 0.mp4 0\n", encoding="utf-8")
    words = ["--config", clip_set / "tiny.yaml", f"--weights={tmp_path / 'STNET_final.pdparams'}", "--engine=paddle"]
    words += ["--save_dir", tmp_path, "-o", f"TEST.filelist={tmp_path / 'one.list'}", "-o", "TEST.seg_num=2"]
    assert run(eval_entry, *words, "--batch_size=1", "--reject") == 0
    own = Predictor(tmp_path / "STNET_final.pdparams", clip_set / "tiny.yaml", "paddle", "cpu", 4, reject=True)
    answer = served(own, lambda service: result(service.classify(str(clip_set / "val 0.mp4"))))
    assert answer["scaled_probability"] == pytest.approx(answer["threshold"], abs=1e-6)
    assert not answer["is_unknown"]
