"""predict --timeline and predict --explain, as they are typed."""

import csv
import json
import re

import av
import pytest
from conftest import write_video
from entries import failing, predict, run
from PIL import Image

from stnet.utils.files import unique_stems


@pytest.fixture
def typed(clip_set, trained, tmp_path):
    """The flags of predict with the weights of a tiny training, whose files go to `out`."""
    weights = trained / "STNET_final.pdparams"
    return ["--config", clip_set / "tiny.yaml", "--weights", weights, "--save_dir", tmp_path / "out", "--engine=paddle"]


def test_predict_writes_a_timeline(typed, tmp_path, capsys):
    path = write_video(tmp_path / "long 视频.mp4", frames=60)
    timeline = ["--timeline", "--window=1", "--stride=0.5", "--threshold=0.25", "--hold=0.2"]
    assert run(predict, *typed, "--video_path", path, *timeline, "--render", tmp_path / "copy.mp4") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == str(path)
    out = tmp_path / "out"
    lines = (out / "long 视频.windows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["frames"] for line in lines] == [[i, i + 12] for i in range(0, 49, 6)]
    with open(out / "long 视频.events.csv", encoding="utf-8", newline="") as file:
        events = list(csv.DictReader(file))
    assert len(events) == len(said) - 1 > 0
    assert said[1] == "    {:.2f} - {:.2f} s, {}, {:.6f}".format(
        float(events[0]["start"]), float(events[0]["end"]), events[0]["class"], float(events[0]["probability"])
    )
    assert Image.open(out / "long 视频.timeline.png").format == "PNG"
    assert {path.suffix for path in out.iterdir()} == {".jsonl", ".csv", ".vtt", ".srt", ".png", ".yaml"}
    with av.open(str(tmp_path / "copy.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 60


def test_a_copy_does_not_replace_the_video_that_it_is_made_of(typed, tmp_path, capsys):
    path = write_video(tmp_path / "long.mp4", frames=30)
    before = path.read_bytes()
    failing("predict", "would replace the video .*; set --render to another file", capsys, *typed, "--timeline",
            "--video_path", path, "--render", tmp_path / "." / "long.mp4")  # fmt: skip
    message = "cannot write .*(Not a directory|File exists)"
    failing("predict", message, capsys, *typed, "--timeline", path, "--render", path / "copy.mp4")
    assert path.read_bytes() == before


def test_a_copy_replaces_an_earlier_one_but_no_other_file_unasked(typed, tmp_path, capsys):
    path, copy = write_video(tmp_path / "long.mp4", frames=30), tmp_path / "copy.mp4"
    flags = [*typed, "--timeline", "--window=1", "--video_path", path, "--render", copy]
    for content in (b"a novel", path.read_bytes()):
        copy.write_bytes(content)
        failing(
            "predict",
            "copy.mp4 exists, and is no copy .*; set --overwrite to replace it, or --render to",
            capsys,
            *flags,
        )
        assert copy.read_bytes() == content
    assert run(predict, *flags, "--overwrite") == 0
    written = copy.read_bytes()
    assert written != path.read_bytes()
    assert run(predict, *flags) == 0
    with av.open(str(copy)) as container:
        assert sum(1 for _ in container.decode(video=0)) == 30


@pytest.mark.parametrize(
    ("levels", "why"),
    [
        (["0.99"], "0.99"),
        (["0.26", "--hold=0.2", "--shortest=99"], "0.26 for 99 s"),
        (["0.26", "--hold=0.2", "--window=30"], "0.26 for 15 s"),
    ],
)
def test_where_there_is_no_event_predict_says_what_comes_nearest(typed, tmp_path, capsys, levels, why):
    path = write_video(tmp_path / "long.mp4", frames=60)
    assert (
        run(predict, *typed, "--timeline", "--window=1", "--stride=0.5", path, f"--threshold={levels[0]}", *levels[1:])
        == 0
    )
    said = capsys.readouterr().out.splitlines()
    with open(tmp_path / "out" / "long.windows.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    highest, name, row = max((float(row[name]), name, number) for number, row in enumerate(rows) for name in "abcd")
    assert re.fullmatch(f"    nothing reaches {why}; the highest is ([0-9.]+), {name}, .*", said[1])
    assert float(said[1].split("highest is ")[1].split(",")[0]) == pytest.approx(highest, abs=1e-5)
    assert said[1].endswith("{:.2f} - {:.2f} s".format(float(rows[row]["start"]), float(rows[row]["end"])))


def test_predict_explains_each_clip(typed, clip_set, tmp_path):
    (tmp_path / "one.list").write_text(f"{clip_set / 'val 0.mp4'}\n", encoding="utf-8")
    assert run(predict, *typed, "--explain", "--filelist", tmp_path / "one.list") == 0
    results = json.loads((tmp_path / "out" / "predict_results.json").read_text(encoding="utf-8"))["results"]
    why = json.loads((tmp_path / "out" / "val 0.why.json").read_text(encoding="utf-8"))
    scores = [row["probability"] for row in results[0]["predictions"]]
    assert [reason["score"] for reason in why["classes"]] == pytest.approx(scores, abs=1e-4)
    assert len(why["segments"]) == len(why["classes"][0]["shares"])
    assert Image.open(tmp_path / "out" / "val 0.why.png").format == "PNG"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--video_path={folder}", "--window=-1"], "window and stride: expected more than 0 seconds, found -1 and 2"),
        (["--video_path={folder}", "--threshold=0.4"], "threshold and hold: expected 0 < hold <= threshold <= 1"),
        (["--video_path={folder}", "--render=a.mp4"], "one file cannot hold copies of 2 videos; set --video_path"),
        (["--filelist=a.list"], "list file not found: a.list"),
    ],
)
def test_a_timeline_that_makes_no_sense_is_one_line(typed, tmp_path, capsys, flags, message):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name)
    failing("predict", message, capsys, *typed, "--timeline", *(flag.format(folder=folder) for flag in flags))


def test_files_of_videos_with_the_same_name_have_different_ones():
    assert unique_stems(["a/x.mp4", "b/x.mp4", "x-2.avi", "c/x.mkv"]) == ["x", "x-2", "x-2-2", "x-3"]
