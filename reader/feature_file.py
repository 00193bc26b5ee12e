"""Feature files of predict --features, .npz and .parquet, read back without Paddle and within bounds."""

from __future__ import annotations

import math
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from stnet.utils.errors import UserError, first_line
from stnet.utils.files import StrPath
from stnet.utils.parsing import parse_json
from stnet.utils.schema import refuse_newer

SUFFIXES = (".npz", ".parquet")
MAX_BYTES = 1 << 34  # of a Parquet file, unpacked; an .npz file unpacks to no more than its size
_MAKE_THEM = "predict --features writes such files"
# Type and axes of the arrays of an .npz file; "U" is text.
_ARRAYS = {
    "paths": ("U", 1),
    "labels": ("<i8", 1),
    "clip_features": ("<f4", 2),
    "segment_features": ("<f4", 3),
    "weights_sha256": ("U", 0),
    "meta": ("U", 0),
}
_NEEDED = ("paths", "clip_features", "weights_sha256", "meta")


@dataclass(eq=False)
class FeatureFile:
    """Features of N videos, as predict --features wrote them."""

    paths: list[str]
    labels: np.ndarray  # int64 [N]; -1: none
    clips: np.ndarray  # float32 [N, C']
    segments: np.ndarray | None  # float32 [N, T, C]; None: not read
    digest: str  # SHA-256 of the weights
    meta: dict[str, Any]  # model, config, versions, skipped
    folder: str  # of the file


def read_features(path: StrPath, segments: bool = True) -> FeatureFile:
    """Read a file of predict --features.

    Args:
        path: .npz or .parquet.
        segments: read the features of the segments, too, which are many times as large.

    Raises:
        UserError: there is no such file; it is damaged, or no file of features; its parts do not fit each other.
    """
    path = os.fspath(path)
    read = {".npz": _read_npz, ".parquet": _read_parquet}.get(os.path.splitext(path)[1])
    if read is None:
        raise UserError(f"features {path}: expected a name that ends with {' or '.join(SUFFIXES)}")
    if not os.path.isfile(path):
        raise UserError(f"features file not found: {path}", _MAKE_THEM)
    try:
        found = read(path, segments)
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"features {path} are too large for this machine's memory") from None
    except Exception as error:  # OSError, ValueError, zipfile's and pyarrow's own
        raise UserError(f"features {path} cannot be read: {first_line(error)}", _MAKE_THEM) from None
    return _checked(path, found)


def _checked(path: str, found: Mapping[str, Any]) -> FeatureFile:
    clips, count = found["clip_features"], len(found["paths"])
    labels = found.get("labels", np.full(count, -1, np.int64))
    file = FeatureFile(
        list(found["paths"]),
        labels,
        clips,
        found.get("segment_features"),
        str(found["weights_sha256"]),
        {},
        os.path.dirname(path),
    )
    arrays = {"clips": file.clips, "labels": labels, "segments": file.segments}
    for name, array in arrays.items():
        if array is not None and (len(array) != count or 0 in array.shape[1:]):
            raise UserError(f"features {path}: {name} of shape {list(array.shape)} for {count} paths", _MAKE_THEM)
        if array is not None and not np.isfinite(array).all():
            raise UserError(f"features {path}: {name} hold no finite numbers", _MAKE_THEM)
    try:
        meta = parse_json(str(found["meta"]))
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise UserError(f"features {path}: meta is no JSON object", _MAKE_THEM)
    refuse_newer(meta, path)
    file.meta = meta
    return file


# .npz -----------------------------------------------------------------------------------------------------------------


def _read_npz(path: str, segments: bool) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        names = {name[: -len(".npy")] for name in archive.namelist() if name.endswith(".npy")}
        missing = [name for name in (*_NEEDED, "segment_features") if name not in names]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        wanted = [name for name in _ARRAYS if name in names and (segments or name != "segment_features")]
        found: dict[str, Any] = {name: _array(archive, name) for name in wanted}
    found["paths"] = found["paths"].tolist()
    return found


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Read an array whose header agrees with the size that it takes. Raises ValueError."""
    kind, axes = _ARRAYS[name]
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != zipfile.ZIP_STORED:  # it could unpack to more than the memory holds
        raise ValueError(f"{name} is compressed")
    with archive.open(entry) as packed:
        file = cast(BinaryIO, packed)
        version = npy.read_magic(file)
        if version != (1, 0):
            raise ValueError(f"{name} is of version {version} of the .npy format, expected 1.0")
        shape, by_column, dtype = npy.read_array_header_1_0(file)
        is_text = kind == "U" and dtype.kind == "U" and dtype.isnative
        if by_column or len(shape) != axes or not (is_text or dtype.str == kind):
            raise ValueError(f"{name} is {dtype} {list(shape)}")
        if math.prod(shape) * dtype.itemsize != entry.file_size - file.tell():
            raise ValueError(f"{name} is not of the size that its shape {list(shape)} says")
        return np.frombuffer(file.read(), dtype).reshape(shape)


# .parquet -------------------------------------------------------------------------------------------------------------


def _read_parquet(path: str, segments: bool) -> dict[str, Any]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"features {path}: a .parquet file needs the package pyarrow, 16 or newer",
            "bash run.sh setup parquet, or pip install 'pyarrow>=16', or make an .npz file",
        ) from None
    columns = ["path", "label", "clip", *(["segments"] if segments else [])]
    with parquet.ParquetFile(path) as file:
        kinds = {field.name: str(field.type) for field in file.schema_arrow}
        expected = {"path": "string", "label": "int64", "clip": "list<element: float>"}
        expected["segments"] = f"list<element: {expected['clip']}>"
        texts = {key.decode(): value.decode() for key, value in (file.metadata.metadata or {}).items()}
        if kinds != expected or not {"weights_sha256", "meta"} <= texts.keys():
            raise ValueError("its columns and texts are not those of features")
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > MAX_BYTES:
            raise ValueError(f"it claims more than {MAX_BYTES} bytes")
        table = file.read(columns)
    rows, labels = table.num_rows, table.column("label").to_numpy()
    found = {
        "paths": table.column("path").to_pylist(),
        "labels": np.where(np.isnan(labels), -1, labels).astype(np.int64) if labels.dtype.kind == "f" else labels,
        "clip_features": _stacked(table.column("clip"), rows, 1),
        **texts,
    }
    if segments:
        found["segment_features"] = _stacked(table.column("segments"), rows, 2)
    return found


def _stacked(column: Any, rows: int, axes: int) -> np.ndarray:
    """Stack lists of one length: float32 [rows, ...]. Raises ValueError."""
    values, shape = column.combine_chunks(), [rows]
    for _ in range(axes):
        lengths = values.value_lengths().to_numpy(zero_copy_only=False)
        if not len(lengths) or not (lengths == lengths[0]).all():
            raise ValueError("its rows differ in size")
        shape.append(int(lengths[0]))
        values = values.flatten()
    if values.null_count:
        raise ValueError("a value is missing")
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float32).reshape(shape)
