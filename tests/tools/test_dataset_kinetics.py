"""Lists of Kinetics on generated trees. Files hold one byte unless a test probes them."""

import json
import shutil
from pathlib import Path

import pytest
from trees import call, lines, numbers, report, write

from stnet.reader.lists import read_list
from stnet.tools.dataset import kinetics
from stnet.tools.dataset.videos import plain
from stnet.utils.errors import UserError

PROJECT = Path(__file__).parents[2]
KINETICS = json.loads((PROJECT / "data/dataset/kinetics_labels.json").read_text())
VIDEO = PROJECT / "tests" / "videos" / "three_frames.mp4"
HEADER = "label,youtube_id,time_start,time_end,split"


@pytest.fixture
def csv_files(root):
    """Kinetics CSVs: 4 training clips and a repeated line, 2 validation clips, 2 test clips without labels."""
    train = [
        f"{HEADER},is_cc",
        "passing American football (in game),-a_B,1,11,train,0",
        "massaging person's head,x__y,12,22,train,0",
        '"archery",gone,0,10,train,1',
        "yarn spinning,empty,0,10,train,1",
        "yarn spinning,empty,0,10,train,1",
    ]
    val = [HEADER, "abseiling,v1,100,110,validate", "yarn spinning,v2,5,15,val"]
    test = ["youtube_id,time_start,time_end,split", "t1,3,13,test", "t2,4,14,test"]
    text = {"train": train, "val": val, "test": test}
    return [write(root / f"{name}.csv", "\ufeff" + "\n".join(text[name]) + "\n") for name in text]


def kinetics_flags(csv_files, videos, out):
    return [*(flag for path in csv_files for flag in ("--csv", path)), "--videos", videos, "--out", out]


LAYOUTS = {
    "class folders with spaces": (
        "passing American football (in game)/-a_B_000001_000011.mp4",
        "massaging person's head/x__y_000012_000022.mkv",
        "yarn spinning/empty_000000_000010.mp4",
        "abseiling/v1_000100_000110.mp4",
        "test/t1_000003_000013.mp4",
    ),
    "split and class folders with underscores": (
        "train_256/passing_american_football_-in_game-/-a_B_000001_000011.MP4",
        "train_256/massaging_persons_head/x__y_000012_000022.webm",
        "train_256/yarn spinning/empty_000000_000010.mp4",
        "val_256/Abseiling/v1_000100_000110.mp4",
        "test/t1_000003_000013.mp4",
    ),
    "flat": (
        "-a_B_000001_000011.mp4",
        "x__y_12_22.avi",
        "empty_000000_000010.mp4",
        "v1_000100_000110.mp4",
        "t1_000003_000013.mp4",
    ),
    "ids alone": ("-a_B.mp4", "舞 蹈/x__y.mp4", "empty.mp4", "v1.mp4", "test/t1.mp4"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kinetics_lists_hold_what_is_there_in_every_layout(root, csv_files, layout):
    videos, out = root / "videos", root / "out"
    for name in LAYOUTS[layout]:
        write(videos / name, "" if "empty" in name else "x")
    write(videos / "unknown_000001_000011.mp4")
    write(videos / "._v2_000005_000015.mp4")
    assert call(kinetics, *kinetics_flags(csv_files, videos, out)) == 0
    files = [str(videos / name) for name in LAYOUTS[layout]]
    assert lines(out / "train.list") == [f"{files[0]} 3", f"{files[1]} 2"]
    assert lines(out / "val.list") == [f"{files[3]} 0"]
    assert lines(out / "infer.list") == [files[4]]
    assert not (out / "test.list").exists()
    assert numbers(out) == {"train": (4, 2, 1, 1), "val": (2, 1, 1, 0), "test": (2, 1, 1, 0)}
    found = report(out)
    assert found["lists"] == {"train.list": 2, "val.list": 1, "infer.list": 1}
    assert (found["classes"], found["label_order"], found["repeated_rows"], found["other_videos"]) == (
        5,
        "sorted",
        1,
        1,
    )
    assert [clip["name"] for clip in found["missing"]] == ["gone_000000_000010", "v2_000005_000015", "t2_000004_000014"]
    assert found["unreadable"] == [{"part": "train", "path": files[2], "reason": "the file is empty (0 bytes)"}]
    assert [clip.label for clip in read_list(str(out / "train.list"), num_classes=5)] == [3, 2]
    assert [clip.path for clip in read_list(str(out / "infer.list"), labelled=False)] == [files[4]]


def test_classes_of_other_kinetics_are_numbered_by_their_sorted_names(root, csv_files):
    write(root / "videos" / "v1.mp4")
    call(kinetics, *kinetics_flags(csv_files, root / "videos", root / "out"))
    assert json.loads((root / "out" / "labels.json").read_text()) == [
        "abseiling",
        "archery",
        "massaging person's head",
        "passing American football (in game)",
        "yarn spinning",
    ]


@pytest.mark.parametrize(
    "spell", [str, lambda name: name.replace("_", " "), lambda name: name.replace("_", "-").upper()]
)
def test_every_class_of_kinetics_400_keeps_the_number_that_released_weights_have(root, spell):
    rows = [f'"{spell(name)}",id{i},0,10,train' for i, name in reversed(list(enumerate(KINETICS)))]
    csv_file = write(root / "train.csv", "\n".join([HEADER, *rows]))
    for i in (0, 209, 399):
        write(root / "videos" / f"id{i}_000000_000010.mp4")
    call(kinetics, *kinetics_flags([csv_file], root / "videos", root / "out"))
    assert [line.rsplit(" ", 1)[1] for line in lines(root / "out" / "train.list")] == ["399", "209", "0"]
    assert json.loads((root / "out" / "labels.json").read_text()) == KINETICS
    assert report(root / "out")["label_order"] == "kinetics_labels.json"


def test_a_subset_of_kinetics_400_keeps_its_numbers_unless_told_otherwise(root):
    csv_file = write(root / "t.csv", f"{HEADER}\narchery,a,0,10,train\nyoga,b,0,10,train\n")
    for name in "ab":
        write(root / "videos" / f"{name}.mp4")
    flags = kinetics_flags([csv_file], root / "videos", root / "out")
    call(kinetics, *flags)
    assert [clip.label for clip in read_list(str(root / "out" / "train.list"))] == [5, 398]
    call(kinetics, *flags, "--labels", "none")
    assert [clip.label for clip in read_list(str(root / "out" / "train.list"))] == [0, 1]


def test_labelled_test_clips_are_listed_for_eval_and_for_predict(root):
    labelled = write(root / "a.csv", f"{HEADER}\narchery,a,0,10,test\n")
    bare = write(root / "b.csv", "youtube_id,time_start,time_end,split\na,0,10,test\nb,0,10,test\n")
    for name in "ab":
        write(root / "videos" / f"{name}.mp4")
    call(kinetics, *kinetics_flags([bare, labelled], root / "videos", root / "out"))
    files = [str(root / "videos" / f"{name}.mp4") for name in "ab"]
    assert lines(root / "out" / "test.list") == [f"{files[0]} 5"]
    assert sorted(lines(root / "out" / "infer.list")) == files
    assert numbers(root / "out") == {"test": (2, 2, 0, 0)}


def test_an_id_of_two_clips_is_not_taken_for_either_but_in_its_class_folder(root):
    text = f"{HEADER}\narchery,a,0,10,train\nyoga,a,50,60,train\n"
    csv_file = write(root / "train.csv", text)
    flat, folders = root / "flat", root / "folders"
    write(flat / "a.mp4")
    write(flat / "other.mp4")
    for name in ("archery", "Yoga"):
        write(folders / name / "a.mp4")
    with pytest.raises(UserError, match="no usable clip: 2 missing, 0 unreadable; .*a_000000_000010, found.* a.mp4"):
        call(kinetics, *kinetics_flags([csv_file], flat, root / "out"))
    call(kinetics, *kinetics_flags([csv_file], folders, root / "out"))
    assert lines(root / "out" / "train.list") == [f"{folders}/archery/a.mp4 5", f"{folders}/Yoga/a.mp4 398"]


def test_of_several_copies_the_one_that_is_not_empty_counts(root):
    csv_file = write(root / "train.csv", f"{HEADER}\narchery,a,0,10,train\n")
    write(root / "videos" / "1" / "a.mp4", "")
    write(root / "videos" / "2" / "a.mp4")
    write(root / "videos" / "3" / "a.mp4", "")
    call(kinetics, *kinetics_flags([csv_file], root / "videos", root / "out"))
    assert lines(root / "out" / "train.list") == [f"{root}/videos/2/a.mp4 5"]


def test_probing_finds_what_is_no_video(root):
    names = ("good", "text", "cut", "empty")
    csv_file = write(root / "train.csv", "\n".join([HEADER, *(f"archery,{name},0,10,train" for name in names)]))
    for name in names:
        write(root / "videos" / f"{name}.mp4", "" if name == "empty" else "no video")
    shutil.copy(VIDEO, root / "videos" / "good.mp4")
    (root / "videos" / "cut.mp4").write_bytes(VIDEO.read_bytes()[:400])
    flags = kinetics_flags([csv_file], root / "videos", root / "out")
    call(kinetics, *flags)
    assert numbers(root / "out") == {"train": (4, 3, 0, 1)}
    call(kinetics, *flags, "--probe")
    assert numbers(root / "out") == {"train": (4, 1, 0, 3)}
    assert lines(root / "out" / "train.list") == [f"{root}/videos/good.mp4 5"]
    reasons = [clip["reason"] for clip in report(root / "out")["unreadable"]]
    no_video = "no frame can be decoded (Invalid data found when processing input)"
    assert reasons == [no_video, no_video, "the file is empty (0 bytes)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns .* found no youtube_id, time_start, time_end, split"),
        (f"{HEADER}\n", "expected one clip a line, found none"),
        (f"{HEADER}\na,b,0,10,train\na,c,0\n", "line 3: expected values for .*, found none for time_end, split"),
        (f"{HEADER}\na,b,zero,10,train\n", "line 2: time_start: expected seconds, found 'zero'"),
        (f"{HEADER}\na,b,0,10,holdout\n", "line 2: split: expected one of train, val, .* found 'holdout'"),
        (f"{HEADER}\n,b,0,10,train\n", "line 2: expected a label, found none"),
    ],
)
def test_a_bad_kinetics_csv_is_refused_with_its_line(root, text, message):
    csv_file = write(root / "bad.csv", text)
    write(root / "videos" / "b.mp4")
    with pytest.raises(UserError, match=f"bad.csv.*{message}"):
        call(kinetics, *kinetics_flags([csv_file], root / "videos", root / "out"))


def test_lists_of_other_class_numbers_are_not_left_beside_new_ones(root):
    for split, label in (("train", "zumba"), ("val", "boxing day")):
        write(root / f"{split}.csv", f"{HEADER}\n{label},{split},0,10,{split}\n")
        write(root / "videos" / f"{split}.mp4")
    call(kinetics, *kinetics_flags([root / "train.csv"], root / "videos", root / "out"))
    with pytest.raises(UserError, match="holds train.list made with other class numbers"):
        call(kinetics, *kinetics_flags([root / "val.csv"], root / "videos", root / "out"))
    call(kinetics, *kinetics_flags([root / "train.csv", root / "val.csv"], root / "videos", root / "out"))
    assert lines(root / "out" / "train.list") == [f"{root}/videos/train.mp4 1"]


def test_relative_paths_lead_from_the_list_to_the_video(root, monkeypatch):
    csv_file = write(root / "train.csv", f"{HEADER}\narchery,a,0,10,train\narchery,#b,0,10,train\n")
    for name in ("a b/a.mp4", "#b.mp4"):
        write(root / "out" / name)
    call(kinetics, *kinetics_flags([csv_file], root / "out", root / "out"), "--relative")
    assert lines(root / "out" / "train.list") == ["a b/a.mp4 5", "./#b.mp4 5"]
    assert [clip.path for clip in read_list(str(root / "out" / "train.list"))] == ["a b/a.mp4", "./#b.mp4"]
    monkeypatch.chdir(root)
    call(kinetics, *kinetics_flags([csv_file], "out", "lists"), "--relative")
    assert lines(root / "lists" / "train.list") == ["../out/a b/a.mp4 5", "../out/#b.mp4 5"]


def test_class_names_are_compared_without_case_blanks_and_punctuation():
    assert len({plain(name) for name in KINETICS}) == 400
    assert plain("Massaging person’s head") == plain("massaging_person's_head") == plain("massaging-persons-HEAD")
    assert plain("नृत्य") != plain("नृत") and plain("c++") != plain("c") and plain("?") == "?"
