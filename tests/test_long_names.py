"""Videos and lists whose names are as long as a file system takes: 255 bytes."""

import os

import pytest
from conftest import write_video
from entries import failing, predict, run

from stnet.inference.features import check_path
from stnet.inference.result import Result
from stnet.inference.table import ResultTable
from stnet.timeline.render import check_target
from stnet.tools.dataset.__main__ import main as data
from stnet.utils.atomic import remove_leftovers, write_text
from stnet.utils.errors import UserError
from stnet.utils.files import LONGEST, short_name, stem_of, unique_stems

LONG = "视" * 83 + "xx.mp4"  # of 255 bytes


@pytest.fixture
def long_video(root):
    return write_video(root / LONG, frames=24)


def test_a_name_is_cut_between_characters_and_keeps_a_digest():
    assert (short_name("视频"), stem_of("a/b.c.mp4")) == ("视频", "b.c")
    assert short_name("a" * LONGEST) == "a" * LONGEST
    short = short_name("视" * 85)
    assert short.startswith("视" * 75 + "-")
    assert len(os.fsencode(short)) == 234
    assert short != short_name("视" * 84 + "频")
    assert len(os.fsencode(short_name(os.fsdecode(b"\xe9" * 250)))) == LONGEST
    stems = unique_stems([f"{folder}/{LONG}" for folder in "abc"])
    assert [stem.removeprefix(stems[0]) for stem in stems] == ["", "-2", "-3"]


def test_a_file_of_any_possible_name_is_written_and_what_a_kill_left_of_it_is_removed(root, monkeypatch):
    write_text(root / LONG, "text")
    assert [path.read_text() for path in root.iterdir()] == ["text"]
    with monkeypatch.context() as patched, pytest.raises(UserError):
        patched.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("a kill")))
        patched.setattr(os, "remove", lambda *_: None)
        write_text(root / LONG, "another")
    assert len(os.listdir(root)) == 2
    remove_leftovers(root, LONG)
    assert [path.read_text() for path in root.iterdir()] == ["text"]


def test_files_that_are_made_of_a_video_have_a_shorter_name(clip_set, trained, root, long_video):
    words = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "--engine=paddle"]
    assert run(predict, *words, long_video, "--save_dir", root / "why", "--explain", "-o", "MODEL.topk=1") == 0
    assert run(predict, *words, long_video, "--save_dir", root / "when", "--timeline", "--window=1") == 0
    stem = stem_of(LONG)
    assert {path.name.removeprefix(stem) for path in (root / "why").iterdir()} >= {".why.json", ".why.png"}
    endings = {".windows.jsonl", ".windows.csv", ".events.csv", ".vtt", ".srt", ".timeline.png"}
    assert {path.name.removeprefix(stem) for path in (root / "when").iterdir()} >= endings


def test_results_find_room_for_their_endings(root):
    result = Result(str(root / LONG), [1], [0.5], ["b"])
    assert result.save_to_json(root) == str(root / f"{stem_of(LONG)}.json")
    assert result.save_to_csv(root) == str(root / f"{stem_of(LONG)}.csv")


def test_lists_and_videos_of_long_names_are_checked_packed_and_unpacked(clip_set, root, long_video):
    listed = root / f"{'l' * 250}.list"
    listed.write_text(f"{LONG} 0\n", encoding="utf-8")
    words = ["--list", str(listed), "--workers", "1", "--out"]
    assert data(["check", *words, str(root / "checked"), "--config", str(clip_set / "tiny.yaml")]) == 0
    assert (root / "checked" / f"{stem_of(listed)}.clean.list").exists()
    assert data(["pack", *words, str(root / "packed")]) == 0
    words[1] = str(root / "packed" / f"{stem_of(listed)}.pkl.list")
    assert data(["unpack", *words, str(root / "images")]) == 0
    assert len(list((root / "images" / stem_of(LONG)).iterdir())) == 24


def test_a_name_that_is_too_long_is_refused_before_anything_is_computed(clip_set, root, capsys):
    name = "n" * 252
    for check in (
        lambda: check_path(str(root / f"{name}.npz"), may_exist=False),
        lambda: check_target("a.mp4", root / f"{name}.mp4"),
        lambda: ResultTable(str(root / f"{name[:248]}.jsonl"), [], {}, 1, False, False),
    ):
        with pytest.raises(UserError, match="File name too long"):
            check()
    assert list(root.iterdir()) == []
    failing("predict", "File name too long", capsys, clip_set, "--output", root / f"{name}.csv")
