"""The Predictor: videos of any kind in, results in the same order out."""

import os
import pickle
import shutil

import numpy as np
import pytest
import yaml

from stnet.config import load_config
from stnet.inference.predictor import Predictor
from stnet.metrics.probabilities import softmax
from stnet.models import model_section
from stnet.reader.clip import read_clip
from stnet.reader.decode import read_video
from stnet.reader.sources import format_of
from stnet.reader.transforms import to_super_images
from stnet.utils.errors import UserError


@pytest.fixture(scope="module")
def predictor(trained, clip_set):
    weights = trained / "STNET_final.pdparams"
    return Predictor(weights, clip_set / "tiny.yaml", engine="paddle", device="cpu", topk=4)


def scores(results):
    """path, and score by class."""
    return [(r.input_path, dict(zip(r.class_ids, r.scores))) for r in results]


def test_results_come_in_the_order_of_the_inputs_and_a_bad_video_says_why(predictor, clip_set, tmp_path):
    (tmp_path / "damaged.mp4").write_bytes(b"no video")
    paths = [clip_set / "val 3.mp4", tmp_path / "damaged.mp4", tmp_path / "missing.mp4", clip_set / "val 0.mp4"]
    results = list(predictor.predict(paths))
    assert [result.input_path for result in results] == list(map(str, paths))
    assert [bool(result.error) for result in results] == [False, True, True, False]
    for result in (results[0], results[3]):
        assert result.scores == sorted(result.scores, reverse=True)
        assert sum(result.scores) == pytest.approx(1)
        assert sorted(zip(result.class_ids, result.label_names)) == list(enumerate("abcd"))
    assert results[1].class_ids == []


def test_one_clip_has_the_same_scores_whatever_way_it_comes(predictor, clip_set, tmp_path, monkeypatch):
    path = clip_set / "val 1.mp4"
    monkeypatch.chdir(clip_set)
    (tmp_path / "mine.list").write_text(f"{path} 3\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.mp4").write_bytes(path.read_bytes())
    frames = np.stack(list(read_video(str(path), range)[0]))
    ways = [str(path), path, "val 1.mp4", "val [1].mp4", tmp_path / "folder", tmp_path / "mine.list"]
    ways += [path.read_bytes(), memoryview(path.read_bytes()), frames]
    alone = [next(predictor.predict(way)) for way in ways]
    together = list(predictor.predict(ways))
    assert [result.input_path for result in together[-3:]] == [None] * 3
    assert together[5].label == 3
    for result in [*alone, *together]:
        assert result.class_ids == alone[0].class_ids
        assert result.scores == pytest.approx(alone[0].scores, abs=1e-7)


def test_a_list_keeps_its_labels_and_its_paths(predictor, clip_set):
    results = list(predictor.predict(clip_set / "val.list"))
    assert [(result.input_path, result.label) for result in results] == [(f"val {i}.mp4", i % 4) for i in range(6)]


def test_frames_and_bytes_can_be_drawn_again(predictor, clip_set, tmp_path):
    frames = np.full((9, 40, 48, 3), 100, np.uint8)
    for content in (frames, (clip_set / "val 0.mp4").read_bytes()):
        (result,) = predictor.predict([content])
        assert result.clip().frames.shape[1:] == (32, 32, 3)
        assert result.save_to_img(tmp_path) == str(tmp_path / "clip.png")


def test_no_input_gives_no_result(predictor):
    assert list(predictor.predict([])) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a.mp4", 3], "input 1: expected a path, bytes, or frames .*, found int"),
        (np.zeros((2, 4, 4, 3), np.float32), "expected frames, uint8 .*, found float32"),
        ([np.zeros((4, 4, 3), np.uint8)], r"found uint8 \[4, 4, 3\]"),
        ("nothing/*.mp4", "no file matches"),
        ("nothing.list", "list file not found"),
    ],
)
def test_what_cannot_be_predicted_is_said(predictor, given, message):
    with pytest.raises(UserError, match=message):
        list(predictor.predict(given))


@pytest.mark.parametrize(("options", "message"), [({"device": "tpu"}, "device"), ({"topk": 0}, "topk")])
def test_options_are_checked_before_anything_is_loaded(options, message):
    with pytest.raises(UserError, match=message):
        Predictor("no such file", **options)


def test_no_config_is_needed_where_one_stands_beside_the_weights(predictor, trained, clip_set):
    alone = Predictor(trained / "STNET_final.pdparams", engine="paddle", device="cpu")
    assert alone.labels == list("abcd")
    assert alone.topk == 4  # of 5: there are no more classes
    path = clip_set / "val 2.mp4"
    assert scores(alone.predict(path)) == scores(predictor.predict(path))


@pytest.mark.parametrize("file_format", ["paddle", "onnx"])
def test_an_exported_folder_is_a_predictor(predictor, clip_set, tmp_path, file_format):
    pytest.importorskip("paddle2onnx" if file_format == "onnx" else "paddle")
    from stnet.export.deploy import deploy

    deploy(predictor.model, predictor.config.section("infer"), predictor.labels, str(tmp_path), file_format)
    exported = Predictor(tmp_path, device="cpu")
    path = clip_set / "val 2.mp4"
    (expected,), (result,) = predictor.predict(path), exported.predict(path)
    assert result.label_names == expected.label_names
    assert result.scores == pytest.approx(expected.scores, abs=1e-5)
    with pytest.raises(UserError, match="an export does not show its segments"):
        result.explain()


@pytest.mark.parametrize("damage", ["", "[]", "a: [", "model: {files: [x.onnx]}", "schema: 99"])
def test_a_damaged_export_is_one_line(tmp_path, damage):
    (tmp_path / "deploy.yaml").write_text(damage)
    with pytest.raises(UserError, match="deploy.yaml is damaged|deploy.yaml has schema 99"):
        Predictor(tmp_path)


def test_the_shares_of_segments_sum_to_the_logits(predictor, clip_set):
    (result,) = predictor.predict(clip_set / "val 0.mp4")
    explanation = result.explain(topk=2, grid=2)
    assert [reason.class_id for reason in explanation.classes] == result.class_ids[:2]
    for reason, score in zip(explanation.classes, result.scores):
        assert sum(reason.shares) + reason.rest == pytest.approx(reason.logit, abs=1e-4)
        assert reason.score == pytest.approx(score, abs=1e-5)


def test_clips_that_are_read_already_have_the_same_results_and_nothing_is_read_again(predictor, clip_set, tmp_path):
    paths = [shutil.copy(clip_set / f"val {number}.mp4", tmp_path) for number in range(3)]
    expected = list(predictor.predict(paths))
    reasons = expected[0].explain(topk=2, grid=0)
    section = predictor.config.section("infer")
    clips = [read_clip(path, section) for path in paths]
    for path in paths:
        os.remove(path)
    results = predictor.results_of(clips)
    for result, other in zip(results, expected):
        assert result.class_ids == other.class_ids
        assert result.scores == pytest.approx(other.scores, abs=1e-6)
    assert [len(result.scores) for result in predictor.results_of(clips, topk=3)] == [3] * 3
    explanation = results[0].explain(topk=2, grid=0)
    assert explanation.segments == reasons.segments
    for reason, other in zip(explanation.classes, reasons.classes):
        assert reason.shares == pytest.approx(other.shares, abs=1e-5)
    assert os.path.getsize(results[1].save_to_img(tmp_path / "1.png")) > 1000


def test_a_format_of_ones_own_is_asked_for_a_video_named_alone(predictor):
    assert format_of("a.mp4", "upside") == "upside"
    assert [format_of("a.mp4", name) for name in ("pkl", "frames", "mp4")] == ["mp4"] * 3
    assert format_of("a.pkl", "pkl") == "pkl"


def test_the_section_of_a_mode_counts_for_reading_and_computing_alike(trained, clip_set):
    overrides = ["TEST.short_size=48", "TEST.target_size=48", "TEST.seg_num=3"]
    config = load_config(str(clip_set / "tiny.yaml"), model_section, overrides)
    tested = Predictor(trained / "STNET_final.pdparams", config, engine="paddle", device="cpu", mode="test")
    (result,) = tested.predict(clip_set / "val 1.mp4")
    clip = to_super_images(result.clip().frames, 3)
    assert clip.shape[0] == 3
    assert clip.shape[2:] == (48, 48)
    expected = softmax(tested.engine(clip[None]))[0]
    assert result.scores == pytest.approx(sorted(expected, reverse=True)[: len(result.scores)], abs=1e-6)


def test_class_names_beside_the_weights_count_where_the_file_of_the_config_is_gone(trained, clip_set, root):
    for suffix in ("pdparams", "json"):
        shutil.copy(trained / f"STNET_final.{suffix}", root)
    config = load_config(str(clip_set / "tiny.yaml"), model_section, ["MODEL.labels=gone.json"])
    assert Predictor(root / "STNET_final.pdparams", config, device="cpu").labels == list("abcd")


@pytest.mark.parametrize("answer", [np.zeros((1, 4)), np.zeros((2, 3)), np.full((2, 4), np.nan)])
def test_an_engine_that_answers_something_else_is_one_line(predictor, clip_set, answer, monkeypatch):
    monkeypatch.setitem(vars(predictor.engines), "logits", lambda clips: answer.astype(np.float32))
    monkeypatch.setattr(predictor.config.INFER, "batch_size", 2)
    with pytest.raises(UserError, match="the engine gave"):
        list(predictor.predict([clip_set / "val 0.mp4", clip_set / "val 1.mp4"]))


@pytest.mark.parametrize("change", [{"std": [0, 0, 0]}, {"std": [-1, 1, 1]}, {"mean": [float("nan")] * 3}])
def test_an_export_with_impossible_numbers_is_one_line(predictor, tmp_path, change):
    facts = {
        "model": {"name": "STNET", "num_classes": 1, "files": ["x.onnx"]}, "labels": ["a"],
        "sampling": {"seg_num": 2, "seglen": 5, "format": "mp4"},
        "transform": {"short_size": 32, "target_size": 32, "mean": [0, 0, 0], "std": [1, 1, 1], **change},
    }  # fmt: skip
    (tmp_path / "deploy.yaml").write_text(yaml.safe_dump(facts))
    with pytest.raises(UserError, match="deploy.yaml is damaged"):
        Predictor(tmp_path, device="cpu")


def test_pictures_take_any_name(predictor, clip_set, tmp_path):
    path = os.path.join(os.fspath(tmp_path), os.fsdecode(b"$\\frac$ \xe9.mp4"))
    shutil.copy(clip_set / "val 0.mp4", path)
    (result,) = predictor.predict(path)
    assert os.path.getsize(result.explain(topk=1, grid=0).save_to_img(tmp_path / "out")) > 1000
    assert predictor.timeline(path, tmp_path / "out", window=0.3, stride=0.1, threshold=1) == []
    assert len(list((tmp_path / "out").glob("*.timeline.png"))) == 1
    events = predictor.timeline(path, tmp_path / "out", window=0.3, stride=0.1, threshold=0.1, hold=0.1, shortest=0.01)
    assert [event.label_name for event in events] == [predictor.labels[event.class_id] for event in events] != []
    assert [len(event) for event in pickle.loads(pickle.dumps(events))] == [4] * len(events)
    assert pickle.loads(pickle.dumps(events[0])).label_name == events[0].label_name
