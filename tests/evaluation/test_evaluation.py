"""What eval leaves beside its totals: tables, a picture and calibration."""

import csv
import json
import os
import resource

import numpy as np
import pytest
from PIL import Image

from stnet.evaluation.files import write_files
from stnet.evaluation.results import Evaluation
from stnet.metrics import TopK
from stnet.utils.errors import UserError

NAMES = ["dancing, slow", '跳舞 "fast"', "two\nlines"]
FILES = ["per_class.csv", "confusion.csv", "confusion.png", "confused_pairs.csv", "predictions.csv", "calibration.json"]


def logits_of(*rows):
    """Log-probabilities."""
    return np.log(np.array(rows, np.float32))


EVALUATION = Evaluation(
    paths=["right, less sure.mp4", "wrong.mp4", "right.mp4", "surely\nwrong \udcff.mp4", "also wrong.mp4"],
    labels=np.array([0, 0, 1, 0, 1]),
    logits=logits_of([0.5, 0.3, 0.2], [0.28, 0.62, 0.1], [0.08, 0.82, 0.1], [0.05, 0.05, 0.9], [0.61, 0.29, 0.1]),
    names=NAMES,
    unread=[("none.mp4", "no such file")],
)


def rows_of(path):
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("new 视频") / "results"
    assert write_files(EVALUATION, folder, topk=2) == FILES
    assert sorted(os.listdir(folder)) == sorted(FILES)
    return folder


def test_classes_with_their_accuracy_and_what_they_are_taken_for(folder):
    header, *rows = rows_of(folder / "per_class.csv")
    assert ",".join(header[:8]) == "class,name,clips,correct,accuracy,confused_with,confused_with_name,confused_clips"
    assert header[8:] == ["precision"]
    assert rows == [
        ["0", "dancing, slow", "3", "1", "0.333333", "1", '跳舞 "fast"', "1", "0.5"],
        ["1", '跳舞 "fast"', "2", "1", "0.5", "0", "dancing, slow", "1", "0.5"],
        ["2", "two\nlines", "0", "0", "", "", "", "", "0"],
    ]


def test_the_matrix_has_a_row_a_true_class(folder):
    assert rows_of(folder / "confusion.csv") == [
        ["true class", *NAMES],
        [NAMES[0], "1", "1", "1"],
        [NAMES[1], "1", "1", "0"],
        [NAMES[2], "0", "0", "0"],
    ]


def test_pairs_have_their_share_of_the_true_classs_clips(folder):
    _, *rows = rows_of(folder / "confused_pairs.csv")
    assert [(row[0], row[2], row[4], row[5]) for row in rows] == [
        ("0", "1", "1", "0.333333"),
        ("0", "2", "1", "0.333333"),
        ("1", "0", "1", "0.5"),
    ]


def test_surely_wrong_clips_come_first_the_surely_right_ones_last_and_then_the_unread(folder):
    header, *rows = rows_of(folder / "predictions.csv")
    assert header[:7] == [
        "input_path", "label", "label_name", "prediction", "prediction_name", "label_score", "error",
    ]  # fmt: skip
    assert header[7:] == ["class_id_1", "label_name_1", "score_1", "class_id_2", "label_name_2", "score_2"]
    assert [row[0] for row in rows] == [EVALUATION.paths[i] for i in (3, 1, 4, 0, 2)] + ["none.mp4"]
    assert rows[0][1:7] == ["0", "dancing, slow", "2", "two\nlines", "0.05", ""]
    assert rows[0][7:] == ["2", "two\nlines", "0.9", "0", "dancing, slow", "0.05"]  # of equal ones the smaller number
    assert rows[5] == ["none.mp4", *[""] * 5, "no such file", *[""] * 6]


def test_files_are_utf8_without_a_mark_and_paths_keep_their_bytes(folder):
    content = (folder / "predictions.csv").read_bytes()
    assert content.startswith(b"input_path,")
    assert b'"surely\nwrong \xff.mp4",0,"dancing, slow",2' in content
    assert b"\r" not in content


def test_a_lone_carriage_return_breaks_no_row(tmp_path):
    logits = np.eye(2, dtype=np.float32)
    write_files(Evaluation(["p\r.mp4", "q.mp4"], np.array([0, 1]), logits, ["a\rb", "c"], []), tmp_path, topk=1)
    assert [row[1] for row in rows_of(tmp_path / "per_class.csv")] == ["name", "a\rb", "c"]
    assert [row[0] for row in rows_of(tmp_path / "predictions.csv")] == ["input_path", "p\r.mp4", "q.mp4"]
    assert b"\r\n" not in (tmp_path / "predictions.csv").read_bytes()


def test_calibration_has_the_curve_and_both_halves(folder):
    found = json.loads((folder / "calibration.json").read_text())
    assert found["schema"] == 1
    assert found["ece"] == pytest.approx((0.5 + (0.62 + 0.61) + 0.18 + 0.9) / 5)  # each bin's |hits - sum of scores|
    assert [row["clips"] for row in found["bins"]] == [0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 0, 0, 1, 1, 0]
    assert found["bins"][0] == {"lower": 0, "upper": 1 / 15, "clips": 0, "accuracy": None, "confidence": None}
    assert found["temperature"] > 1
    assert list(found["halves"][1]) == ["temperature", "ece_before", "ece_after", "nll_before", "nll_after"]


def test_the_picture_shows_shares_of_rows(folder):
    picture = np.asarray(Image.open(folder / "confusion.png").convert("RGB")).astype(int)
    blue = (picture[..., 2] - picture[..., 0] > 60) & (picture[..., 0] < 160)  # shares of a third and more
    assert blue.sum() > 5 * 40 * 40  # five cells


def test_predictions_are_right_where_top_k_says_so():
    rng = np.random.RandomState(0)
    logits, labels = rng.randint(0, 3, (200, 4)).astype(np.float32), rng.randint(0, 4, 200)  # with many ties
    logits[::20, 1] = np.nan
    scores = TopK()
    scores.update(logits, labels)
    evaluation = Evaluation([""] * 200, labels, logits, list("abcd"), [])
    assert (evaluation.predictions == labels).sum() == scores.hits[1]
    assert evaluation.matrix.trace() == scores.hits[1]
    assert evaluation.matrix.sum() == 190


def test_logits_that_are_not_finite_are_wrong_and_said(tmp_path):
    logits = np.array([[0, -np.inf, -np.inf], [2, 0, 0], [0, 3, 0]], np.float32)
    write_files(Evaluation(["infinite", "right", "wrong"], np.array([0, 0, 0]), logits, NAMES, []), tmp_path, topk=5)
    rows = rows_of(tmp_path / "predictions.csv")[1:]
    assert [row[0] for row in rows] == ["wrong", "infinite", "right"]
    assert rows[1] == ["infinite", "0", NAMES[0], "", "", "", "its logits are not finite", *[""] * 9]
    assert rows_of(tmp_path / "per_class.csv")[1][2:5] == ["3", "1", "0.333333"]


def test_nothing_but_logits_that_are_not_finite_is_an_evaluation_too(tmp_path):
    logits = np.full((2, 3), np.inf, np.float32)
    assert write_files(Evaluation(["a", "b"], np.array([0, 1]), logits, NAMES, []), tmp_path, topk=1) == FILES
    found = json.loads((tmp_path / "calibration.json").read_text())
    assert (found["ece"], found["temperature"], found["halves"]) == (None, None, [])


def test_five_of_400_classes_leave_files_for_five(tmp_path):
    labels = np.array([3, 50, 120, 250, 399] * 4)
    logits = np.eye(400, dtype=np.float32)[labels] * 5
    logits[0] = np.eye(400)[7] * 9
    names = [f"class number {i}" for i in range(400)]
    write_files(Evaluation([str(i) for i in range(20)], labels, logits, names, []), tmp_path, topk=5)
    rows = rows_of(tmp_path / "per_class.csv")[1:]
    assert [row[0] for row in rows if row[4]] == ["3", "50", "120", "250", "399"]
    assert len(rows) == 400
    assert rows_of(tmp_path / "confused_pairs.csv")[1:] == [["3", names[3], "7", names[7], "1", "0.25"]]
    assert max(Image.open(tmp_path / "confusion.png").size) < 1000  # six classes


def test_files_of_another_evaluation_are_replaced(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text("of another")
    write_files(EVALUATION, tmp_path, topk=1)
    assert sorted(os.listdir(tmp_path)) == sorted(FILES)
    assert not [name for name in FILES if (tmp_path / name).read_bytes() == b"of another"]


def test_a_file_that_cannot_be_written_is_one_line_and_leaves_the_older_one(tmp_path):
    (tmp_path / "confusion.png").write_text("older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))  # bytes in a file
    try:
        with pytest.raises(UserError, match=r"^cannot write \S*confusion.png: File too large$"):
            write_files(EVALUATION, tmp_path, topk=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "confusion.png").read_text() == "older"
    assert sorted(os.listdir(tmp_path)) == ["confusion.csv", "confusion.png", "per_class.csv"]
