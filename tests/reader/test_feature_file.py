"""Feature files read back: what predict --features writes, and nothing else."""

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from stnet.inference.features import Features, save
from stnet.reader.feature_file import read_features
from stnet.utils.errors import UserError

SUFFIXES = [".npz", ".parquet"]


def rows(count=70):
    rng = np.random.RandomState(0)
    for i in range(count):
        segments, clip = rng.rand(2, 3).astype(np.float32), rng.rand(4).astype(np.float32)
        yield Features(f"{i} 视.mp4", segments, clip, None if i == 1 else i % 3)


def written(path, meta='{"schema": 1, "model": "STNET"}', of=rows):
    if path.suffix == ".parquet":
        pytest.importorskip("pyarrow")
    save(str(path), of(), 70, lambda: {"weights_sha256": "abc", "meta": meta})
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_read_as_it_was_written(suffix, tmp_path):
    found, expected = read_features(written(tmp_path / f"f{suffix}")), list(rows())
    assert found.paths == [row.input_path for row in expected]
    assert found.labels.tolist() == [-1 if row.label is None else row.label for row in expected]
    assert found.clips.tolist() == [row.clip.tolist() for row in expected]
    assert found.segments.tolist() == [row.segments.tolist() for row in expected]
    assert (found.clips.dtype, found.segments.dtype, found.labels.dtype) == (np.float32, np.float32, np.int64)
    assert (found.digest, found.meta) == ("abc", {"schema": 1, "model": "STNET"})


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_segments_can_be_left_out_and_labels_can_be_absent(suffix, tmp_path):
    unlabelled = written(tmp_path / f"f{suffix}", of=lambda: (row for row in rows() if row.label is None))
    found = read_features(unlabelled, segments=False)
    assert (found.segments, found.labels.tolist(), found.paths) == (None, [-1], ["1 视.mp4"])


def refused(path, message):
    with pytest.raises(UserError, match=message) as error:
        read_features(path)
    assert "\n" not in f"{error.value} {error.value.hint}"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_missing_cut_or_foreign_is_one_line(suffix, tmp_path):
    path = written(tmp_path / f"f{suffix}")
    refused(tmp_path / f"none{suffix}", "features file not found: .*none")
    content = path.read_bytes()
    for part in (b"", content[: len(content) // 2], b"no features" * 99, content[9:]):
        path.write_bytes(part)
        refused(path, "cannot be read: ")
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", "features file not found: .*folder")
    refused(tmp_path / "f.csv", "expected a name that ends with .npz or .parquet")


def test_other_arrays_are_no_features(tmp_path):
    np.savez(tmp_path / "f.npz", a=np.zeros(3))
    refused(tmp_path / "f.npz", "cannot be read: paths is missing")


def test_parquet_of_other_columns_is_refused_and_one_without_pyarrow_is_one_line(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"path": ["a"], "clip": [[1.0]]}), tmp_path / "f.parquet")
    refused(tmp_path / "f.parquet", "its columns and texts are not those of features")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused(tmp_path / "f.parquet", "needs the package pyarrow, 16 or newer")


def changed(path, compress=False, **arrays):
    """Write a file of features with some arrays replaced; None: left out."""
    with np.load(written(path)) as file:
        content = {**file, **arrays}
    (np.savez_compressed if compress else np.savez)(path, **{k: v for k, v in content.items() if v is not None})
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"clip_features": np.zeros((3, 4), np.float32)}, r"clips of shape \[3, 4\] for 70 paths"),
        ({"segment_features": np.zeros((71, 2, 3), np.float32)}, r"segments of shape \[71, 2, 3\] for 70 paths"),
        ({"labels": np.zeros(7, np.int64)}, r"labels of shape \[7\] for 70 paths"),
        ({"clip_features": np.zeros((70, 0), np.float32)}, r"clips of shape \[70, 0\]"),
        ({"clip_features": np.zeros((70, 4), np.float64)}, r"clip_features is float64 \[70, 4\]"),
        ({"clip_features": np.zeros(70, np.float32)}, r"clip_features is float32 \[70\]"),
        ({"clip_features": np.full((70, 4), np.nan, np.float32)}, "clips hold no finite numbers"),
        ({"weights_sha256": None}, "weights_sha256 is missing"),
        ({"meta": np.array("{")}, "meta is no JSON object"),
        ({"meta": np.array("[1]")}, "meta is no JSON object"),
        ({"meta": np.array('{"schema": 99}')}, "has schema 99, this version knows 1 to 1"),
        ({"paths": np.array([{}] * 70, object)}, "paths is object"),
        ({"compress": True}, "paths is compressed"),
    ],
)
def test_parts_that_do_not_fit_are_one_line(arrays, message, tmp_path):
    refused(changed(tmp_path / "f.npz", **arrays), message)


def test_a_header_that_claims_more_than_the_file_holds_takes_no_memory(tmp_path):
    path = written(tmp_path / "f.npz")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 4)})
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in {**members, "clip_features.npy": header.getvalue() + bytes(64)}.items():
            file.writestr(name, content)
    refused(path, "clip_features is not of the size that its shape")


def test_parquet_rows_of_different_sizes_and_without_values_are_refused(tmp_path):
    uneven = written(tmp_path / "f.parquet", of=lambda: [*rows(2), Features("x", np.zeros((2, 3)), np.zeros(5))])
    refused(uneven, "its rows differ in size")
    holes = Features("x", np.zeros((2, 3)), np.array([1.0, None, 2.0, 3.0], object))
    refused(written(tmp_path / "g.parquet", of=lambda: [holes]), "a value is missing")


def test_reading_needs_no_paddle(tmp_path):
    path = written(tmp_path / "f.npz", json.dumps({"schema": 1}))
    code = (
        "import sys\nimport stnet.metrics.fewshot\nfrom stnet.reader.feature_file import read_features\n"
        f"read_features({str(path)!r})\nassert 'paddle' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
