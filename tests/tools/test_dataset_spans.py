"""tools.dataset with lists of spans: checked, packed and shown as the clips that they are."""

import json

import pytest
from conftest import tiny_settings, write_config, write_video

from stnet.reader.pickles import load_clip_pickle
from stnet.tools.dataset.__main__ import main
from stnet.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """A video of two seconds of 12 frames, and four of its parts: fine, the same again, behind the end, and none."""
    write_video(tmp_path / "long.mp4", frames=24)
    lines = ["long.mp4 0 0.5 1", "long.mp4 0.5 2 3", "long.mp4 0 0.5 1", "long.mp4 5 6 1", "long.mp4 2 1 1"]
    (tmp_path / "train.list").write_text("\n".join(lines), encoding="utf-8")
    write_config(tmp_path / "tiny.yaml", tiny_settings(tmp_path))
    return tmp_path


def check(folder, *flags):
    code = main(["check", "--list", str(folder / "train.list"), "--config", str(folder / "tiny.yaml"), *flags])
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return code, [(found["line"], found["problem"], found["reason"]) for found in report["findings"]]


def test_check_judges_each_span_and_keeps_the_fine_ones(folder):
    code, found = check(folder)
    assert (code, [row[:2] for row in found]) == (1, [(3, "duplicate"), (4, "undecodable"), (5, "label")])
    assert found[0][2] == "same content as line 1: long.mp4 [0-0.5 s]"
    assert found[1][2] == "the span begins behind the last frame, which is shown at 1.917 s"
    assert found[2][2] == "span 2-1 s: expected 0 <= START < END, in seconds"
    assert (folder / "train.clean.list").read_text().splitlines() == ["long.mp4 0 0.5 1", "long.mp4 0.5 2 3"]
    assert check(folder)[1] == found  # from the cache


@pytest.mark.parametrize(("other", "leaks"), [("0.25 0.5", [1, 3]), ("0.5 0.6", [2, 3]), ("2 9", [3])])
def test_only_spans_that_overlap_are_in_both_lists(folder, other, leaks):
    (folder / "train.list").write_text("long.mp4 0 0.5 1\nlong.mp4 0.5 2 3\nlong.mp4 2\n", encoding="utf-8")
    (folder / "val.list").write_text(f"long.mp4 {other} 0\n", encoding="utf-8")
    _, found = check(folder, "--against", str(folder / "val.list"))
    assert [line for line, problem, _ in found if problem == "leak"] == leaks


def test_pack_makes_a_pickle_a_span(folder):
    (folder / "train.list").write_text("long.mp4 0 0.5 1\nlong.mp4 0.5 2 3\nlong.mp4 2\n", encoding="utf-8")
    assert main(["pack", "--list", str(folder / "train.list"), "--out", str(folder / "out")]) == 0
    names = (folder / "out" / "train.pkl.list").read_text(encoding="utf-8").splitlines()
    packed = [load_clip_pickle((folder / "out" / name).read_bytes()) for name in names]
    assert [(label, len(jpegs)) for _, label, jpegs in packed] == [(1, 6), (3, 18), (2, 24)]
    assert packed[0][2] + packed[1][2] == packed[2][2]


def test_show_draws_the_span_alone(folder):
    words = ["show", str(folder / "long.mp4"), "--config", str(folder / "tiny.yaml"), "--out", str(folder / "s.png")]
    assert main([*words, "--span", "0.5", "1"]) == 0
    part = (folder / "s.png").read_bytes()
    assert main(words) == 0
    assert part != (folder / "s.png").read_bytes()
    with pytest.raises(UserError, match="span 3-1 s: expected 0 <= START < END"):
        main([*words, "--span", "3", "1"])
