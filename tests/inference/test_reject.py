"""predict --reject: videos below the kept threshold are unknown, and who may use which threshold."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import write_video
from entries import eval_entry, failing, inference_model, predict, run

from stnet.inference.predictor import Predictor
from stnet.metrics.rejection import FACTS, Rejection
from stnet.utils.errors import UserError
from stnet.weights.rejection import read_rejection, rejection_path, write_rejection

VIDEOS = [f"val {i}.mp4" for i in range(6)]


@pytest.fixture
def weights(trained, tmp_path):
    for suffix in ("pdparams", "json"):
        shutil.copy(trained / f"STNET_final.{suffix}", tmp_path / f"STNET_final.{suffix}")
    return tmp_path / "STNET_final.pdparams"


def predictor_of(clip_set, weights, **words):
    return Predictor(weights, clip_set / "tiny.yaml", engine="paddle", device="cpu", topk=2, **words)


@pytest.fixture
def kept(clip_set, weights):
    """Scores of the six clips, between whose third and fourth the threshold lies that is kept for the weights."""
    plain = predictor_of(clip_set, weights)
    scores = {result.input_path: result.scores[0] for result in plain.predict([clip_set / name for name in VIDEOS])}
    falling = sorted(scores.values(), reverse=True)
    threshold = (falling[2] + falling[3]) / 2
    write_rejection(weights, plain.digest, Rejection(1.0, threshold), 0.5, 6, "val.list")
    return scores, threshold


def predicted(clip_set, weights, folder, *flags):
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--engine=paddle", "--save_dir", folder]
    assert run(predict, *words, *(clip_set / name for name in VIDEOS), *flags) == 0


def test_the_answer_below_the_threshold_is_unknown_with_its_reason_and_classes(clip_set, weights, kept, tmp_path):
    scores, threshold = kept
    results = list(predictor_of(clip_set, weights, reject=True).predict([clip_set / name for name in VIDEOS]))
    assert sum(result.is_unknown for result in results) == 3
    for result in results:
        assert result.is_unknown == (scores[result.input_path] < threshold)
        assert result.answer == ("unknown" if result.is_unknown else result.label_names[0])
        assert result.scores[0] == pytest.approx(scores[result.input_path], abs=1e-6)
        assert len(result.class_ids) == 2
        assert tuple(result.json)[-4:] == FACTS
        assert result.json["scaled_probability"] == pytest.approx(scores[result.input_path], abs=1e-6)
        assert result.json["threshold"] == threshold
        first = f"    unknown: scaled probability {result.judged.scaled_probability:.6f} below {threshold:.6f}"
        assert (str(result).splitlines()[1] == first) == result.is_unknown
        assert len(str(result).splitlines()) == 3 + result.is_unknown
    saved = json.loads(Path(results[0].save_to_json(tmp_path)).read_text(encoding="utf-8"))
    assert saved["is_unknown"] == results[0].is_unknown
    with open(results[0].save_to_csv(tmp_path), encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["answer"] == results[0].answer


def test_without_it_a_kept_threshold_changes_nothing(clip_set, weights, kept, tmp_path):
    predicted(clip_set, weights, tmp_path / "with", "--output", tmp_path / "with.csv")
    os.remove(rejection_path(weights))
    predicted(clip_set, weights, tmp_path / "without", "--output", tmp_path / "without.csv")
    for name in ("{}.csv", "{}.csv.run.json"):
        assert (tmp_path / name.format("with")).read_bytes() == (tmp_path / name.format("without")).read_bytes()
    (result,) = predictor_of(clip_set, weights).predict(clip_set / "val 0.mp4")
    assert (result.judged, result.is_unknown, result.answer) == (None, False, result.label_names[0])
    assert not {*FACTS} & {*result.json}


def test_predict_says_it_in_json_tables_and_on_the_screen(clip_set, weights, kept, tmp_path, capsys):
    predicted(clip_set, weights, tmp_path, "--reject")
    said = capsys.readouterr().out
    rows = json.loads((tmp_path / "predict_results.json").read_text())["results"]
    assert sorted(row["answer"] == "unknown" for row in rows) == [False] * 3 + [True] * 3
    assert [row["is_unknown"] for row in rows] == [row["answer"] == "unknown" for row in rows]
    assert all(len(row["predictions"]) == 2 for row in rows)
    assert said.count("    unknown: scaled probability ") == 3
    for suffix in ("jsonl", "csv"):
        predicted(clip_set, weights, tmp_path, "--reject", "--output", tmp_path / f"r.{suffix}")
    lines = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    with open(tmp_path / "r.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["answer"] for row in lines] == [row["answer"] for row in table] == [row["answer"] for row in rows]
    assert [row["is_unknown"] for row in table] == [str(row["is_unknown"]) for row in rows]
    assert list(table[0])[-5:] == ["score_2", *FACTS]


def test_a_table_is_resumed_with_the_same_threshold_alone(clip_set, weights, kept, tmp_path, capsys):
    output = ["--output", tmp_path / "r.csv"]
    predicted(clip_set, weights, tmp_path, "--reject", *output)
    whole = (tmp_path / "r.csv").read_bytes()
    (tmp_path / "r.csv").write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    predicted(clip_set, weights, tmp_path, "--reject", "--resume", *output)
    assert (tmp_path / "r.csv").read_bytes().splitlines()[:3] == whole.splitlines()[:3]
    assert len((tmp_path / "r.csv").read_bytes().splitlines()) == 7
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--engine=paddle", "--save_dir", tmp_path]
    words += [*(clip_set / name for name in VIDEOS), "--resume", *output]
    failing("predict", "was made with other reject", capsys, *words)
    write_rejection(weights, predictor_of(clip_set, weights).digest, Rejection(1.0, 0.9), 0.5, 6, "val.list")
    failing("predict", "was made with other reject", capsys, *words, "--reject")


def test_unread_videos_are_not_unknown(clip_set, weights, kept, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (bad,) = predictor_of(clip_set, weights, reject=True).predict(tmp_path / "bad.mp4")
    assert (bad.is_unknown, bad.answer, bad.reject_facts) == (False, "", {})


def test_a_class_named_unknown_is_told_from_no_class(clip_set, weights, kept, tmp_path):
    predictor = predictor_of(clip_set, weights, reject=True)
    predictor.labels = ["unknown"] * 4
    results = list(predictor.predict([clip_set / name for name in VIDEOS]))
    assert {result.answer for result in results} == {"unknown"}
    assert sum(result.json["is_unknown"] for result in results) == 3


def test_decoded_clips_are_judged_as_videos_are(clip_set, weights, kept):
    predictor = predictor_of(clip_set, weights, reject=True)
    results = list(predictor.predict([clip_set / name for name in VIDEOS]))
    again = predictor.results_of([result.clip() for result in results])
    assert [r.is_unknown for r in again] == [r.is_unknown for r in results]


def test_probabilities_are_scaled_by_the_temperature(clip_set, weights):
    plain = predictor_of(clip_set, weights)
    (result,) = plain.predict(clip_set / "val 0.mp4")
    write_rejection(weights, plain.digest, Rejection(0.25, 0.5), 0.5, 6, "val.list")
    (judged,) = predictor_of(clip_set, weights, reject=True).predict(clip_set / "val 0.mp4")
    (whole,) = Predictor(weights, clip_set / "tiny.yaml", "paddle", "cpu", 4).predict(clip_set / "val 0.mp4")
    powers = np.array(whole.scores) ** 4
    assert judged.scores == pytest.approx(result.scores, abs=1e-6)
    assert judged.judged.scaled_probability == pytest.approx(powers[0] / powers.sum(), abs=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, r"was fitted with other weights \(SHA-256 000000000000\) than .*STNET_final"),
        ({"threshold": None}, "is damaged .*expected a number, found None"),
        ({"threshold": True}, "is damaged .*expected a number, found True"),
        ({"threshold": 1.5}, "is damaged .*threshold 1.5"),
        ({"temperature": 0}, "is damaged .*temperature 0"),
        ({"temperature": float("inf")}, "is damaged|cannot be read"),
        ({"schema": 99}, "has schema 99"),
    ],
)
def test_another_threshold_is_refused_with_what_fits_one(clip_set, weights, kept, tmp_path, capsys, change, message):
    path = tmp_path / "STNET_final.reject.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--engine=paddle", "--save_dir", tmp_path]
    hint = "" if "schema" in change else "; fit one: python eval.py --weights=.*STNET_final.pdparams --reject"
    failing("predict", f"{message}.*{hint}", capsys, *words, clip_set / "val 0.mp4", "--reject")
    assert run(predict, *words, clip_set / "val 0.mp4") == 0


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"{", b'{"threshold": 0.5}', b"\xff"])
def test_a_damaged_file_is_one_line(weights, tmp_path, content):
    (tmp_path / "STNET_final.reject.json").write_bytes(content)
    with pytest.raises(UserError, match="is damaged|cannot be read") as error:
        read_rejection(weights, "0" * 64)
    assert error.value.hint == f"fit one: python eval.py --weights={weights} --reject"


def test_without_a_kept_threshold_predict_names_the_command_that_fits_one(clip_set, weights, tmp_path, capsys):
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--engine=paddle", "--save_dir", tmp_path]
    message = "no threshold is kept for .*STNET_final.pdparams; fit one: python eval.py --weights=.* --reject"
    failing("predict", message, capsys, *words, clip_set / "val 0.mp4", "--reject")
    failing("predict", "--features writes no classes: --reject is", capsys, "--features=f.npz", "--reject", "a.mp4")


def test_what_eval_keeps_predict_takes(clip_set, weights, tmp_path):
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--engine=paddle", "--save_dir", tmp_path]
    words += ["-o", "TEST.seg_num=2"]  # as INFER
    assert run(eval_entry, *words, "--reject=0.5") == 0
    predicted(clip_set, weights, tmp_path, "--reject")
    rows = json.loads((tmp_path / "predict_results.json").read_text())["results"]
    found = json.loads((tmp_path / "eval_results.json").read_text())["reject"]
    at_threshold = [row for row in rows if abs(row["scaled_probability"] - found["threshold"]) < 1e-6]
    assert len(at_threshold) == 1  # on either side, where another batch rounds otherwise
    assert sum(not row["is_unknown"] for row in rows if row not in at_threshold) == 2


FORMATS = {"paddle": [], "onnx": ["onnxruntime", "paddle2onnx"], "paddlex": []}


@pytest.mark.parametrize("file_format", FORMATS)
def test_an_export_carries_the_threshold(clip_set, weights, kept, tmp_path, file_format, capsys):
    for package in FORMATS[file_format]:
        pytest.importorskip(package)
    folder, (_, threshold) = tmp_path / "export", kept
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--batch_size=1", f"--format={file_format}"]
    assert run(inference_model, *words, "--save_dir", folder) == 0
    told = yaml.safe_load((folder / "deploy.yaml").read_text(encoding="utf-8"))["reject"]
    assert (told["temperature"], told["threshold"]) == (1.0, threshold)
    results = list(Predictor(folder, device="cpu", reject=True).predict([clip_set / name for name in VIDEOS]))
    own = list(predictor_of(clip_set, weights, reject=True).predict([clip_set / name for name in VIDEOS]))
    assert [result.is_unknown for result in results] == [result.is_unknown for result in own]
    expected = [result.judged.scaled_probability for result in own]
    assert [result.judged.scaled_probability for result in results] == pytest.approx(expected, abs=1e-5)


def test_an_export_of_other_or_no_numbers(clip_set, weights, kept, tmp_path, capsys, caplog):
    folder = tmp_path / "export"
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--batch_size=1", "--save_dir", folder]
    assert run(inference_model, *words) == 0
    path = folder / "deploy.yaml"
    about = yaml.safe_load(path.read_text(encoding="utf-8"))
    about["reject"]["sha256"] = "0" * 64
    path.write_text(yaml.safe_dump(about), encoding="utf-8")
    with pytest.raises(UserError, match="deploy.yaml was fitted with other weights"):
        Predictor(folder, device="cpu", reject=True)
    assert Predictor(folder, device="cpu").rejection is None
    del about["reject"]  # as of an earlier version
    path.write_text(yaml.safe_dump(about), encoding="utf-8")
    with pytest.raises(UserError, match="no threshold is kept for .*export") as error:
        Predictor(folder, device="cpu", reject=True)
    assert error.value.hint == f"fit one: python eval.py --weights={folder} --reject"
    write_rejection(weights, "0" * 64, Rejection(1, 0.5), 0.5, 6, "val.list")
    assert run(inference_model, *words) == 0
    assert "the export has no threshold for unknown clips: the threshold in" in caplog.text
    assert "reject" not in yaml.safe_load(path.read_text(encoding="utf-8"))


def test_a_threshold_is_fitted_on_an_export_itself(clip_set, weights, tmp_path):
    folder = tmp_path / "export"
    words = ["--config", clip_set / "tiny.yaml", "--batch_size=1"]
    assert run(inference_model, *words, "--weights", weights, "--save_dir", folder) == 0
    before = sorted(os.listdir(folder))
    assert run(eval_entry, *words, "--weights", folder, "--save_dir", tmp_path / "out", "--reject=0.5") == 0
    assert sorted(os.listdir(folder)) == before
    kept = json.loads((tmp_path / "export.reject.json").read_text())
    predictor = Predictor(folder, device="cpu", reject=True)
    assert predictor.rejection == (kept["temperature"], kept["threshold"])
    assert kept["sha256"] == predictor.digest


def timeline_of(predictor, path, name):
    return predictor.timeline(path, name, window=1, stride=0.5, threshold=0.25, hold=0.2)


def test_windows_below_the_threshold_count_for_no_class(clip_set, weights, tmp_path):
    path = write_video(tmp_path / "long.mp4", frames=60)
    plain = predictor_of(clip_set, weights)
    events = timeline_of(plain, path, tmp_path / "plain")
    lines = [json.loads(line) for line in (tmp_path / "plain.windows.jsonl").read_text().splitlines()]
    scores = [line["scores"][0] for line in lines]
    threshold = sorted(scores)[4]
    write_rejection(weights, plain.digest, Rejection(1.0, threshold - 1e-7), 0.5, 6, "val.list")
    found = timeline_of(predictor_of(clip_set, weights, reject=True), path, tmp_path / "with")
    lines = [json.loads(line) for line in (tmp_path / "with.windows.jsonl").read_text().splitlines()]
    unknown = [line["is_unknown"] for line in lines]
    assert unknown == [score < threshold for score in scores]
    assert [line["answer"] == "unknown" for line in lines] == unknown
    assert found.note == f"4 of 9 windows are unknown: scaled probability below {threshold - 1e-7:.6g}"
    centres = [(line["start"] + line["end"]) / 2 for line, is_unknown in zip(lines, unknown) if is_unknown]
    assert all(not event.start < centre < event.end for event in found for centre in centres)
    assert any(event.start < centre < event.end for event in events for centre in centres)
    with open(tmp_path / "with.windows.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["start", "end", "scaled_probability", "is_unknown", "a", "b", "c", "d"]
    assert [row[3] for row in rows[1:]] == [str(is_unknown) for is_unknown in unknown]
    assert events.note == ""
    with open(tmp_path / "plain.windows.csv", encoding="utf-8", newline="") as file:
        assert [row[:2] + row[4:] for row in rows] == list(csv.reader(file))
    pictures = [(tmp_path / f"{name}.timeline.png").read_bytes() for name in ("plain", "with")]
    assert pictures[0] != pictures[1]


def test_where_all_windows_are_unknown_there_is_no_event_and_predict_says_why(clip_set, weights, tmp_path, capsys):
    path = write_video(tmp_path / "long.mp4", frames=60)
    write_rejection(weights, predictor_of(clip_set, weights).digest, Rejection(1.0, 1.0), 0.5, 6, "val.list")
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--engine=paddle", "--save_dir", tmp_path]
    words += ["--timeline", "--window=1", "--stride=0.5", "--threshold=0.25", "--hold=0.2", "--reject", path]
    assert run(predict, *words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2] == "    9 of 9 windows are unknown: scaled probability below 1"
    assert (tmp_path / "long.events.csv").read_text() == "start,end,class,probability\n"
    assert len((tmp_path / "long.windows.jsonl").read_text().splitlines()) == 9
