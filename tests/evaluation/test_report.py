"""What the pages hold; test_report_in_browser.py looks at them."""

import json
import logging
import re
import shutil

import numpy as np
import pytest
from entries import eval_entry, run, train
from report_pages import random_evaluation, write
from training_helpers import make_trainer, saved

from stnet.config import load_config
from stnet.evaluation.report import _strips, middle_frames, scores_of
from stnet.metrics.calibration import reliability
from stnet.models import model_section
from stnet.reader.loader import build_loader
from stnet.report.charts import (
    BOTTOM,
    HEIGHT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    class_chart,
    line_chart,
    reliability_chart,
)
from stnet.training.log import points
from stnet.training.report import share_waited


def tables(path):
    """Rows of a page's tables, by name."""
    found = re.findall(r'data-table="(\w+)".*?<script type="application/json">(.*?)</script>', path.read_text(), re.S)
    return {name: json.loads(text)["rows"] for name, text in found}


def test_eval_writes_a_report_of_what_it_read_and_says_where(clip_set, trained, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "x.list").write_text(f"{clip_set}/val 0.mp4 0\n{clip_set}/val 1.mp4 1\nnone.mp4 1\n")
    flags = [f"--weights={trained / 'STNET_final.pdparams'}", "--engine=paddle", f"--save_dir={tmp_path / 'out'}"]
    flags += ["-o", f"TEST.filelist={tmp_path / 'x.list'}", "-o", "TEST.max_bad_ratio=0.5"]
    assert run(eval_entry, "--config", clip_set / "tiny.yaml", *flags) == 0
    report = tmp_path / "out" / "report.html"
    assert f"report: {report}" in caplog.text
    rows = tables(report)
    assert sorted(row[:2] for row in rows["clips"]) == [[f"{clip_set}/val {i}.mp4", i] for i in (0, 1)]
    assert [row[0] for row in rows["unread"]] == ["none.mp4"]
    assert len(re.findall("data:image/jpeg", report.read_text())) == 2
    assert str(trained / "STNET_final.pdparams") in report.read_text()


def test_a_page_shows_the_middle_frame_of_each_segment():
    segments, seglen = 2, 5
    clip = np.zeros((segments, 3 * seglen, 4, 4), np.uint8)
    clip[0, 6:9], clip[1, 6:9] = 7, 8  # third of five frames
    frames = middle_frames(clip)
    assert frames.shape == (2, 4, 4, 3)
    assert [int(frame.min()) for frame in frames] == [7, 8]


def test_the_worst_of_clips_with_many_views_are_read_again_by_the_centre_view(clip_set, monkeypatch):
    monkeypatch.chdir(clip_set)
    evaluation = random_evaluation(4, 6, paths=[f"val {i}.mp4" for i in range(6)])
    pictures = []
    for overrides in ([], ["TEST.num_clips=2", "TEST.num_crops=3"]):
        dataset = build_loader(load_config("tiny.yaml", model_section, overrides), "test").dataset
        pictures.append([strip.picture for strip in _strips(evaluation, dataset)])
    assert len(pictures[0]) == 6
    assert pictures[0] == pictures[1]


def test_the_tables_say_what_the_matrix_says():
    evaluation = random_evaluation(3, 4, paths=list("pqrs"))
    evaluation.labels[:] = [0, 0, 1, 1]
    evaluation.logits[:] = np.eye(3, dtype=np.float32)[[0, 2, 2, 1]]
    evaluation.logits[3, 1] = np.nan
    scores = scores_of(evaluation)
    assert scores.classes.rows == [
        [0, 2, 0.5, 1.0, 2, 1],
        [1, 2, 0.0, None, 2, 1],
        [2, 0, None, 0.0, None, None],
    ]
    assert scores.pairs.rows == [[0, 2, 1, 0.5], [1, 2, 1, 0.5]]
    assert scores.cells[0] == [(1, 0.5), (0, 0.0), (1, 0.5)]
    assert [row[:3] for row in scores.clips.rows] == [["q", 0, 2], ["r", 1, 2], ["s", 1, None], ["p", 0, 0]]
    assert scores.clips.rows[2][3:] == [None, None]


def test_a_file_name_that_is_not_utf_8_is_shown_with_its_bytes_escaped(tmp_path, tiny_config):
    page = write(tmp_path / "report.html", random_evaluation(2, 1, paths=["caf\udce9.mp4"]), tiny_config)
    assert tables(page)["clips"][0][0] == r"caf\udce9.mp4"


# Charts -----------------------------------------------------------------------------------------------------------


def test_a_long_curve_is_drawn_by_the_means_of_neighbours():
    chart = line_chart("Loss", [Series("training", [(step, step % 2) for step in range(10 * MOST_POINTS)])])
    assert chart.lines[0].path.count("L") == MOST_POINTS - 1
    heights = {float(y) for y in re.findall(r" ([\d.]+)", chart.lines[0].path)}
    assert len(heights) == 1  # of ten neighbours, half are 0 and half are 1
    assert line_chart("Loss", [Series("training", [])]) is None


def test_an_outlier_lies_at_the_edge_and_flattens_no_line():
    points = [(step, 8 - step / 100) for step in range(1, 701)]  # 8 down to 1
    chart = line_chart("Loss", [Series("training", [*points, (701, 1e6)]), Series("validation", [(9, 131), (20, 7)])])
    heights = [float(y) for y in re.findall(r" ([\d.]+)", chart.lines[0].path)]
    assert min(heights) == TOP
    assert max(heights) - sorted(heights)[1] > 0.8 * (HEIGHT - BOTTOM - TOP)
    assert chart.lines[0].dots == [(WIDTH - RIGHT, TOP, "training, step 701: 1e+06")]
    assert chart.lines[1].dots[0][2] == "validation, step 9: 131"
    assert chart.note == "beyond the axis: 2, up to 1e+06 at step 701"


@pytest.mark.parametrize("losses", [[5.0], [30.0, 2.0], [0.0, 0.0, 3.0], [-1.0, -3.0, -2.0], [9, 6, 4, 3, 2, 1, 1, 1]])
def test_what_is_no_outlier_lies_within_the_axis(losses):
    chart = line_chart("Loss", [Series("validation", list(enumerate(losses)), dots=True)])
    assert chart.note == ""
    places = [y for _, y, _ in chart.lines[0].dots]
    assert all(TOP <= y <= HEIGHT - BOTTOM for y in places)
    assert len(set(places)) == len(set(losses))


def test_bars_are_as_high_as_the_accuracy_and_start_with_the_lowest():
    bars = class_chart([1.0, float("nan"), 0.25], ["a", "b", "c"]).bars
    assert [bar.says for bar in bars] == ["c: 25.0%", "a: 100.0%"]
    assert bars[0].height * 4 == bars[1].height
    curve = reliability(np.array([[0.9, 0.1], [0.92, 0.08]]), np.array([0, 1]))
    (bar,) = reliability_chart(curve).bars
    assert bar.says == "probability 0.87 to 0.93, mean 0.910: 2 clips, 50.0% right"


def test_points_are_the_finite_numbers_by_step():
    values = [2.5, "3", True, None, float("nan"), 10**400, [1], 4]
    rows = [{"kind": "train", "step": 9 - i, "loss": value} for i, value in enumerate(values)]
    rows += [{"kind": "valid", "step": 1, "loss": 1}, {"kind": "train", "step": 10**400, "loss": 1}]
    assert points(rows, "train", "loss") == [(2, 4.0), (9, 2.5)]


def test_the_share_of_waiting_counts_each_line_of_the_log_by_its_time():
    rows = [
        {"kind": "train", "step": 10, "clips_per_s": 1.0, "data_wait": 0.5},  # 10 steps at 1 clip a second
        {"kind": "train", "step": 15, "clips_per_s": 0.5, "data_wait": 0.0},  # 5 at half of that: as long
        {"kind": "train", "step": 16, "clips_per_s": 0.0, "data_wait": 1.0},
    ]
    assert share_waited(rows) == pytest.approx(0.25)
    assert share_waited(rows[2:]) is None


# Training ---------------------------------------------------------------------------------------------------------


def steps_of(folder):
    return int(re.search(r"<bdi>(\d+) steps</bdi>", (folder / "training.html").read_text())[1])


def test_a_resumed_run_shows_the_whole_curve_and_a_finished_one_keeps_its_page(clip_set, tmp_path):
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", tmp_path, "--pretrain=none", "--log_interval=1"]
    assert run(train, *flags, "--epoch=1") == 0
    assert steps_of(tmp_path) == 3
    assert run(train, *flags, "--epoch=2", "--resume=auto") == 0
    page = (tmp_path / "training.html").read_text()
    assert steps_of(tmp_path) == 6
    assert len(re.findall(r"<title>validation, step \d", page)) == 2  # losses of both epochs
    assert run(train, *flags, "--epoch=2", "--resume=auto") == 0
    assert (tmp_path / "training.html").read_text() == page


def test_a_page_that_cannot_be_written_does_not_lose_a_finished_training(clip_set, tmp_path, caplog):
    (tmp_path / "training.html").mkdir()
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=1", validate=True)
    assert trainer.fit()["count"] == 6
    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert warning.startswith(f"{tmp_path}/training.html was not written: UserError: cannot write ")
    assert "STNET_final" in saved(tmp_path)


def test_overwrite_removes_the_page_of_the_run(clip_set, trained, tmp_path):
    from stnet.training import resume

    shutil.copytree(trained, tmp_path / "used")
    resume.remove_run(str(tmp_path / "used"), "STNET")
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["train_config.yaml"]
