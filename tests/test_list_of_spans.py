"""Lists of spans from one end to the other: eval and predict give each part of a video its own row."""

import csv
import hashlib
import json
from types import SimpleNamespace

import pytest
from conftest import write_video
from entries import eval_entry, predict, run

from stnet.reader.formats import Clip
from stnet.reader.spans import Span
from stnet.training.resume import data_record

NAMES = [f"long 1 2.mp4 [{span} s]" for span in ("0-0.5", "0.5-1.5", "1.5-9", "60-61.5")]
BEHIND = "the span begins behind the last frame, which is shown at 1.917 s"


@pytest.fixture
def folder(clip_set, trained, tmp_path):
    """A folder with a video of 2 seconds, a list of three of its parts and one that lies behind its end."""
    write_video(tmp_path / "long 1 2.mp4", frames=24)
    spans = [("0", "0.5", 0), ("0.5", "1.5", 1), ("1.5", "9", 2), ("60", "61.5", 3)]
    lines = [f"long 1 2.mp4 {start} {end} {label}\n" for start, end, label in spans]
    (tmp_path / "spans.list").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def settings(clip_set, trained, folder):
    weights, out = trained / "STNET_final.pdparams", folder / "out"
    return ["--config", clip_set / "tiny.yaml", f"--weights={weights}", "--engine=paddle", f"--save_dir={out}"]


def test_eval_has_a_row_for_each_span(clip_set, trained, folder):
    lists = ["-o", f"TEST.filelist={folder / 'spans.list'}", "-o", "TEST.max_bad_ratio=0.5"]
    assert run(eval_entry, *settings(clip_set, trained, folder), *lists) == 0
    results = json.loads((folder / "out" / "eval_results.json").read_text())
    assert results["skipped"] == [{"path": NAMES[3], "reason": BEHIND}]
    with open(folder / "out" / "predictions.csv", encoding="utf-8", newline="") as file:
        *rows, unread = csv.DictReader(file)
    label_of = {row["input_path"]: row["label"] for row in rows}
    assert label_of == dict(zip(NAMES[:3], "012"))
    assert len({row["score_1"] for row in rows}) == 3
    assert (unread["input_path"], unread["error"]) == (NAMES[3], BEHIND)


@pytest.mark.parametrize("kept", [0, 2])
def test_predict_goes_on_at_the_span_where_it_was_stopped(clip_set, trained, folder, kept):
    table = folder / "r.jsonl"
    words = [*settings(clip_set, trained, folder), f"--filelist={folder / 'spans.list'}", f"--output={table}"]
    assert run(predict, *words) == 3
    whole = table.read_text()
    rows = [json.loads(line) for line in whole.splitlines()]
    assert [row["input_path"] for row in rows] == NAMES
    assert [row["label"] for row in rows] == [0, 1, 2, 3]
    assert len({tuple(row["scores"]) for row in rows[:3]}) == 3
    assert rows[3]["error"] == BEHIND
    table.write_text("".join(whole.splitlines(keepends=True)[:kept]) + '{"input_pa')
    assert run(predict, *words, "--resume") == 3
    assert table.read_text() == whole


def test_another_span_is_another_list_to_resume_and_one_without_spans_is_as_before():
    def digest(*clips):
        order = SimpleNamespace(batch_size=4)
        return data_record(SimpleNamespace(dataset=SimpleNamespace(clips=clips), order=order))["list"]

    whole, first, second = (Clip("a b.mp4", 2, span=span) for span in (None, Span(0, 1), Span(1, 2)))
    assert digest(whole, whole) == hashlib.sha256(b"a b.mp4\t2\n" * 2).hexdigest()
    assert len({digest(whole), digest(first), digest(second)}) == 3
