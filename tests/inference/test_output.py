"""Tables of predictions: written row by row, refused, gone on with, replaced."""

import csv
import json
import os
from pathlib import Path

import pytest

from stnet.inference.result import Result
from stnet.inference.table import ResultTable, facts_path
from stnet.utils.errors import UserError

INPUTS = [
    "a.mp4",
    'with, "quotes"\nand a line end.mp4',
    "ü\udcff.mp4",
    "c\rr.mp4",
    "line\u2028separator.mp4",
    "last.mp4",
]
FACTS = {"weights": "STNET_final.pdparams", "sha256": "ab", "config": {"MODEL": {"name": "STNET"}}}


def result(path):
    if path.startswith("a"):
        return Result(path, error="no frame can be decoded", label=1)
    return Result(path, [2, 0], [0.75, 0.25], ["dancing, slow", "跳舞"])


def output(path, inputs=INPUTS, facts=FACTS, topk=2, resume=False, overwrite=False):
    labelled = [(name, 1 if name.startswith("a") else None, str(path.parent / name)) for name in inputs]
    return ResultTable(str(path), labelled, facts, topk, resume, overwrite)


def write(path, rows, **options):
    table = output(path, **options)
    for name in rows:
        table.add(result(name))
    table.close()
    return path


@pytest.fixture(params=["results.jsonl", "results.csv"])
def path(request, tmp_path):
    return tmp_path / "new folder" / request.param


def test_rows_of_json(tmp_path):
    rows = [json.loads(line) for line in write(tmp_path / "r.jsonl", INPUTS).read_text().split("\n")[:-1]]
    assert [row["input_path"] for row in rows] == INPUTS
    assert rows[0] == {
        "input_path": "a.mp4", "class_ids": [], "scores": [], "label_names": [], "label": 1,
        "error": "no frame can be decoded",
    }  # fmt: skip
    assert rows[1]["label_names"] == ["dancing, slow", "跳舞"]
    assert rows[1]["scores"] == [0.75, 0.25]


def test_rows_of_csv(tmp_path):
    path = write(tmp_path / "r.csv", INPUTS)
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["input_path"] for row in rows] == INPUTS
    assert [row["error"] for row in rows] == ["no frame can be decoded", *[""] * 5]
    assert (rows[0]["label"], rows[0]["class_id_1"]) == ("1", "")
    assert (rows[5]["class_id_1"], rows[5]["label_name_2"], rows[4]["score_1"]) == ("2", "跳舞", "0.75")


def test_a_run_cut_at_any_byte_goes_on_to_the_same_file(path):
    whole = write(path, INPUTS).read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        table = output(path, resume=True)
        assert table.failed == (1 if table.done else 0)
        for name in INPUTS[table.done :]:
            table.add(result(name))
        table.close()
        assert path.read_bytes() == whole, size


def test_what_is_written_is_in_the_file_at_once(path):
    table = output(path)
    for number, name in enumerate(INPUTS, start=1):
        table.add(result(name))
        assert path.read_bytes().count(b"\n") >= number
    table.close()


def test_two_runs_do_not_write_one_table(path):
    table = output(path)
    with pytest.raises(UserError, match="another run is writing"):
        output(path, resume=True)
    table.close()
    output(path, resume=True).close()


def test_an_existing_file_is_refused_and_left_alone(path):
    before = write(path, INPUTS).read_bytes()
    with pytest.raises(UserError, match="results.* exists"):
        output(path)
    assert path.read_bytes() == before


def test_an_existing_file_can_be_replaced(path):
    write(path, INPUTS)
    write(path, INPUTS[1:2], inputs=INPUTS[1:2], overwrite=True)
    assert output(path, inputs=INPUTS[1:2], resume=True).done == 1


def test_resume_without_a_file_begins_one(path):
    assert output(path, resume=True).done == 0
    assert path.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"facts": {**FACTS, "sha256": "cd"}}, "made with other weights"),
        ({"facts": {**FACTS, "config": {}}, "topk": 1}, "made with other config, topk"),
        ({"inputs": ["b.mp4", *INPUTS[1:]]}, "has a row of 'a.mp4' with label 1, which is not among the videos given"),
        ({"inputs": INPUTS[:1]}, "has a row of 'with, .*mp4', which is not among the videos given"),
    ],
)
def test_a_file_of_another_run_is_not_gone_on_with(path, options, message):
    before = write(path, INPUTS[:3]).read_bytes()
    with pytest.raises(UserError, match=message):
        output(path, **options, resume=True)
    assert path.read_bytes() == before


def test_a_table_goes_on_with_the_videos_that_have_come_since(path):
    write(path, INPUTS[1:3], inputs=INPUTS[1:3])
    table = output(path, resume=True)
    assert (table.done, [INPUTS[number] for number in table.rest]) == (2, [INPUTS[0], *INPUTS[3:]])
    for number in table.rest:
        table.add(result(INPUTS[number]))
    table.close()
    table = output(path, resume=True)
    assert (table.done, table.rest, table.failed) == (6, [], 1)
    table.close()


def test_a_video_that_is_given_twice_has_two_rows(path):
    write(path, INPUTS[:1], inputs=INPUTS[:1])
    assert output(path, inputs=[INPUTS[0], INPUTS[0], INPUTS[0]], resume=True).rest == [1, 2]


def test_the_row_of_a_video_that_was_replaced_is_made_again(path):
    names = ["a.mp4", "line\nend.mp4", "last.mp4"]
    path.parent.mkdir()
    for name in names[:2]:
        (path.parent / name).write_bytes(b"content")
    whole = write(path, names, inputs=names).read_text()
    os.utime(path.parent / names[0], ns=(1, 1))  # as if it were another of the same size
    (path.parent / names[2]).write_bytes(b"which was not there")
    table = output(path, inputs=names, resume=True)
    assert (table.done, table.rest, table.failed) == (1, [0, 2], 0)
    for number in table.rest:
        table.add(result(names[number]))
    table.close()
    written = [line for line in path.read_text().splitlines(keepends=True) if line]
    assert sorted(written) == sorted(whole.splitlines(keepends=True))
    assert output(path, inputs=names, resume=True).rest == []


def test_a_frame_that_was_replaced_in_a_folder_of_frames_is_noticed(path):
    folder = path.parent / "frames"
    folder.mkdir(parents=True)
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"content")
    write(path, ["frames"], inputs=["frames"])
    assert output(path, inputs=["frames"], resume=True).rest == []
    (folder / "1.jpg").write_bytes(b"other content")
    assert output(path, inputs=["frames"], resume=True).rest == [0]


def test_two_videos_of_one_name_in_two_folders_are_told_apart(path, tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "v.mp4").write_bytes(b"content")
    inputs = [("v.mp4", None, str(tmp_path / folder / "v.mp4")) for folder in ("one", "two")]
    facts = {"weights": "w"}

    def opened():
        return ResultTable(str(path), inputs, facts, 1, resume=True, overwrite=False)

    table = opened()
    for _ in inputs:
        table.add(result("v.mp4"))
    table.close()
    assert opened().rest == []
    (tmp_path / "one" / "v.mp4").write_bytes(b"other content")
    assert opened().rest == [0, 1]


def test_a_kill_after_a_replaced_videos_row_has_gone_loses_nothing(path, monkeypatch):
    path.parent.mkdir()
    (path.parent / "last.mp4").write_bytes(b"content")
    write(path, INPUTS)
    (path.parent / "last.mp4").write_bytes(b"more content")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("stnet.inference.table.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        output(path, resume=True)
    table = output(path, resume=True)
    assert table.rest == [5]
    table.add(result(INPUTS[5]))
    table.close()
    assert output(path, resume=True).rest == []


def test_a_table_of_an_earlier_version_is_gone_on_with(path):
    write(path, INPUTS[:2])
    beside = Path(facts_path(str(path)))
    facts = json.loads(beside.read_text())
    del facts["stamps"]
    beside.write_text(json.dumps(facts))
    assert output(path, resume=True).rest == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "content",
    [b"[" * 100000 + b"\n", b"1\n", b"a,b\n", b"\xff\xfe\n", b'{"input_path": 1}x\n', b'{"input_path": []}\n'],
)
def test_a_strangers_file_is_not_gone_on_with(path, content):
    write(path, INPUTS)
    path.write_bytes(content)
    with pytest.raises(UserError, match="is not a table of predictions"):
        output(path, resume=True)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "stamps": 1}', "[" * 100000])
def test_a_damaged_description_is_said(path, content):
    write(path, INPUTS)
    with open(facts_path(str(path)), "w") as file:
        file.write(content)
    with pytest.raises(UserError, match="cannot be read|has schema 99"):
        output(path, resume=True)


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"expected a name that ends with .jsonl or .csv"):
        output(tmp_path / "results.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot write"):
        output(tmp_path / "results.csv")
