"""The clips of a proof: which of those that `--calibrate` names, and how they are read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stnet.quantize.report import FEWEST
from stnet.reader.loader import build_loader
from stnet.reader.sources import Source, sources
from stnet.utils.errors import UserError
from stnet.utils.files import sha256_of
from stnet.utils.progress import Progress

if TYPE_CHECKING:
    from stnet.config import Config

CALIBRATION, GATE = 64, 256  # clips, at most
_SMALLEST_CALIBRATION = 16


class Clips(NamedTuple):
    """What --calibrate named, in three parts."""

    calibration: list[Source]
    gate: list[Source]
    spare: list[Source]  # in the place of those that cannot be read
    digest: str


def chosen(path: str, config: Config) -> Clips:
    """Clips for calibration and gate, spread evenly over what `path` names. Raises UserError."""
    videos = list({video.path: video for video in sources(path, config.MODEL.format, scratch="")}.values())
    if len(videos) < 2:
        raise UserError(
            f"{path} names {len(videos)} different clips: at least 2 are needed, {CALIBRATION + FEWEST} are enough"
        )
    count = min(CALIBRATION, max(_SMALLEST_CALIBRATION, len(videos) - FEWEST), len(videos) // 2)
    calibration, others = _spread(videos, count)
    gate, spare = _spread(others, min(GATE, len(others)))
    facts = [[(video.path, video.label, _content(video)) for video in part] for part in (calibration, gate)]
    rest = [(video.path, video.label, _size(video)) for video in spare]
    return Clips(calibration, gate, spare, hashlib.sha256(json.dumps([*facts, rest]).encode()).hexdigest())


def _spread(videos: list[Source], count: int) -> tuple[list[Source], list[Source]]:
    """As many of some videos, spread evenly, and the others; both in order."""
    first = {index * len(videos) // count for index in range(count)}
    return (
        [video for index, video in enumerate(videos) if index in first],
        [video for index, video in enumerate(videos) if index not in first],
    )


def _content(video: Source) -> str:
    with contextlib.suppress(OSError):
        return sha256_of(video.clip.path)
    return ""


def _size(video: Source) -> int:
    with contextlib.suppress(OSError):
        return os.path.getsize(video.clip.path)
    return -1


class Reading:
    """Reads some clips ahead, and for each that cannot be read one of the spare ones.

    Args:
        videos: the clips.
        spare: those that were tried are taken out of it.
    """

    def __init__(self, config: Config, videos: Sequence[Source], spare: list[Source]) -> None:
        self.videos, self.count, self.spare = [*videos, *spare], len(videos), spare
        self.loader = build_loader(config, "infer", clips=[video.clip for video in self.videos])
        self.loader.start()

    def batches(self, what: str) -> Generator[tuple[list[Source], np.ndarray], None, None]:
        """What could be read: clips, and their frames uint8 [B, T, 3 * seglen, H, W]; shows progress."""
        batch_size = self.loader.order.batch_size
        progress = Progress(self.count, what, math.ceil(self.count / batch_size), 10)
        missing, tried = self.count, 0
        try:
            with contextlib.closing(progress), contextlib.closing(self.loader.epoch()) as batches:
                for batch in batches:
                    used = batch.indices[:missing]
                    missing, tried = missing - len(used), tried + batch_size
                    if used:
                        tried = tried if missing else used[-1] + 1
                        yield [self.videos[index] for index in used], np.asarray(batch.clips)[: len(used)]
                    progress.update(len(used))
                    if not missing:
                        break
        finally:
            del self.spare[: max(0, tried - self.count)]
