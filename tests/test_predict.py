"""predict.py, called in this process: what it takes, what it writes, how it ends."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_video
from entries import failing, predict, run

PROJECT = Path(__file__).parents[1]


def predictions(clip_set, trained, tmp_path, *flags, code=0):
    ended = run(
        predict,
        "--config",
        clip_set / "tiny.yaml",
        "--weights",
        trained / "STNET_final.pdparams",
        "--save_dir",
        tmp_path,
        *flags,
    )
    assert ended == code
    return json.loads((tmp_path / "predict_results.json").read_text())["results"]


def test_predict_takes_a_video_a_folder_and_a_list(clip_set, trained, tmp_path, caplog, capsys):
    one = predictions(clip_set, trained, tmp_path, "--video_path", clip_set / "val 0.mp4")
    assert re.fullmatch(r".*val 0.mp4\n    [abcd], 0\.\d{6}\n    [abcd], 0\.\d{6}\n", capsys.readouterr().out)
    assert len(one) == 1
    folder = predictions(clip_set, trained, tmp_path, "--video_path", clip_set)
    assert len(folder) == 16
    listed = predictions(clip_set, trained, tmp_path)
    assert [r["path"] for r in listed] == ["val 0.mp4", "val 1.mp4"]
    assert one[0]["predictions"][0]["probability"] == pytest.approx(listed[0]["predictions"][0]["probability"], 1e-5)
    assert len(listed[0]["predictions"]) == 2  # MODEL.topk
    full = predictions(clip_set, trained, tmp_path, "--filelist", clip_set / "infer.list", "--infer_topk=9")
    assert [row.message for row in caplog.records if row.levelname == "WARNING"] == [
        "--infer_topk 9: there are 4 classes"
    ]
    assert sorted(row["label"] for row in full[0]["predictions"]) == ["a", "b", "c", "d"]
    assert sum(row["probability"] for row in full[0]["predictions"]) == pytest.approx(1, abs=1e-5)


def table(clip_set, trained, tmp_path, *flags):
    """Exit code of predict into a table, and the table's rows; results in the working directory."""
    words = ["--weights", trained / "STNET_final.pdparams", "--save_dir", tmp_path, "--engine=paddle"]
    code = run(predict, *words, "--output", tmp_path / "r.jsonl", *flags)
    lines = (tmp_path / "r.jsonl").read_text().splitlines() if (tmp_path / "r.jsonl").exists() else []
    return code, [json.loads(line) for line in lines]


def test_predict_takes_files_and_globs_without_a_config_and_writes_a_table(clip_set, trained, tmp_path):
    code, rows = table(clip_set, trained, tmp_path, clip_set / "val 1.mp4", clip_set / "val [02].mp4")
    assert (code, [Path(row["input_path"]).name for row in rows]) == (0, ["val 1.mp4", "val 0.mp4", "val 2.mp4"])
    assert not (tmp_path / "predict_results.json").exists()
    one = predictions(clip_set, trained, tmp_path, "--engine=paddle", "--video_path", clip_set / "val 1.mp4")
    best = one[0]["predictions"][0]
    assert (rows[0]["class_ids"][0], rows[0]["label_names"][0]) == (best["class"], best["label"])
    assert rows[0]["scores"][0] == pytest.approx(best["probability"], abs=1e-6)


def test_one_of_ten_broken_gives_nine_results_and_its_name(clip_set, trained, tmp_path):
    paths = [clip_set / f"{split} {i}.mp4" for split, count in (("train", 5), ("val", 4)) for i in range(count)]
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    code, rows = table(clip_set, trained, tmp_path, *paths, tmp_path / "broken.mp4")
    assert (code, len(rows)) == (3, 10)
    assert [Path(row["input_path"]).name for row in rows if "error" in row] == ["broken.mp4"]
    assert sum(bool(row["class_ids"]) for row in rows) == 9
    code, rows = table(clip_set, trained, tmp_path, "--overwrite", tmp_path / "broken.mp4", tmp_path / "none.mp4")
    assert (code, ["error" in row for row in rows]) == (1, [True, True])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--window=5"], "--window is without effect unless --timeline is given"),
        (["--render=x.mp4"], "--render is without effect unless --timeline is given"),
        (["--resume"], "--resume is without effect unless --output is given"),
        (["--output=x.csv", "--resume", "--overwrite"], "set one of them"),
        (["--timeline", "--explain"], "--timeline writes files of its own: it cannot be combined with --explain"),
    ],
)
def test_flags_without_effect_are_refused(words, message, capsys):
    failing("predict", message, capsys, "a.mp4", *words)


def test_a_typo_leaves_earlier_results(clip_set, trained, tmp_path):
    predictions(clip_set, trained, tmp_path, "--engine=paddle")
    before = (tmp_path / "predict_results.json").read_text()
    predictions(clip_set, trained, tmp_path, "--engine=paddle", clip_set / "vla 0.mp4", code=1)
    assert (tmp_path / "predict_results.json").read_text() == before


def test_a_table_is_refused_gone_on_with_and_replaced(clip_set, trained, tmp_path, capsys):
    table(clip_set, trained, tmp_path, clip_set / "val 0.mp4", clip_set / "val 1.mp4")
    whole = (tmp_path / "r.jsonl").read_text()
    code, _ = table(clip_set, trained, tmp_path, clip_set / "val 0.mp4", clip_set / "val 1.mp4")
    assert code == 1
    assert "r.jsonl exists; set --resume to go on with it, --overwrite to replace it" in capsys.readouterr().err
    assert (tmp_path / "r.jsonl").read_text() == whole
    (tmp_path / "r.jsonl").write_text(whole.splitlines(keepends=True)[0] + '{"input_pa')  # as a kill would leave it
    code, rows = table(clip_set, trained, tmp_path, clip_set / "val 0.mp4", clip_set / "val 1.mp4", "--resume")
    assert (code, len(rows)) == (0, 2)
    assert (tmp_path / "r.jsonl").read_text() == whole
    code, _ = table(clip_set, trained, tmp_path, clip_set / "val 0.mp4", "--resume", "-o", "INFER.short_size=40")
    assert code == 1
    assert "was made with other config" in capsys.readouterr().err
    code, rows = table(clip_set, trained, tmp_path, clip_set / "val 3.mp4", "--overwrite")
    assert (code, len(rows)) == (0, 1)


def test_a_table_goes_on_with_a_folder_that_has_grown_and_changed(clip_set, trained, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("b.mp4", "d.mp4"):
        shutil.copy(clip_set / "val 0.mp4", folder / name)
    first = table(clip_set, trained, tmp_path, folder)[1]
    shutil.copy(clip_set / "val 1.mp4", folder / "a.mp4")
    shutil.copy(clip_set / "val 2.mp4", folder / "d.mp4")
    code, rows = table(clip_set, trained, tmp_path, folder, "--resume")
    assert (code, [Path(row["input_path"]).name for row in rows]) == (0, ["b.mp4", "a.mp4", "d.mp4"])
    assert rows[0] == first[0]
    assert rows[2]["scores"] != first[1]["scores"]
    assert "videos that were replaced since, and are read again: 1" in caplog.text
    assert "r.jsonl holds 1 of the 3 videos: going on" in caplog.text


def test_a_clip_of_one_frame_is_predicted(clip_set, trained, tmp_path):
    write_video(tmp_path / "short.mp4", frames=1)
    assert len(predictions(clip_set, trained, tmp_path, "--video_path", tmp_path / "short.mp4")) == 1


def test_predict_goes_on_after_a_bad_clip(clip_set, trained, tmp_path):
    write_video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"")
    assert len(predictions(clip_set, trained, tmp_path, "--video_path", tmp_path, code=3)) == 1
    found = json.loads((tmp_path / "predict_results.json").read_text())
    assert found["skipped"] == [{"path": str(tmp_path / "b.mp4"), "reason": "the file is empty (0 bytes)"}]


def test_file_names_that_are_not_utf_8_are_in_the_results(clip_set, trained, videos, tmp_path):
    shutil.copy(videos / "clip_jpeg.pkl", os.fsencode(tmp_path) + b"/caf\xe9.pkl")
    (tmp_path / "x.list").write_bytes(b"caf\xe9.pkl\nno \xe9.pkl\n")
    words = [sys.executable, PROJECT / "predict.py", "--config", clip_set / "tiny.yaml", "--save_dir", tmp_path]
    words += ["--weights", trained / "STNET_final.pdparams", "--filelist", tmp_path / "x.list", "--engine=paddle"]
    done = subprocess.run([*words, "-o", "MODEL.format=pkl"], capture_output=True, check=False)
    assert done.returncode == 3
    assert b"Logging error" not in done.stderr
    assert b"skipped no \\udce9.pkl: no such file" in done.stderr
    found = json.loads((tmp_path / "predict_results.json").read_text())
    assert [os.fsencode(row["path"]) for row in found["results"]] == [b"caf\xe9.pkl"]
    assert [os.fsencode(row["path"]) for row in found["skipped"]] == [b"no \xe9.pkl"]
