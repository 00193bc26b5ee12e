"""predict.py --features, called in this process."""

import json
import sys

import numpy as np
import pytest
from entries import failing, inference_model, predict, run

from stnet.utils.files import sha256_of


def words(trained, tmp_path, name="f.npz"):
    weights = trained / "STNET_final.pdparams"
    return ["--weights", weights, "--save_dir", tmp_path, "--engine=paddle", "--features", tmp_path / name]


def test_predict_writes_the_features_of_a_list_and_names_what_it_cannot_read(clip_set, trained, tmp_path, caplog):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "mine.list").write_text(f"{clip_set}/val 0.mp4 2\nbroken.mp4 1\n{clip_set}/val 1.mp4 3\n")
    assert run(predict, *words(trained, tmp_path), "--filelist", tmp_path / "mine.list") == 3
    assert [row.getMessage() for row in caplog.records if "broken.mp4" in row.getMessage()]
    with np.load(tmp_path / "f.npz", allow_pickle=False) as found:
        assert found["paths"].tolist() == [f"{clip_set}/val 0.mp4", f"{clip_set}/val 1.mp4"]
        assert found["labels"].tolist() == [2, 3]
        assert (found["segment_features"].shape, found["clip_features"].shape) == ((2, 2, 512), (2, 256))
        assert str(found["weights_sha256"]) == sha256_of(trained / "STNET_final.pdparams")
        meta = json.loads(str(found["meta"]))
    assert (meta["schema"], meta["model"], meta["config"]["INFER"]["seg_num"]) == (1, "STNET", 2)
    assert sorted(meta["versions"]) == ["numpy", "paddle", "python"]
    assert [row["path"] for row in meta["skipped"]] == [str(tmp_path / "broken.mp4")]
    assert not (tmp_path / "predict_results.json").exists()


def test_predict_writes_parquet(clip_set, trained, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run(predict, *words(trained, tmp_path, "f.parquet"), clip_set / "val [01].mp4") == 0
    table = parquet.read_table(tmp_path / "f.parquet")
    assert table.column("path").to_pylist() == [str(clip_set / f"val {i}.mp4") for i in (0, 1)]
    assert [len(clip) for clip in table.column("clip").to_pylist()] == [256, 256]
    assert table.schema.metadata[b"weights_sha256"].decode() == sha256_of(trained / "STNET_final.pdparams")


def test_an_existing_file_is_kept_unless_it_is_to_be_replaced_and_videos_can_be_read(
    clip_set, trained, tmp_path, capsys
):
    (tmp_path / "f.npz").write_bytes(b"old")
    failing("predict", "f.npz exists; set --overwrite", capsys, *words(trained, tmp_path), clip_set / "val 0.mp4")
    typo = [*words(trained, tmp_path), "--overwrite", clip_set / "vla 0.mp4"]
    assert run(predict, *typo) == 1
    assert "no clip could be read; the first: " in capsys.readouterr().err
    assert (tmp_path / "f.npz").read_bytes() == b"old"
    assert run(predict, *words(trained, tmp_path), "--overwrite", clip_set / "val 0.mp4") == 0
    assert np.load(tmp_path / "f.npz")["paths"].tolist() == [str(clip_set / "val 0.mp4")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--features=f.npz", "--output=r.csv"], "--features writes a file of its own, without --output"),
        (["--features=f.npz", "--explain"], "--features writes a file of its own, without --explain"),
        (["--features=f.npz", "--timeline"], "--features writes a file of its own, without --timeline"),
        (["--features=f.npz", "--resume"], "--resume is without effect unless --output is given"),
        (["--features=f.npz", "--infer_topk=3"], "--features writes no classes: --infer_topk is without effect"),
        (["--features=f.csv"], "features f.csv: expected a name that ends with .npz or .parquet"),
        (["--overwrite"], "--overwrite is without effect unless --output, --features or --render is given"),
    ],
)
def test_features_that_cannot_be_are_one_line(flags, message, capsys):
    failing("predict", message, capsys, "a.mp4", *flags)


def test_parquet_without_pyarrow_is_one_line_before_any_work(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = "a .parquet file needs the package pyarrow, 16 or newer; bash run.sh setup parquet"
    failing("predict", message, capsys, "a.mp4", "--features=f.parquet")


def test_an_export_has_no_features_and_says_so(clip_set, trained, tmp_path, capsys):
    weights = trained / "STNET_final.pdparams"
    assert run(inference_model, "--weights", weights, "--save_dir", tmp_path / "export") == 0
    capsys.readouterr()
    given = ["--weights", tmp_path / "export", "--save_dir", tmp_path, "--features", tmp_path / "f.npz"]
    assert run(predict, *given, clip_set / "val 0.mp4") == 1
    assert "an export gives classes alone, and no features; use the weights" in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()
