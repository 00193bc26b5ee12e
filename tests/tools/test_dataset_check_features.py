"""tools.dataset check --features: near-duplicates, near leaks, doubtful labels and balance, from drawn features."""

import json
import shutil

import numpy as np
import pytest
from conftest import tiny_settings, write_config, write_video

from stnet.inference.features import Features, save
from stnet.tools.dataset.__main__ import main
from stnet.utils.errors import UserError


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A list of 26 clips of three classes, and features by which classes lie far apart."""
    folder = tmp_path_factory.mktemp("clips")
    rng, clips = np.random.RandomState(0), {}
    for i in range(26):
        write_video(folder / f"{i}.mp4", frames=4, seed=i)
        clips[f"{i}.mp4"] = 10 * np.eye(8)[i % 3] + rng.randn(8)
    (folder / "train.list").write_text("".join(f"{i}.mp4 {i % 3}\n" for i in range(26)))
    write_config(folder / "tiny.yaml", tiny_settings(folder))
    return folder, clips


@pytest.fixture
def tree(drawn, tmp_path):
    """A copy in which clip 7 is nearly clip 1, and clip 5, of class 2, has label 0."""
    folder, clips = tmp_path / "my clips", dict(drawn[1])
    shutil.copytree(drawn[0], folder)
    clips["7.mp4"] = clips["1.mp4"] + 0.01
    text = (folder / "train.list").read_text().replace("5.mp4 2\n", "5.mp4 0\n", 1)
    (folder / "train.list").write_text(text)
    return folder, clips


def write_features(path, clips, digest="abc"):
    rows = [Features(name, np.zeros((1, 1)), np.float32(clip)) for name, clip in clips.items()]
    save(str(path), rows, len(rows), lambda: {"weights_sha256": digest, "meta": json.dumps({"schema": 1})})
    return path


def check(folder, *flags):
    words = ["--list", folder / "train.list", "--config", folder / "tiny.yaml", *flags]
    code = main(["check", *map(str, words)])
    return code, json.loads((folder / "report.json").read_text(encoding="utf-8"))


def found(report, kind):
    return [(f["line"], f["reason"]) for f in report["findings"] if f["problem"] == kind]


def test_planted_copies_leaks_and_wrong_labels_are_noted_and_stay(tree, tmp_path, capsys):
    folder, clips = tree
    features = write_features(tmp_path / "train.npz", clips)
    valid = write_features(tmp_path / "valid.npz", {"held out.mp4": clips["20.mp4"] * 2, "b.mp4": -clips["3.mp4"]})
    code, report = check(folder, "--features", features, "--features_against", valid)
    assert (code, report["bad"], report["fine"]) == (0, 0, 26)
    assert report["notes"]["near_duplicate"] == report["notes"]["near_leak"] == report["notes"]["suspect_label"] == 1
    ((line, reason),) = found(report, "near_duplicate")
    assert (line, reason[:13], reason[-17:]) == (8, "similarity 1.", " to line 2: 1.mp4")
    assert found(report, "near_leak") == [(21, f"similarity 1.0000 to held out.mp4 of {valid}")]
    ((line, reason),) = found(report, "suspect_label")
    assert (line, reason.split("%")[1]) == (6, " of its nearest neighbours have label 2")
    assert [finding["line"] for finding in report["findings"]] == sorted(f["line"] for f in report["findings"])
    about = report["features"]
    assert (about["file"], about["weights_sha256"], about["lacking"]) == (str(features), "abc", [])
    assert about["balance"] == {"counts": [10, 9, 7, 0], "ratio": pytest.approx(10 / 7), "small": [3]}
    said = capsys.readouterr().out
    assert "near_duplicate         1  features nearly those of a clip further up" in said
    assert "clips of a class: 7 to 10, a ratio of 1.4" in said
    assert "classes of fewer than 5 clips: 1: 3" in said
    assert len((folder / "train.clean.list").read_text().splitlines()) == 26


def test_a_copy_with_another_label_says_so_and_a_threshold_can_be_given(tree, tmp_path):
    folder, clips = tree
    text = (folder / "train.list").read_text()
    (folder / "train.list").write_text(text.replace("7.mp4 1\n", "7.mp4 2\n", 1))
    features = write_features(tmp_path / "train.npz", clips)
    assert found(check(folder, "--features", features)[1], "near_duplicate")[0][1].endswith(
        "to line 2: 1.mp4, which has label 1, not 2"
    )
    _, report = check(folder, "--features", features, "--similarity=0.01")
    assert report["features"]["similarity"] == 0.01
    assert report["notes"]["near_duplicate"] > 5
    assert check(folder, "--features", features, "--similarity=1")[1]["notes"]["near_duplicate"] == 0


def test_exact_copies_are_named_once_and_bad_clips_not_again(tree, tmp_path):
    folder, clips = tree
    shutil.copy(folder / "0.mp4", folder / "copy.mp4")
    (folder / "9.mp4").write_bytes(b"")
    with open(folder / "train.list", "a") as file:
        file.write("copy.mp4 0\n")
    shutil.copy(folder / "2.mp4", folder / "held out.mp4")
    (folder / "val.list").write_text("held out.mp4 2\n")
    clips = {**clips, "copy.mp4": clips["0.mp4"], "9.mp4": clips["1.mp4"]}
    features = write_features(tmp_path / "train.npz", clips)
    valid = write_features(tmp_path / "valid.npz", {"held out.mp4": clips["2.mp4"]})
    flags = ["--features", features, "--features_against", valid, "--against", folder / "val.list"]
    code, report = check(folder, *flags)
    assert (code, report["problems"]["duplicate"], report["problems"]["empty"]) == (1, 1, 1)
    assert (report["notes"]["leak"], report["notes"]["near_leak"]) == (1, 0)
    assert [line for line, _ in found(report, "near_duplicate")] == [8]


def test_clips_that_only_one_of_list_and_features_has_are_counted_in_one_line(tree, tmp_path, capsys):
    folder, clips = tree
    others = {f"other {i}.mp4": np.ones(8) for i in range(3)}
    features = write_features(tmp_path / "f.npz", {**{n: c for n, c in clips.items() if n[0] != "2"}, **others})
    code, report = check(folder, "--features", features)
    assert code == 0
    assert report["features"]["lacking"] == ["2.mp4", *(f"{i}.mp4" for i in range(20, 26))]
    line = f"{features}: 7 clips of the list are not in it, the first: 2.mp4; 3 of its clips are not in the list"
    assert line in capsys.readouterr().out.splitlines()


def test_paths_may_be_written_another_way(tree, tmp_path):
    folder, clips = tree
    (tmp_path / "link").symlink_to(folder)
    features = write_features(tmp_path / "f.npz", {f"{tmp_path}/link/{name}": clip for name, clip in clips.items()})
    _, report = check(folder, "--features", features)
    assert (report["features"]["lacking"], report["features"]["not_in_list"]) == ([], 0)
    assert report["notes"]["near_duplicate"] == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--features_against=v.npz"], "--features_against is without effect unless --features is given"),
        (["--similarity=0.9"], "--similarity is without effect unless --features is given"),
        (["--features=f.npz", "--similarity=2"], "--similarity: expected a number above 0, at most 1, found 2"),
        (["--features=none.npz"], "features file not found: none.npz"),
        (["--features=other.npz"], "other.npz holds none of the list's clips; its first is x.mp4"),
        (["--features=f.npz", "--features_against=other.npz"], "f.npz and other.npz are of different weights"),
    ],
)
def test_wrong_features_are_one_line(flags, message, tree, monkeypatch):
    folder, clips = tree
    monkeypatch.chdir(folder)
    write_features(folder / "f.npz", clips)
    write_features(folder / "other.npz", {"x.mp4": np.ones(8)}, digest="def")
    with pytest.raises(UserError) as error:
        check(folder, *flags)
    assert message in str(error.value)


def test_without_features_the_report_is_as_before(drawn, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(drawn[0], folder)
    _, report = check(folder)
    assert "features" not in report
    assert not {"near_duplicate", "near_leak", "suspect_label"} & report["notes"].keys()
