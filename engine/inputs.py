"""What Predictor takes: videos by path, folder, glob or list, as bytes, or as frames."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Union

import numpy as np

from core.errors import UserError
from core.files import StrPath
from reader.lists import Clip, list_videos, read_list

Input = Union[StrPath, bytes, bytearray, memoryview, np.ndarray]
LIST_SUFFIXES = (".list", ".txt")


class Source(NamedTuple):
    """One video that was asked for."""

    path: str | None  # None: bytes or frames
    label: int | None  # what the list says
    clip: Clip  # what the reader opens
    folder: str  # that relative paths may be relative to


def sources(inputs: Input | Iterable[Input], clip_format: str, scratch: str) -> list[Source]:
    """The videos of what Predictor.predict was given, in order.

    Args:
        inputs: one or several of: a path; a folder, whose videos come sorted; a glob; a list file (.list, .txt), whose
            relative paths are also looked up beside it; the bytes of a file; frames, uint8 [T, H, W, 3] RGB.
        clip_format: MODEL.format, of lists.
        scratch: an empty folder for bytes and frames.

    Raises:
        UserError: a folder or glob without videos, a list that cannot be read, or something else than the above.
    """
    one = isinstance(inputs, (str, os.PathLike, bytes, bytearray, memoryview))
    if one or (isinstance(inputs, np.ndarray) and inputs.ndim == 4):
        inputs = [inputs]  # type: ignore[list-item]
    return [source for item in inputs for source in _sources_of(item, clip_format, scratch)]  # type: ignore[union-attr]


def _sources_of(item: Any, clip_format: str, scratch: str) -> Sequence[Source]:
    if isinstance(item, (bytes, bytearray, memoryview)):
        path = _scratch_file(scratch)
        with open(path, "wb") as file:
            file.write(item)
        return [Source(None, None, Clip(path, -1), "")]
    if isinstance(item, np.ndarray):
        check_frames(item)
        path = f"{_scratch_file(scratch)}.npy"
        np.save(path, item)
        return [Source(None, None, Clip(path, -1), "")]
    if not isinstance(item, (str, os.PathLike)):
        raise UserError(f"cannot predict a {type(item).__name__}: expected a path, bytes, or frames [T, H, W, 3]")
    return _sources_at(os.fspath(item), clip_format)


def _sources_at(path: str, clip_format: str) -> Sequence[Source]:
    if path.lower().endswith(LIST_SUFFIXES) and os.path.isfile(path):
        clips, folder = read_list(path, clip_format, labelled=False), os.path.dirname(os.path.abspath(path))
        return [Source(clip.path, None if clip.label < 0 else clip.label, clip, folder) for clip in clips]
    if os.path.isdir(path):
        return [Source(clip.path, None, clip, "") for clip in list_videos(path)]
    if os.path.exists(path) or not glob.has_magic(path):
        return [Source(path, None, Clip(path, -1), "")]
    names = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
    if not names:
        raise UserError(f"{path}: no file matches")
    return [Source(name, None, Clip(name, -1), "") for name in names]


def check_frames(frames: np.ndarray) -> None:
    """Raise UserError unless an array holds frames."""
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise UserError(
            f"frames: expected uint8 [T, H, W, 3] (RGB), found {frames.dtype} {list(frames.shape)}"
        )


def _scratch_file(folder: str) -> str:
    return os.path.join(folder, f"input{len(os.listdir(folder))}")
