"""Features of videos: what the network makes of them before it classifies, by every engine, and their files."""

import json
import os
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from stnet.backends.embedder import make_embedder
from stnet.inference.features import Features, save
from stnet.inference.predictor import Predictor
from stnet.reader.transforms import to_super_images
from stnet.utils.errors import UserError

NAMES = ["val 0.mp4", "val 1.mp4", "val 2.mp4"]


def predictor_by(engine, trained, clip_set):
    return Predictor(trained / "STNET_final.pdparams", clip_set / "tiny.yaml", engine=engine, device="cpu")


@pytest.fixture(scope="module")
def predictor(trained, clip_set):
    return predictor_by("paddle", trained, clip_set)


def inside(network, clips):
    """The inputs of the temporal Xception block [B, T, C] and of the classifier [B, C'], as the network runs."""
    seen = {}
    hooks = [
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0].numpy()}))
        for name, layer in (("pooled", network.xception), ("whole", network.fc))
    ]
    network(clips)
    for hook in hooks:
        hook.remove()
    return seen["pooled"][..., 0].transpose(0, 2, 1), seen["whole"]


@pytest.mark.parametrize("engine", ["paddle", "inference", "onnxruntime"])
def test_features_are_what_the_network_computes_and_the_classifier_makes_logits_of_them(engine, trained, clip_set):
    if engine == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("paddle2onnx")
    predictor = predictor_by(engine, trained, clip_set)
    network = predictor.model.network
    found = list(predictor.features([clip_set / name for name in NAMES]))
    results = list(predictor.predict([clip_set / name for name in NAMES]))
    clips = np.stack([to_super_images(result.clip().frames, 2) for result in results])
    mean, std = (
        np.tile(np.float32(v), 2)[:, None, None]
        for v in (predictor.config.MODEL.image_mean, predictor.config.MODEL.image_std)
    )
    with paddle.no_grad():
        pooled, whole = inside(network, paddle.to_tensor((clips / np.float32(255) - mean) / std))
        logits = network.fc(paddle.to_tensor(np.stack([features.clip for features in found]))).numpy()
    np.testing.assert_allclose(logits, predictor.engine(clips), rtol=0, atol=1e-4)
    for features, vectors, vector in zip(found, pooled, whole):
        assert (features.segments.shape, features.segments.dtype) == ((2, 512), np.float32)
        assert (features.clip.shape, features.clip.dtype) == ((256,), np.float32)
        np.testing.assert_allclose(features.segments, vectors, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(features.clip, vector, rtol=1e-4, atol=1e-4)


def test_features_come_in_order_and_a_bad_video_says_why(predictor, clip_set, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "a.list").write_text(f"{clip_set}/val 1.mp4 3\n")
    frames = np.zeros((9, 40, 48, 3), np.uint8)
    found = list(predictor.features([clip_set / "val 0.mp4", tmp_path / "broken.mp4", tmp_path / "a.list", frames]))
    names = [str(clip_set / "val 0.mp4"), str(tmp_path / "broken.mp4"), str(clip_set / "val 1.mp4"), None]
    assert [features.input_path for features in found] == names
    assert [bool(features.error) for features in found] == [False, True, False, False]
    assert [features.label for features in found] == [None, None, 3, None]
    assert found[1].segments.size == found[1].clip.size == 0
    alone = next(predictor.features(clip_set / "val 0.mp4"))
    np.testing.assert_allclose(found[0].clip, alone.clip, rtol=0, atol=1e-5)
    assert list(predictor.features([])) == []


def test_a_network_that_gives_no_features_is_one_line(predictor, clip_set, monkeypatch):
    engines = predictor.engines
    monkeypatch.setattr(engines, "model", SimpleNamespace(network=object(), config=predictor.config))
    monkeypatch.delitem(vars(engines), "embed", raising=False)
    with pytest.raises(UserError, match="the network of STNET has no `embed`, and so gives no features"):
        next(predictor.features(clip_set / "val 0.mp4"))


def test_features_that_are_no_numbers_are_one_line(predictor, clip_set, monkeypatch):
    nan = np.full((1, 2, 3), np.nan, np.float32), np.zeros((1, 4), np.float32)
    monkeypatch.setitem(vars(predictor.engines), "embed", lambda clips: nan)
    with pytest.raises(UserError, match="features that are no finite numbers"):
        next(predictor.features(clip_set / "val 0.mp4"))


def test_an_engine_that_gives_no_features_is_one_line(predictor, monkeypatch):
    monkeypatch.setattr("stnet.backends.embedder.make_engine", lambda *_, **settings: lambda clips: np.zeros((1, 4)))
    embed = make_embedder("paddle", predictor.model, predictor.config.section("infer"))
    with pytest.raises(UserError, match=r"gave no features: \[1, 4\], not 256 and 2 rows"):
        embed(np.zeros((1, 2, 6, 32, 32), np.uint8))


# Files ----------------------------------------------------------------------------------------------------------------


def rows(count, broken=()):
    for number in range(count):
        if number in broken:
            yield Features(f"{number}.mp4", error="no video")
        else:
            segments, clip = np.full((2, 3), number, np.float32), np.full(4, -number, np.float32)
            yield Features(f"{number}.mp4", segments, clip, None if number == 2 else number)


def facts():
    return {"weights_sha256": "abc", "meta": json.dumps({"schema": 1})}


def test_an_npz_file_has_what_was_read_and_opens_without_pickle(tmp_path):
    save(str(tmp_path / "f.npz"), rows(4, broken=[0]), 4, facts)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert sorted(found) == ["clip_features", "labels", "meta", "paths", "segment_features", "weights_sha256"]
        assert found["paths"].tolist() == ["1.mp4", "2.mp4", "3.mp4"]
        assert found["labels"].tolist() == [1, -1, 3]
        assert found["segment_features"].shape == (3, 2, 3)
        assert found["clip_features"].tolist() == [[-1] * 4, [-2] * 4, [-3] * 4]
        assert found["clip_features"].dtype == found["segment_features"].dtype == np.float32
        assert (str(found["weights_sha256"]), json.loads(str(found["meta"]))) == ("abc", {"schema": 1})


def test_an_npz_file_without_a_label_has_no_labels(tmp_path):
    save(str(tmp_path / "f.npz"), (row for row in rows(3) if row.label is None), 3, facts)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert "labels" not in found
        assert found["segment_features"].shape == (1, 2, 3)


def test_a_parquet_file_has_a_row_a_video_and_grows_group_by_group(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("stnet.inference.features._ROWS_AT_ONCE", 2)
    save(str(tmp_path / "f.parquet"), rows(6, broken=[1]), 6, facts)
    file = parquet.ParquetFile(tmp_path / "f.parquet")
    assert file.num_row_groups == 3
    table = file.read().to_pydict()
    assert table["path"] == [f"{number}.mp4" for number in (0, 2, 3, 4, 5)]
    assert table["label"] == [0, None, 3, 4, 5]
    assert table["clip"][1] == [-2] * 4
    assert table["segments"][4] == [[5] * 3] * 2
    assert file.metadata.metadata[b"weights_sha256"] == b"abc"
    assert json.loads(parquet.read_table(tmp_path / "f.parquet").schema.metadata[b"meta"]) == {"schema": 1}
    assert str(file.schema_arrow.field("segments").type) == "list<element: list<element: float>>"
    assert os.listdir(tmp_path) == ["f.parquet"]


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_what_fails_half_way_leaves_an_older_file_and_nothing_else(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")

    def failing():
        yield from rows(3)
        raise UserError("a fault")

    path = tmp_path / f"f{suffix}"
    path.write_bytes(b"old")
    with pytest.raises(UserError, match="a fault"):
        save(str(path), failing(), 9, facts)
    save(str(path), rows(2, broken=[0, 1]), 2, facts)  # none was read: nothing is written
    assert (os.listdir(tmp_path), path.read_bytes()) == ([path.name], b"old")


def test_names_that_are_not_utf8_are_kept_by_npz_and_escaped_in_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    name = os.fsdecode(b"\xe9.mp4")
    row = Features(name, np.zeros((1, 1), np.float32), np.zeros(1, np.float32))
    for suffix in (".npz", ".parquet"):
        save(str(tmp_path / f"f{suffix}"), [row], 1, facts)
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert os.fsencode(str(found["paths"][0])) == b"\xe9.mp4"
    assert parquet.read_table(tmp_path / "f.parquet").to_pydict()["path"] == ["\\udce9.mp4"]
