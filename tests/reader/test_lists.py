import os

import pytest

from stnet.reader.bad_clips import BadClips
from stnet.reader.lists import list_videos, read_list
from stnet.reader.sources import sources
from stnet.tools.dataset import videos
from stnet.utils.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.mp4", "my clip.mp4", "clip 7", "舞蹈 3.mp4"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def pairs(clips):
    return [clip[:2] for clip in clips]


def listed(folder, text, **options):
    (folder / "x.list").write_text(text, encoding="utf-8")
    return [tuple(clip) for clip in read_list(str(folder / "x.list"), **options)]


def test_spaces_blank_lines_comments_tabs_and_a_byte_order_mark(folder):
    text = "\ufeff# clips\n\na.mp4 0\n  my clip.mp4   12 \n舞蹈 3.mp4 1\na.mp4\t2\r\n"
    assert pairs(listed(folder, text)) == [("a.mp4", 0), ("my clip.mp4", 12), ("舞蹈 3.mp4", 1), ("a.mp4", 2)]


@pytest.mark.parametrize(
    ("line", "path", "label"),
    [
        ("my clip (0).mp4\t0", "my clip (0).mp4", 0),
        ("my clip.mp4 \t 3", "my clip.mp4", 3),
        ("tab\tin name.mp4 2", "tab\tin name.mp4", 2),
    ],
)
def test_the_last_blank_or_tab_stands_before_the_label(folder, line, path, label):
    (folder / path).write_bytes(b"x")
    assert pairs(listed(folder, line)) == pairs(listed(folder, line, labelled=False)) == [(path, label)]


def test_names_that_are_not_utf_8_are_read_and_kept_in_quarantine(tmp_path):
    name = os.fsdecode(b"\xff\xe9.mp4")
    (tmp_path / name).write_bytes(b"x")
    (tmp_path / "x.list").write_bytes(b"\xff\xe9.mp4 1\n")
    clips = read_list(str(tmp_path / "x.list"))
    assert pairs(clips) == [(name, 1)]
    (tmp_path / "quarantine").write_bytes(b"\xef\xbb\xbf\xff\xe9.mp4\thang\n")  # with a byte order mark
    assert BadClips(clips, 1.0, str(tmp_path / "quarantine")).quarantined() == {0: "in quarantine: hang"}


def test_prediction_lists_need_no_label(folder):
    text = "a.mp4\nmy clip.mp4\nmy clip.mp4 3\nclip 7\nclip 7 2\n"
    clips = listed(folder, text, labelled=False)
    assert pairs(clips) == [("a.mp4", -1), ("my clip.mp4", -1), ("my clip.mp4", 3), ("clip 7", -1), ("clip 7", 2)]


def test_pickles_carry_their_label_themselves(folder):
    assert pairs(listed(folder, "my clip.mp4\na.mp4\n", format="pkl")) == [("my clip.mp4", -1), ("a.mp4", -1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("# nothing\n\n", "is empty"),
        ("a.mp4 0\na.mp4 dog\n", "line 2: label 'dog' is not a whole number"),
        ("a.mp4 1.5\n", "line 1: label '1.5' is not a whole number"),
        ("a.mp4\n", "line 1: expected 'PATH LABEL', found no label: 'a.mp4'"),
        ("a.mp4 4\n", r"line 1: label 4 is outside 0..3 \(MODEL.num_classes 4\)"),
        ("a.mp4 -1\n", "line 1: label -1 is outside 0..3"),
        ("b.mp4 0\nc.mp4 1\n", "none of the first 2 files exists .the first: b.mp4"),
    ],
)
def test_a_bad_list_is_refused_with_line_and_reason(folder, text, message):
    with pytest.raises(UserError, match=message):
        listed(folder, text, num_classes=4)


def test_a_missing_or_unreadable_list_is_refused(folder):
    with pytest.raises(UserError, match="list file not found"):
        read_list(str(folder / "none.list"))
    with pytest.raises(UserError, match="no list file given"):
        read_list("")
    (folder / "binary.list").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(UserError, match="cannot be read"):
        read_list(str(folder / "binary.list"))


def test_a_folder_gives_its_videos_sorted(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "b.AVI").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    names = [clip.path[len(str(folder)) + 1 :] for clip in list_videos(str(folder))]
    assert names == ["a.mp4", "my clip.mp4", "sub/b.AVI", "舞蹈 3.mp4"]


def tree_of_links(root):
    """Videos in plain, linked and hidden folders, with loops of links, links to nothing, and what is no video."""
    for name in ("a.mp4", "sub/b.AVI", "c.MTS", "d.m2ts", "e.gif", "._a.mp4", ".trash/f.mp4", "notes.txt", "z/g.mp4"):
        (root / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "videos" / name).write_bytes(b"x")
    (root / "store").mkdir()
    (root / "store" / "h.mkv").write_bytes(b"x")
    for name, target in {
        "linked": root / "store",
        "loop": root / "videos",
        "sub/up": root / "videos",
        "store back": root / "store",
        "b is z": root / "videos" / "z",
        "self": "self",
        "link to a.mp4": "a.mp4",
        "nowhere": root / "none",
    }.items():
        (root / "videos" / name).symlink_to(target)
    return root / "videos"


TREE = ["a.mp4", "c.MTS", "d.m2ts", "e.gif", "link to a.mp4", "linked/h.mkv", "sub/b.AVI", "z/g.mp4"]


def test_predict_and_data_sets_find_the_same_videos_and_loops_of_links_end(tmp_path, caplog):
    folder = tree_of_links(tmp_path)
    caplog.set_level("INFO", logger="stnet")
    for find in (lambda: [clip.path for clip in list_videos(str(folder))], lambda: videos.find_videos(str(folder))):
        caplog.clear()
        assert [os.path.relpath(path, folder) for path in find()] == TREE
        said = [record.getMessage() for record in caplog.records]
        assert f"{folder}: left out hidden files: 2: ._a.mp4, .trash" in said
        assert f"{folder}: left out files that are not named as videos are: 3: notes.txt, nowhere, self" in said
        left_out = [message.split(" is left out")[0] for message in said if "links to is there already" in message]
        assert left_out == [f"{folder}/{name}" for name in ("b is z", "loop", "store back", "sub/up")]


@pytest.mark.parametrize("pattern", ["{}/**/*", "{}/**", "**/*", "./**/*"])
def test_a_glob_with_two_stars_goes_the_same_way(tmp_path, monkeypatch, pattern):
    folder = tree_of_links(tmp_path)
    monkeypatch.chdir(folder)
    found = [source.path for source in sources(pattern.format(folder), "mp4", "")]
    assert [os.path.relpath(path, folder) for path in found] == TREE
    assert found[0] == ("a.mp4" if pattern == "**/*" else f"{pattern.format(folder).split('/**')[0]}/a.mp4")
    with pytest.raises(UserError, match="no file matches"):
        sources("**/up/**/none*.mp4", "mp4", "")


def test_a_missing_path_and_a_folder_without_videos_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        list_videos(str(tmp_path / "none.mp4"))
    with pytest.raises(UserError, match="the folder holds no video files"):
        list_videos(str(tmp_path))
