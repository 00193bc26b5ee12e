"""Inputs of Predictor: videos by path, folder, glob or list, as bytes, or as frames."""

from __future__ import annotations

import glob
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Union

import numpy as np

from stnet.config import ReaderSection
from stnet.reader.clip import Clip as DecodedClip
from stnet.reader.clip import read_clip
from stnet.reader.errors import ClipError
from stnet.reader.formats import FRAMES, PICKLE, VIDEO, Clip
from stnet.reader.lists import VIDEO_SUFFIXES, list_folder, list_videos, read_list, videos_among
from stnet.utils.errors import UserError
from stnet.utils.files import StrPath, find_file, walk

Bytes = (bytes, bytearray, memoryview)
Input = Union[StrPath, bytes, bytearray, memoryview, np.ndarray]
LIST_SUFFIXES = (".list", ".txt")


class Source(NamedTuple):
    """Video to predict."""

    path: str | None  # as given or listed, with the span; None: bytes or frames
    label: int | None  # in the list
    clip: Clip  # that the reader opens
    content: Any = None  # the bytes or frames, which were written to a file


def sources(inputs: Input | Iterable[Input], clip_format: str, scratch: str) -> list[Source]:
    """List the videos of the inputs of Predictor.predict, in order.

    Args:
        inputs: one or several of: a path; a folder, whose videos are sorted; a glob; a list file (.list, .txt), whose
            relative paths may start at its folder; the bytes of a file; frames, uint8 [T, H, W, 3] RGB.
        clip_format: MODEL.format.
        scratch: a folder for files of bytes and frames.

    Raises:
        UserError: a folder or glob without videos, a list that cannot be read, or an input of another type.
    """
    is_one = isinstance(inputs, (str, os.PathLike, *Bytes)) or (isinstance(inputs, np.ndarray) and inputs.ndim == 4)
    items: Any = [inputs] if is_one else inputs
    if not isinstance(items, Iterable):
        raise UserError(f"expected a path, bytes, frames, or several of them, found {type(inputs).__name__}")
    return [source for number, item in enumerate(items) for source in _sources_of(item, clip_format, scratch, number)]


def _sources_of(item: Any, clip_format: str, scratch: str, number: int) -> Sequence[Source]:
    path = os.path.join(scratch, f"input {number}")
    if isinstance(item, Bytes):
        with open(path, "wb") as file:
            file.write(item)
        return [Source(None, None, Clip(path, -1), item)]
    if isinstance(item, np.ndarray):
        if item.dtype != np.uint8 or item.ndim != 4 or item.shape[-1] != 3 or 0 in item.shape:
            shape = f"{item.dtype} {list(item.shape)}"
            raise UserError(f"input {number}: expected frames, uint8 [T, H, W, 3] RGB, found {shape}")
        with open(path, "wb") as file:
            np.save(file, item)
        return [Source(None, None, Clip(path, -1, FRAMES), item)]
    if not isinstance(item, (str, os.PathLike)):
        kind = type(item).__name__
        raise UserError(f"input {number}: expected a path, bytes, or frames (uint8 [T, H, W, 3]), found {kind}")
    return _sources_at(os.fspath(item), clip_format)


def _sources_at(path: str, clip_format: str) -> Sequence[Source]:
    path = os.path.expanduser(path)
    if os.path.isdir(path):
        paths = [clip.path for clip in list_videos(path)]
    elif path.lower().endswith(LIST_SUFFIXES):
        return listed(path, clip_format)
    elif os.path.exists(path) or not glob.has_magic(path):
        paths = [path]
    else:
        paths = sorted({name for name in _matching(path) if not os.path.isdir(name)})
        if os.path.basename(path) in ("*", "**"):  # any name: only videos, as of a folder
            folder = path[: path.index("*")].rpartition(os.sep)[0] or os.curdir
            paths = videos_among(paths, folder)
        if not paths:
            raise UserError(f"{path}: no file matches")
    return [Source(name, None, Clip(name, -1, format_of(name, clip_format))) for name in paths]


def _matching(pattern: str) -> Iterable[str]:
    """Paths that a glob matches; `**` visits folders as utils.files.walk does, so that loops of links end."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return glob.glob(pattern)
    at = parts.index("**")
    start, rest = os.sep.join(parts[:at]), parts[at + 1 :] or ["*"]
    roots = glob.glob(start + os.sep) if at else [""]
    folders = [folder for root in roots for folder, _ in walk(root or os.curdir)]
    found = [name for folder in folders for name in _matching(os.path.join(glob.escape(folder), *rest))]
    return found if at else [os.path.relpath(name) for name in found]


def format_of(path: str, clip_format: str) -> str:
    """Format of a single file: MODEL.format, but `mp4` for a video where that is pickles or frames."""
    is_video = path.lower().endswith(VIDEO_SUFFIXES) and clip_format.lower() in (PICKLE, FRAMES)
    return VIDEO if is_video else clip_format


def listed(path: str, clip_format: str) -> list[Source]:
    """Videos of a list file, with their labels if given. Raises UserError."""
    clips, folder = read_list(path, clip_format, labelled=False), list_folder(path)
    labels = [None if clip.label < 0 else clip.label for clip in clips]
    found = [clip._replace(path=find_file(clip.path, folder)) for clip in clips]
    return [Source(clip.name, label, there) for clip, label, there in zip(clips, labels, found)]


def read_again(video: Source, section: ReaderSection, clip_format: str) -> DecodedClip:
    """Decode the clip of a video again, which results do not keep. Raises UserError.

    Args:
        section: sizes of the clip.
        clip_format: MODEL.format.
    """
    with tempfile.TemporaryDirectory(prefix="stnet-") as scratch:
        clip = video.clip
        if video.content is not None:
            (again,) = sources([video.content], clip_format, scratch)
            clip = again.clip
        try:
            return read_clip(clip.path, section, clip.format or clip_format, span=clip.span)
        except ClipError as error:
            raise UserError(f"{video.path}: {error}") from None
