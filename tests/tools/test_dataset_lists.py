"""Lists of UCF101, HMDB51 and one's own clips on generated trees. Files hold one byte: nothing decodes them."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from trees import call, lines, numbers, report, write

from stnet.config import load_config
from stnet.models import model_section
from stnet.reader.lists import read_list
from stnet.tools.dataset import folder, hmdb51, ucf101
from stnet.utils.errors import UserError

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture
def ucf_splits(root):
    """Split files of three classes, split 2; 4 training and 3 test clips."""
    splits = root / "ucfTrainTestlist"
    write(splits / "classInd.txt", "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n3 YoYo\r\n")
    train = "ApplyEyeMakeup/v_A_g08_c01.avi 1\nApplyEyeMakeup/v_A_g08_c02.avi 1\n"
    train += "HandstandPushups/v_H_g08_c01.avi 2\nYoYo/v_Y_g08_c01.avi 3\n"
    write(splits / "trainlist02.txt", train)
    write(splits / "testlist02.txt", "ApplyEyeMakeup/v_A_g01_c01.avi\nYoYo/v_Y_g01_c01.avi\nYoYo/v_Y_g01_c02.avi\n")
    return splits


@pytest.mark.parametrize("names", ["{0}/{1}.avi", "{1}.mp4", "UCF 101/{0}/{1}.webm"])
def test_ucf101_lists_follow_the_official_split(root, ucf_splits, names):
    def place(label, stem, text="x"):
        return write(root / "videos" / names.format(label, stem), text)

    first, push = place("ApplyEyeMakeup", "v_A_g08_c01"), place("HandStandPushups", "v_H_g08_c01")
    held_out = place("YoYo", "v_Y_g01_c01")
    place("ApplyEyeMakeup", "v_A_g08_c02", "")
    flags = ["--videos", root / "videos", "--splits", root, "--split", 2, "--out", root / "out"]
    assert call(ucf101, *flags) == 0
    out = root / "out"
    assert lines(out / "train.list") == [f"{first} 0", f"{push} 1"]
    assert lines(out / "val.list") == lines(out / "test.list") == [f"{held_out} 2"]
    assert lines(out / "infer.list") == [str(held_out)]
    assert numbers(out) == {"train": (4, 2, 1, 1), "test": (3, 1, 2, 0)}
    assert json.loads((out / "labels.json").read_text()) == ["ApplyEyeMakeup", "HandstandPushups", "YoYo"]
    assert report(out)["missing"][0] == {"part": "train", "name": "YoYo/v_Y_g08_c01.avi"}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("classInd.txt", "1 A\n3 B\n", "classInd.txt, line 2: expected '2 CLASS', found '3 B'"),
        ("trainlist02.txt", "YoYo/v.avi 3\n\nYoYo/w.avi 2\n", "line 3: expected 3, the class's number .*, found 2"),
        ("testlist02.txt", "Juggling/v.avi\n", "line 1: expected 'CLASS/VIDEO' with a class of classInd.txt"),
    ],
)
def test_bad_ucf101_split_files_are_refused_with_their_line(root, ucf_splits, file, text, message):
    write(ucf_splits / file, text)
    write(root / "videos" / "v.avi")
    with pytest.raises(UserError, match=message):
        call(ucf101, "--videos", root / "videos", "--splits", ucf_splits, "--split", 2, "--out", root / "out")
    with pytest.raises(UserError, match="expected the official split files, found no trainlist03.txt"):
        write(ucf_splits / "classInd.txt", "1 A\n")
        call(ucf101, "--videos", root / "videos", "--splits", ucf_splits, "--split", 3, "--out", root / "out")


def test_hmdb51_lists_follow_the_flags_of_the_official_split(root):
    splits = root / "splits [1]"
    write(splits / "brush_hair_test_split1.txt", "#20 (HQ)_b_1.avi 1 \nsame.avi 2 \nunused.avi 0 \ngone.avi 1 \n")
    write(splits / "wave_test_split1.txt", "same.avi 1 \nempty;&!.avi 2 \n二.avi 2 \n")
    write(splits / "wave_test_split2.txt", "same.avi 2 \n")
    for name in ("brush_hair/#20 (HQ)_b_1.avi", "brush hair/unused.avi", "wave/same.avi", "wave/二.mp4"):
        write(root / "videos" / name)
    write(root / "videos" / "wave" / "empty;&!.avi", "")
    out = root / "out"
    call(hmdb51, "--videos", root / "videos", "--splits", splits, "--split", 1, "--out", out, "--relative")
    assert lines(out / "train.list") == ["../videos/brush_hair/#20 (HQ)_b_1.avi 0", "../videos/wave/same.avi 1"]
    assert lines(out / "val.list") == lines(out / "test.list") == ["../videos/wave/二.mp4 1"]
    assert lines(out / "infer.list") == ["../videos/wave/二.mp4"]
    assert numbers(out) == {"train": (3, 2, 1, 0), "test": (3, 1, 1, 1)}
    assert json.loads((out / "labels.json").read_text()) == ["brush_hair", "wave"]
    write(splits / "wave_test_split1.txt", "same.avi 1\nsame.avi 3\n")
    with pytest.raises(UserError, match="wave_test_split1.txt, line 2: expected 'VIDEO FLAG' .* found 'same.avi 3'"):
        call(hmdb51, "--videos", root / "videos", "--splits", splits, "--split", 1, "--out", out)


@pytest.fixture
def class_folders(root):
    """Ten clips of "big cat", two of "狗" (one level deeper), one of "owl" and an empty one."""
    videos = root / "videos"
    for i in range(10):
        write(videos / "big cat" / f"clip {i}.mp4")
    for name in ("狗/a/1.mp4", "狗/b/1.mkv", "owl/1.mp4", "loose.mp4", "owl/notes.txt"):
        write(videos / name)
    write(videos / "owl" / "2.mp4", "")
    return videos


def test_folders_are_divided_class_by_class(root, class_folders):
    out = root / "out"
    assert call(folder, "--videos", class_folders, "--out", out) == 0
    train, val = (read_list(str(out / name), num_classes=3) for name in ("train.list", "val.list"))
    count = [[sum(clip.label == label for clip in clips) for label in range(3)] for clips in (train, val)]
    assert count == [[8, 1, 1], [2, 0, 1]]
    assert not {clip.path for clip in train} & {clip.path for clip in val}
    assert lines(out / "test.list") == lines(out / "val.list")
    assert lines(out / "infer.list") == [clip.path for clip in val]
    assert json.loads((out / "labels.json").read_text()) == ["big cat", "owl", "狗"]
    assert numbers(out) == {"all": (14, 13, 0, 1)}


def test_the_division_depends_on_the_seed_alone(root, class_folders):
    moved = shutil.copytree(class_folders, root / "elsewhere")

    def held_out(videos, seed):
        call(folder, "--videos", videos, "--out", root / "out", "--seed", seed, "--ratio", 0.5)
        return [os.path.relpath(line, videos) for line in lines(root / "out" / "infer.list")]

    assert held_out(class_folders, 3) == held_out(moved, 3)
    assert held_out(class_folders, 3) != held_out(class_folders, 4)
    assert len(held_out(class_folders, 4)) == 5 + 1


def test_a_csv_of_paths_and_labels_is_divided_likewise(root):
    rows = [f'"clips, mine/视 {i}.mp4",{label}' for i, label in enumerate(("10", "9", "10", "9", "10"))]
    csv_file = write(root / "mine.csv", "\n".join(["path,label", *rows, rows[0], f"{root}/absolute.avi,9"]))
    for i in range(4):
        write(root / "clips, mine" / f"视 {i}.mp4", "x" if i else "")
    write(root / "absolute.avi")
    out = root / "out"
    call(folder, "--csv", csv_file, "--out", out, "--ratio", 0.5, "--relative")
    assert numbers(out) == {"all": (6, 4, 1, 1)}
    assert json.loads((out / "labels.json").read_text()) == ["9", "10"]
    both = sorted(lines(out / "train.list") + lines(out / "val.list"))
    assert both == [
        "../absolute.avi 0",
        "../clips, mine/视 1.mp4 0",
        "../clips, mine/视 2.mp4 1",
        "../clips, mine/视 3.mp4 0",
    ]
    assert (len(lines(out / "train.list")), len(lines(out / "val.list"))) == (3, 1)
    assert report(out)["missing"] == [{"part": "all", "name": "clips, mine/视 4.mp4"}]


def ucf101_folders(root):
    """25 groups of 2 to 5 clips in each of three classes, named as in UCF101."""
    videos = root / "videos"
    for label in "ABC":
        for group in range(1, 26):
            for clip in range(1, 3 + group % 4):
                write(videos / label / f"v_{label}_g{group:02}_c{clip:02}.avi")
    return videos


def recordings(path):
    """(class, group) of each clip in a list of ucf101_folders."""
    return {(line.split("/")[-2], line.split("_g")[1][:2]) for line in lines(path)}


def test_clips_of_one_recording_stay_on_one_side_if_asked_and_are_named_if_not(root, caplog):
    videos, out = ucf101_folders(root), root / "out"
    call(folder, "--videos", videos, "--out", out)
    assert len(recordings(out / "train.list") & recordings(out / "val.list")) > 20
    assert "held-out clips seem to be cut from recordings that are trained on" in caplog.text
    assert r"--group_by='_(g\d+)_c\d+'" in caplog.text
    caplog.clear()
    call(folder, "--videos", videos, "--out", out, "--group_by", r"_(g\d+)_c\d+")
    assert recordings(out / "train.list") & recordings(out / "val.list") == set()
    train, val = lines(out / "train.list"), lines(out / "val.list")
    assert (len(train) + len(val), report(out)["groups"], caplog.text) == (261, 25, "")
    for label in range(3):
        count = sum(line.endswith(f" {label}") for line in val)
        assert 0.15 <= count / 87 <= 0.25


@pytest.mark.parametrize(
    ("names", "group_by"),
    [
        (["{}/monday/{}.mp4", "{}/tuesday/{}.mp4"], "parent"),
        (
            ["{}/AAAAAAAAAAA_00000{}_000020.mp4", "{}/BBBBBBBBBBB_00000{}_000020.mp4"],
            r"'([\w-]{{11}})_\d{{6}}_\d{{6}}'",
        ),
        (["{}/walk by the sea {}.mp4", "{}/market{}.mp4"], r"'([^/]*[^/\d])\d+\.\w+$'"),
    ],
)
def test_names_that_suggest_recordings_are_noticed(root, caplog, names, group_by):
    for label in ("cat", "dog"):
        for number in range(3):
            for name in names:
                write(root / "videos" / name.format(label, number))
    call(folder, "--videos", root / "videos", "--out", root / "out", "--ratio", 0.5)
    assert f"--group_by={group_by.format()} keeps each recording on one side" in caplog.text
    caplog.clear()
    group_by = group_by.format().strip("'")
    call(folder, "--videos", root / "videos", "--out", root / "out", "--ratio", 0.5, "--group_by", group_by)
    assert [len(lines(root / "out" / name)) for name in ("train.list", "val.list")] == [6, 6]
    assert caplog.text == ""


def test_two_ways_of_naming_recordings_are_both_noticed(root, caplog):
    for label in ("cat", "dog"):
        for number in range(3):
            for name in ("{}/monday/{}.mp4", "{}/tuesday/{}.mp4", "{}/v_g01_c{}.avi", "{}/v_g02_c{}.avi"):
                write(root / "videos" / name.format(label, number))
    call(folder, "--videos", root / "videos", "--out", root / "out", "--ratio", 0.5)
    assert "--group_by=parent " in caplog.text and r"--group_by='_(g\d+)_c\d+' " in caplog.text


def test_numbered_clips_are_not_taken_for_one_recording(root, class_folders, caplog):
    call(folder, "--videos", class_folders, "--out", root / "out")
    assert "--group_by" not in caplog.text


def test_a_class_keeps_a_group_for_training_and_odd_groups_are_said(root, caplog):
    for name in ("cat/a/1.mp4", "cat/a/2.mp4", "cat/b/1.mp4", "dog/a/1.mp4", "dog/a/2.mp4", "owl/1.mp4"):
        write(root / "videos" / name)
    flags = ["--videos", root / "videos", "--out", root / "out", "--ratio", 0.1, "--group_by"]
    call(folder, *flags, "parent")
    assert lines(root / "out" / "val.list") == [f"{root}/videos/cat/b/1.mp4 0"]  # "a" is all that dog has
    assert "1 clips have no group and count alone, for example owl/1.mp4" in caplog.text
    assert "1 classes of several clips have none held out" in caplog.text
    for group_by, message in (
        ("(", "expected parent or a regular expression"),
        ("_g[0-9]", "found no clip whose name it matches; the first is cat/a/1.mp4"),
        ("mp4", "no group can be held out"),
    ):
        with pytest.raises(UserError, match=message):
            call(folder, *flags, group_by)


@pytest.mark.parametrize("header", ["path,label", "file,label", "\ufeffFilename, Class", "video.path,y"])
def test_a_header_of_any_names_is_no_clip(root, caplog, header):
    rows = [f"{number}.mp4,{number % 12}" for number in range(24)]
    csv_file = write(root / "mine.csv", "\n".join([header, *rows]))
    for number in range(24):
        write(root / f"{number}.mp4")
    call(folder, "--csv", csv_file, "--out", root / "out", "--ratio", 0.5)
    assert json.loads((root / "out" / "labels.json").read_text()) == [str(number) for number in range(12)]
    assert f"{root}/2.mp4 2" in lines(root / "out" / "train.list") + lines(root / "out" / "val.list")
    assert numbers(root / "out") == {"all": (24, 24, 0, 0)}
    assert ("is taken for a header" in caplog.text) == (header != "path,label")


@pytest.mark.parametrize("text", ["{h}\n{a}\n{h}\n{b}\n", "sep=,\n{h}\n{a}\n{b}\n"])
def test_headers_of_tables_put_together_and_a_separator_line_are_no_clips(root, text):
    for name in ("a.mp4", "b.mp4"):
        write(root / name)
    csv_file = write(root / "mine.csv", text.format(h="path,label", a="a.mp4,jump", b="b.mp4,walk"))
    call(folder, "--csv", csv_file, "--out", root / "out")
    assert json.loads((root / "out" / "labels.json").read_text()) == ["jump", "walk"]
    assert numbers(root / "out") == {"all": (2, 2, 0, 0)}


def test_whole_numbers_as_spreadsheets_write_them_keep_their_values(root, caplog):
    for form in ("{}.0", "{}.", "+{}"):
        rows = [f"{number}.mp4,{form.format(number)}" for number in range(12)]
        for number in range(12):
            write(root / f"{number}.mp4")
        call(folder, "--csv", write(root / "mine.csv", "\n".join(rows)), "--out", root / "out")
        assert f"{root}/10.mp4 10" in lines(root / "out" / "train.list")
    assert caplog.text == ""


def test_a_first_clip_that_is_missing_is_no_header(root):
    for text in ("gone.mp4,walk\na.mp4,run\n", "gone,run\na.mp4,run\n", "gone,1\na.mp4,0\n"):
        write(root / "a.mp4")
        call(folder, "--csv", write(root / "mine.csv", text), "--out", root / "out")
        assert numbers(root / "out") == {"all": (2, 1, 1, 0)}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("1", "2", "10"), "3 of the 3 labels .* label 1 the number 0: they are not 0, 1, 2"),
        (("0", "1", "10", "2", "cat"), "2 of the 4 labels .* label 10 the number 2: 'cat' is no whole number"),
        (("-1", "0", "1"), "3 of the 3 labels .* label -1 the number 0: they are not 0, 1, 2"),
        (("1.0", "2.0", "10.0"), "3 of the 3 labels .* label 1.0 the number 0: they are not 0, 1, 2"),
        (("0", "1", "2"), ""),
        (("cat", "dog"), ""),
    ],
)
def test_whole_numbers_that_become_other_numbers_are_said(root, caplog, labels, message):
    rows = [f"{label}.mp4,{label}" for label in labels]
    for label in labels:
        write(root / f"{label}.mp4")
    call(folder, "--csv", write(root / "mine.csv", "\n".join(rows)), "--out", root / "out")
    assert re.search(message, caplog.text)
    assert bool(caplog.text) == bool(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n", "expected lines PATH,LABEL, found none"),
        ("a.mp4,0\nb.mp4\n", "line 2: expected PATH,LABEL, found 'b.mp4'"),
        ("a.mp4,0\n\na.mp4,1\n", "line 3: a.mp4 has the label '1' here, '0' before"),
        ("a.mp4,0\n", "no usable clip: 1 missing, 0 unreadable; expected for example a.mp4"),
    ],
)
def test_a_bad_csv_of_paths_is_refused_with_its_line(root, text, message):
    csv_file = write(root / "bad.csv", text)
    with pytest.raises(UserError, match=message):
        call(folder, "--csv", csv_file, "--out", root / "out")


def test_a_csv_in_another_encoding_is_refused_unless_it_is_a_path_alone(root):
    write(root / "a.mp4")
    csv_file = root / "mine.csv"
    for data, message in (
        ("a.mp4,跑步\n".encode("gbk"), r"mine.csv, line 1: the label is not in UTF-8: \\xc5"),
        ("a.mp4,run\n".encode("utf-16"), "cannot be read: it is not text in UTF-8"),
    ):
        csv_file.write_bytes(data)
        with pytest.raises(UserError, match=message):
            call(folder, "--csv", csv_file, "--out", root / "out")
    csv_file.write_bytes(b"a.mp4,run\n\xff.mp4,run\n")
    call(folder, "--csv", csv_file, "--out", root / "out")
    assert report(root / "out")["missing"] == [{"part": "all", "name": "\\xff.mp4"}]


def test_a_folder_without_videos_or_classes_is_refused(root):
    with pytest.raises(UserError, match="none: no such folder"):
        call(folder, "--videos", root / "none", "--out", root / "out")
    write(root / "videos" / "notes.txt")
    with pytest.raises(UserError, match="expected video files .*, found none"):
        call(folder, "--videos", root / "videos", "--out", root / "out")
    write(root / "videos" / "a.mp4")
    with pytest.raises(UserError, match="expected one sub-folder a class"):
        call(folder, "--videos", root / "videos", "--out", root / "out")


def test_links_are_followed_and_names_that_no_list_can_hold_are_reported(root):
    videos = root / "videos"
    write(root / "store" / "1.mp4")
    write(videos / "owl" / "two\nlines.mp4")
    (videos / "cat").symlink_to(root / "store")
    (videos / "cat" / "back").symlink_to(videos)
    (videos / "owl" / "broken.mp4").symlink_to(root / "nowhere.mp4")
    Path(os.fsdecode(os.fsencode(videos / "owl") + b"/\xff.mp4")).write_bytes(b"x")
    call(folder, "--videos", videos, "--out", root / "out")
    assert lines(root / "out" / "train.list") == [f"{videos}/cat/1.mp4 0"]
    assert lines(root / "out" / "val.list") == []
    reasons = sorted(clip["reason"] for clip in report(root / "out")["unreadable"])
    assert reasons == [
        "a broken link, or no file",
        "a line break in its path, which a list cannot hold",
        "its path is not UTF-8",
    ]


def test_the_ucf101_config_reads_what_the_ucf101_command_writes():
    config = load_config(CONFIGS / "stnet_ucf101.yaml", model_section)
    assert (config.MODEL.num_classes, config.TRAIN.total_videos, config.TRAIN.learning_rate) == (101, 0, 0.001)
    lists = [config.section(mode).filelist for mode in ("train", "valid", "test", "infer")]
    assert lists == [f"./data/dataset/ucf101/{name}.list" for name in ("train", "val", "test", "infer")]
    assert config.MODEL.labels == "./data/dataset/ucf101/labels.json"


def test_a_file_that_a_csv_names_in_two_ways_is_one_clip(root):
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write(root / name)
    (root / "clips.csv").write_text("a.mp4,x\n./a.mp4,x\nb.mp4,x\nc.mp4,y\n", encoding="utf-8")
    call(folder, "--csv", root / "clips.csv", "--out", root / "out", "--ratio", 0.5)
    assert len(lines(root / "out" / "train.list")) + len(lines(root / "out" / "val.list")) == 3
    (root / "clips.csv").write_text("a.mp4,x\n./a.mp4,y\n", encoding="utf-8")
    with pytest.raises(UserError, match="./a.mp4 has the label 'y', and is the file a.mp4 of 'x'"):
        call(folder, "--csv", root / "clips.csv", "--out", root / "other")
