"""What one can do with a result: print, save, look."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from stnet.inference.result import Result
from stnet.reader.clip import Clip
from stnet.utils.errors import UserError

LABELS = ["left", "right", "向上"]


def result(**facts):
    frames = np.full((4, 32, 32, 3), 200, np.uint8)
    clip = Clip(frames, None, [[0, 1], [5, 6]], 10, None)
    facts = {"input_path": "clips/a.b.mp4", "_read": lambda: clip, **facts}
    return Result.of(np.float32([0.25, 0.5, 0.25]), LABELS, 2, **facts)


BAD = Result("clips/bad.mp4", error="no frame can be decoded")


def test_the_top_classes_come_first_and_of_equal_ones_the_smaller_number():
    assert result().json == {
        "input_path": "clips/a.b.mp4",
        "class_ids": [1, 0],
        "scores": [0.5, 0.25],
        "label_names": ["right", "left"],
    }


def test_print_and_str(capsys):
    result().print()
    assert capsys.readouterr().out == "clips/a.b.mp4\n    right, 0.500000\n    left, 0.250000\n"
    assert str(BAD) == "clips/bad.mp4\n    no frame can be decoded"
    assert str(result(input_path=None)).startswith("(no file)\n")


def test_json_and_csv_files(tmp_path):
    assert result(label=1).save_to_json(f"{tmp_path}/new/") == f"{tmp_path}/new/a.b.json"
    saved = json.loads((tmp_path / "new" / "a.b.json").read_text())
    assert (saved["schema"], saved["label"], saved["class_ids"]) == (1, 1, [1, 0])
    assert BAD.save_to_json(tmp_path / "b.json") == str(tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text())["error"] == "no frame can be decoded"
    with open(result().save_to_csv(tmp_path), newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["input_path"], row["label_name_1"], row["score_2"]) == ("clips/a.b.mp4", "right", "0.25")


@pytest.mark.parametrize(("name", "kind"), [("look.png", "PNG"), ("look.JPG", "JPEG")])
def test_a_picture_of_what_the_network_saw(tmp_path, name, kind):
    with Image.open(result().save_to_img(tmp_path / name)) as picture:
        assert picture.format == kind
        assert picture.width > 2 * 96
        shown = np.asarray(picture.convert("L"))
    assert (abs(shown.astype(int) - 200) < 3).sum() == pytest.approx(4 * 96 * 96, rel=0.05)
    assert (shown[:50] > 220).any()  # the heading's letters


def test_what_was_not_read_has_no_picture_and_no_reason(tmp_path):
    for ask in (BAD.clip, BAD.explain, lambda: BAD.save_to_img(tmp_path)):
        with pytest.raises(UserError, match=r"clips/bad.mp4: no frame can be decoded"):
            ask()
    assert list(tmp_path.iterdir()) == []


def test_the_reason_is_asked_for_the_top_classes():
    told = result(_explain=lambda path, clip, classes, grid: (path, clip.num_frames, classes, grid))
    assert told.explain() == ("clips/a.b.mp4", 10, [1, 0], 8)
    assert told.explain(topk=1, grid=0) == ("clips/a.b.mp4", 10, [1], 0)
    with pytest.raises(UserError, match="exported model does not show"):
        result().explain()
