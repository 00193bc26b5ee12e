"""Search: videos that are most similar to one, by the cosine similarity of their clip features."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from stnet.config import Config
from stnet.inference.features import Features
from stnet.metrics.neighbors import most_similar
from stnet.reader.feature_file import SUFFIXES, FeatureFile, read_features
from stnet.reader.sources import Source
from stnet.utils.errors import UserError
from stnet.utils.files import StrPath, find_file
from stnet.utils.parsing import printable

TOPK = 10


@dataclass
class Similar:
    """A video, and how similar it is to another one."""

    input_path: str | None  # None: bytes or frames
    similarity: float  # cosine of the clip features, -1 to 1
    label: int | None = None  # from the list, or the features file

    def __str__(self) -> str:
        """Format the similarity and the path as a line."""
        return f"{self.similarity:.6f}  {printable(self.input_path or '(no file)')}"

    @property
    def json(self) -> dict[str, Any]:
        """Plain data: path, similarity, and label where there is one."""
        label = {} if self.label is None else {"label": self.label}
        return {"path": self.input_path, "similarity": self.similarity, **label}


def features_among(inputs: Any) -> str:
    """Path of the features file, if that is what is searched instead of videos; else "".

    Raises:
        UserError: there are other inputs beside it.
    """
    items = [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs
    if not isinstance(items, (list, tuple)):
        return ""
    files = [os.fspath(item) for item in items if isinstance(item, (str, os.PathLike))]
    found = [path for path in files if path.endswith(SUFFIXES)]
    if found and len(items) > 1:
        raise UserError(f"{found[0]} is searched alone: it cannot be combined with other inputs")
    return found[0] if found else ""


def to_compare(query: Sequence[Source], videos: Sequence[Source]) -> list[Source]:
    """The query, then the other videos, each file once.

    Raises:
        UserError: the query is not one video, or there is no other video.
    """
    if len(query) != 1:
        raise UserError(f"similar videos are searched for one video, found {len(query)}")
    distinct = {_identity(video.clip.path): video for video in reversed([*query, *videos])}
    kept = [video for video in videos if distinct[_identity(video.clip.path)] is video]
    if not kept and videos:
        raise UserError(f"{query[0].path}: there is no other video to compare it with")
    return [*query, *kept]


def _identity(path: StrPath) -> object:
    """Device and number of a file, or its path where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return os.path.abspath(path)
    return status.st_dev, status.st_ino


def read_known(path: StrPath, digest: str, config: Config) -> FeatureFile:
    """Read the features file that is searched. Raises UserError where it is of other weights or clips."""
    known = read_features(path, segments=False)
    if known.digest != digest:
        raise UserError(
            f"features {path} are of weights {known.digest:.12}, not of these, {digest:.12}",
            "make them again with these --weights, or give the weights that they are of",
        )
    theirs, ours = known.meta.get("config"), config.scoring()
    if not isinstance(theirs, dict) or theirs.get("INFER") != ours["INFER"]:
        raise UserError(
            f"features {path} are of clips of other sizes; expected {ours['INFER']}",
            "make them again, or give --config",
        )
    return known


def ranked(rows: Iterable[Features], topk: int = TOPK, known: FeatureFile | None = None) -> list[Similar]:
    """Rank videos by similarity to the first one; equal ones by path.

    Args:
        rows: features of the query, then of the videos; those that could not be read are left out.
        topk: videos in the result, at most.
        known: features of more videos; the query itself is left out.

    Raises:
        UserError: the query could not be read, or its features are of another size.
    """
    rows = iter(rows)
    query = next(rows)
    if query.error:
        raise UserError(f"{query.input_path}: {query.error}")
    read = [(row.input_path, row.label, row.clip.copy()) for row in rows if not row.error]  # without the segments
    paths, labels = [path for path, _, _ in read], [label for _, label, _ in read]
    clips = np.stack([query.clip, *(clip for _, _, clip in read)])[1:]
    if known:
        itself = _identity(query.input_path) if query.input_path else None
        places = [_identity(find_file(path, known.folder)) for path in known.paths]
        others = [i for i, place in enumerate(places) if place != itself]
        paths, clips = [known.paths[i] for i in others], known.clips[others]
        labels = [int(label) if label >= 0 else None for label in known.labels[others]]
    if clips.shape[1] != query.clip.size:
        raise UserError(f"the features have {clips.shape[1]} values, those of the query {query.clip.size}")
    found = most_similar(query.clip, clips, [path or "" for path in paths], topk)
    return [Similar(paths[i], similarity, labels[i]) for i, similarity in found]
