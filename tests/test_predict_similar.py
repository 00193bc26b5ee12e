"""predict --similar_to and Predictor.similar: search by the features of videos, and in a features file."""

import json
import os

import numpy as np
import pytest
from entries import failing, inference_model, predict, run

from stnet.inference.features import Features
from stnet.inference.predictor import Predictor
from stnet.inference.similar import Similar, ranked
from stnet.reader.feature_file import FeatureFile
from stnet.utils.errors import UserError


def words(trained, tmp_path, *more):
    weights = trained / "STNET_final.pdparams"
    return ["--weights", weights, "--save_dir", tmp_path, "--engine=paddle", *more]


def search(trained, tmp_path, *more):
    code = run(predict, *words(trained, tmp_path), *more)
    return code, json.loads((tmp_path / "similar.json").read_text(encoding="utf-8"))


def cosines(predictor, query, others):
    first, *clips = [row.clip / np.linalg.norm(row.clip) for row in predictor.features([query, *others])]
    return {str(path): float(first @ clip) for path, clip in zip(others, clips)}


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(trained / "STNET_final.pdparams", engine="paddle", device="cpu")


def test_the_most_similar_videos_come_first_without_the_query_and_each_once(
    clip_set, trained, tmp_path, predictor, capsys
):
    query = clip_set / "val 0.mp4"
    (tmp_path / "link.mp4").symlink_to(query)
    os.link(clip_set / "val 1.mp4", tmp_path / "again.mp4")
    (tmp_path / "mine.list").write_text(f"{clip_set}/val 5.mp4 3\n{clip_set}/val 1.mp4 1\n")
    given = [tmp_path / "mine.list", clip_set / "val [0-3].mp4", tmp_path / "link.mp4", tmp_path / "again.mp4"]
    code, found = search(trained, tmp_path, "--similar_to", query, *given)
    expected = cosines(predictor, query, [clip_set / f"val {i}.mp4" for i in (5, 1, 2, 3)])
    order = sorted(expected, key=lambda path: -expected[path])
    assert (code, found["schema"], found["query"], found["skipped"]) == (0, 1, str(query), [])
    assert [row["path"] for row in found["rows"]] == order
    assert [row["similarity"] for row in found["rows"]] == pytest.approx([expected[path] for path in order], abs=1e-5)
    labels = {row["path"]: row["label"] for row in found["rows"] if "label" in row}
    assert labels == {f"{clip_set}/val 5.mp4": 3, f"{clip_set}/val 1.mp4": 1}
    lines = [f"{row['similarity']:.6f}  {row['path']}" for row in found["rows"]]
    assert capsys.readouterr().out.splitlines() == lines
    assert not (tmp_path / "predict_results.json").exists()


def test_infer_topk_says_how_many_and_a_broken_video_is_named(clip_set, trained, tmp_path, caplog):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    given = ["--similar_to", clip_set / "val 0.mp4", tmp_path / "broken.mp4", clip_set, "--infer_topk=12"]
    code, found = search(trained, tmp_path, *given)
    assert (code, len(found["rows"])) == (3, 12)  # of 15, and more than the four classes
    assert [row["path"] for row in found["skipped"]] == [str(tmp_path / "broken.mp4")]
    assert "there are 4 classes" not in caplog.text
    assert len(search(trained, tmp_path, *given[:4])[1]["rows"]) == 10


def test_a_features_file_is_searched_as_its_videos_are(clip_set, trained, tmp_path):
    file, query = tmp_path / "f.npz", clip_set / "val 0.mp4"
    assert run(predict, *words(trained, tmp_path), "--features", file, clip_set) == 0
    videos = search(trained, tmp_path, "--similar_to", query, clip_set)[1]["rows"]
    known = search(trained, tmp_path, "--similar_to", query, file)[1]["rows"]
    assert [row["path"] for row in known] == [row["path"] for row in videos]
    similarities = [[row["similarity"] for row in rows] for rows in (known, videos)]
    assert similarities[0] == pytest.approx(similarities[1], abs=1e-5)


def test_a_features_file_of_other_weights_or_clips_is_refused(clip_set, trained, tmp_path, capsys):
    file, query = tmp_path / "f.npz", clip_set / "val 0.mp4"
    assert run(predict, *words(trained, tmp_path), "--features", file, clip_set / "val 1.mp4") == 0
    with np.load(file) as content:
        arrays = dict(content)
    for changed, message in (
        ({"weights_sha256": np.array("0" * 64)}, "are of weights 000000000000, not of these, [0-9a-f]{12}; make them"),
        ({"meta": np.array('{"schema": 1}')}, "are of clips of other sizes; expected"),
        ({"clip_features": np.zeros((1, 3), np.float32)}, "have 3 values, those of the query 256"),
    ):
        np.savez(file, **{**arrays, **changed})
        failing("predict", message, capsys, *words(trained, tmp_path), "--similar_to", query, file)
    failing("predict", "f.npz is searched alone", capsys, *words(trained, tmp_path), "--similar_to", query, file, query)
    assert not (tmp_path / "similar.json").exists()


def test_a_query_that_cannot_be_read_or_stands_alone_is_one_line(clip_set, trained, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    given = words(trained, tmp_path, clip_set / "val 0.mp4", "--similar_to")
    failing("predict", "broken.mp4: ", capsys, *given, tmp_path / "broken.mp4")
    failing("predict", "val 0.mp4: there is no other video", capsys, *given, clip_set / "val 0.mp4")
    failing("predict", "searched for one video, found 16", capsys, *given, clip_set)
    assert not (tmp_path / "similar.json").exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--output=r.csv", "--similar_to writes a file of its own, without --output"),
        ("--timeline", "--similar_to writes a file of its own, without --timeline"),
        ("--explain", "--similar_to writes a file of its own, without --explain"),
        ("--features=f.npz", "--similar_to writes a file of its own, without --features"),
        ("--precision=int8", "--similar_to computes in fp32: leave out --precision"),
        ("--overwrite", "--overwrite is without effect unless"),
    ],
)
def test_flags_that_do_not_go_together_are_one_line(flag, message, capsys):
    failing("predict", message, capsys, "a.mp4", "--similar_to=b.mp4", flag)


def test_an_export_has_no_features_to_compare(clip_set, trained, tmp_path, capsys):
    weights = trained / "STNET_final.pdparams"
    assert run(inference_model, "--weights", weights, "--save_dir", tmp_path / "export") == 0
    capsys.readouterr()
    given = ["--weights", tmp_path / "export", "--save_dir", tmp_path, "--similar_to", clip_set / "val 0.mp4"]
    failing("predict", "an export gives classes alone, and no features", capsys, *given, clip_set / "val 1.mp4")


def test_from_python_bytes_and_frames_are_compared_with_any_inputs(clip_set, predictor):
    content = (clip_set / "val 2.mp4").read_bytes()
    found = predictor.similar(content, (clip_set / f"val {i}.mp4" for i in range(4)), topk=2)
    assert (found[0].input_path, found[0].similarity) == (str(clip_set / "val 2.mp4"), pytest.approx(1, abs=1e-5))
    assert len(found) == 2
    frames = np.random.RandomState(0).randint(0, 256, (9, 40, 48, 3), np.uint8)
    (alone,) = predictor.similar(frames, content)
    assert alone.input_path is None
    assert str(alone).endswith("  (no file)")
    (same,) = predictor.similar(frames, frames)
    assert same.similarity == pytest.approx(1, abs=1e-5)


def test_equal_videos_are_ordered_by_path_and_zero_features_are_similar_to_nothing():
    def row(path, *values, **facts):
        return Features(path, clip=np.float32(values), **facts)

    rows = [row("q", 1, 0), row("z", 2, 0), row("a", 3, 0), row("none", 0, 0), Features("bad", error="no video")]
    expected = [Similar("a", 1.0), Similar("z", 1.0), Similar("none", 0.0)]
    assert ranked(iter(rows)) == expected
    assert ranked(iter(rows), 2) == expected[:2]
    assert [one.similarity for one in ranked([row("q", 0, 0), row("a", 1, 0)])] == [0.0]
    known = FeatureFile(["q", "b"], np.array([1, -1]), np.float32([[1, 0], [1, 1]]), None, "", {}, "")
    assert ranked([row("q", 1, 0)], known=known) == [Similar("b", 0.707107)]
    with pytest.raises(UserError, match="q: no video"):
        ranked([Features("q", error="no video"), row("a", 1)])
