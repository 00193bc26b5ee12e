"""Features of videos, and their files: .npz and .parquet."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from stnet.evaluation.loop import rows_of
from stnet.models.dygraph import Clips
from stnet.reader.loader import Loader
from stnet.reader.sources import Source
from stnet.utils.atomic import check_name, prepare_folder, remove_leftovers, write_atomically
from stnet.utils.errors import USE_PADDLE, UserError

if TYPE_CHECKING:
    from stnet.backends.embedder import Embed

_ROWS_AT_ONCE = 64  # of a Parquet file


def _nothing() -> np.ndarray:
    return np.empty(0, np.float32)


@dataclass(eq=False)
class Features:
    """Features of one video for search, clustering and few-shot learning; or the error."""

    input_path: str | None  # None: bytes or frames
    segments: np.ndarray = field(
        default_factory=_nothing, repr=False
    )  # float32 [T, C]: pooled features of each segment
    clip: np.ndarray = field(default_factory=_nothing, repr=False)  # float32 [C']: input of the last linear layer
    label: int | None = None  # from the list
    error: str = ""  # of a video that could not be read


def features_of(
    embed: Embed, videos: Sequence[Source], loader: Loader, log_interval: int = 10
) -> Generator[Features, None, None]:
    """Yield the features of videos, in order.

    Args:
        embed: of stnet.backends.embedder.
        videos: of stnet.reader.sources.sources.
        loader: of these.
        log_interval: batches between lines of the log.

    Raises:
        UserError: the features are no finite numbers.
    """

    def compute(clips: Clips) -> Any:
        return list(zip(*embed(clips)))

    def check(pairs: Any) -> Any:
        if not all(np.isfinite(array).all() for pair in pairs for array in pair):
            raise UserError("the engine gave features that are no finite numbers", USE_PADDLE)
        return pairs

    with contextlib.closing(rows_of(compute, loader, "features", log_interval, check)) as rows:
        for index, row, reason in rows:
            arrays = {} if row is None else {"segments": row[0], "clip": row[1]}
            yield Features(videos[index].path, label=videos[index].label, error=reason, **arrays)


def check_path(path: str, may_exist: bool) -> None:
    """Raise UserError where `save` could not write this file."""
    suffix = os.path.splitext(path)[1]
    if suffix not in _WRITERS:
        raise UserError(f"features {path}: expected a name that ends with {' or '.join(_WRITERS)}")
    check_name(path)
    if os.path.exists(path) and not may_exist:
        raise UserError(f"{path} exists", "set --overwrite to replace it, or --features to another file")
    if suffix == ".parquet" and not _has_pyarrow():
        raise UserError(
            "a .parquet file needs the package pyarrow, 16 or newer",
            "bash run.sh setup parquet, or pip install 'pyarrow>=16', or name an .npz file",
        )
    folder, name = os.path.split(os.path.abspath(path))
    prepare_folder(folder)
    remove_leftovers(folder, name)


def _has_pyarrow() -> bool:
    try:
        from pyarrow import parquet
    except ImportError:
        return False
    return hasattr(parquet.ParquetWriter, "add_key_value_metadata")


def save(path: str, rows: Iterable[Features], count: int, facts: Callable[[], dict[str, str]]) -> None:
    """Write features atomically, without videos that could not be read; no file where there are none.

    Args:
        path: .npz, whose arrays are collected in memory, or .parquet, which is written in pieces.
        rows: one for each video.
        count: number of videos.
        facts: called at the end; returns metadata texts.

    Raises:
        UserError: the file cannot be written.
    """
    read = (row for row in rows if not row.error)
    first = next(read, None)
    if first is not None:
        _WRITERS[os.path.splitext(path)[1]](path, itertools.chain([first], read), count, facts)


def _save_npz(path: str, rows: Iterator[Features], count: int, facts: Callable[[], dict[str, str]]) -> None:
    paths, labels = [], []
    segments = clips = _nothing()
    for number, row in enumerate(rows):
        if not number:
            segments = np.empty((count, *row.segments.shape), np.float32)
            clips = np.empty((count, *row.clip.shape), np.float32)
        segments[number], clips[number] = row.segments, row.clip
        paths.append(row.input_path or "")
        labels.append(-1 if row.label is None else row.label)
    there = len(paths)
    arrays = {"paths": np.array(paths), "segment_features": segments[:there], "clip_features": clips[:there]}
    if max(labels) >= 0:
        arrays["labels"] = np.array(labels, np.int64)
    arrays.update({name: np.array(text) for name, text in facts().items()})

    def write(temporary: str) -> None:
        with open(temporary, "wb") as file:
            np.savez(file, **arrays)

    write_atomically(path, write)


def _save_parquet(path: str, rows: Iterator[Features], count: int, facts: Callable[[], dict[str, str]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    floats = pa.list_(pa.float32())
    columns = {"path": pa.string(), "label": pa.int64(), "clip": floats, "segments": pa.list_(floats)}
    schema = pa.schema(list(columns.items()))

    def write(temporary: str) -> None:
        with parquet.ParquetWriter(temporary, schema, store_schema=False) as file:  # which would hide the metadata
            while group := list(itertools.islice(rows, _ROWS_AT_ONCE)):
                # Parquet stores UTF-8 only
                paths = [(row.input_path or "").encode("utf-8", "backslashreplace").decode() for row in group]
                labels, clips = [row.label for row in group], [row.clip for row in group]
                segments = [list(row.segments) for row in group]
                file.write_table(pa.table([paths, labels, clips, segments], schema=schema))
            file.add_key_value_metadata(facts())

    write_atomically(path, write)


def facts_of(digest: str, **meta: Any) -> dict[str, str]:
    """Metadata of the features: the weights' SHA-256, and all else as JSON."""
    return {"weights_sha256": digest, "meta": json.dumps(meta)}


_WRITERS = {".npz": _save_npz, ".parquet": _save_parquet}
