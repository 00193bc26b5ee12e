"""A network in fewer bits beside float32: their answers for clips, and their time for one batch of these."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stnet import runtime
from stnet.quantize.calibration import Reading
from stnet.quantize.report import AgreementStats, Speed
from stnet.reader.sources import Source
from stnet.utils.errors import UserError

if TYPE_CHECKING:
    from stnet.backends.engines import Compute
    from stnet.config import Config
    from stnet.quantize.networks import LowPrecisionNetwork

_ROUNDS, _LONGEST = 9, 60.0  # of the two engines in turns; seconds
_PAUSE = 0.05  # seconds, after which the threads of the other engine no longer spin


class Comparison:
    """Compares a folder's files with the engine that computes in float32 without them, which computes each clip once.

    Args:
        network: in fewer bits.
        folder: of its files.
        videos: the clips.
        spare: see stnet.quantize.calibration.Reading.
    """

    def __init__(
        self, network: LowPrecisionNetwork, folder: str, config: Config, videos: Sequence[Source], spare: list[Source]
    ) -> None:
        self.network, self.folder, self.config = network, folder, config
        self.videos, self.spare = list(videos), spare
        self.expected: dict[str | None, np.ndarray] = {}  # logits in float32, by path
        self.batch = np.empty(0)

    def figures(self) -> AgreementStats:
        """What the files give now. Raises UserError: no clip could be read."""
        reading = Reading(self.config, self.videos, self.spare)
        engine, found = self.network.load(self.folder), dict[Any, np.ndarray]()
        float32 = None if self.expected else self.network.float32()
        read: list[Source] = []
        with contextlib.closing(reading.batches(f"{self.network.kind.name} beside fp32")) as batches:
            for videos, clips in batches:
                read += videos
                paths = [video.path for video in videos]
                found.update(zip(paths, engine(clips)))
                if float32:
                    self.expected.update(zip(paths, float32(clips)))
                if len(self.batch) < (at_once := self.network.at_once):
                    self.batch = np.concatenate([self.batch, clips])[:at_once] if len(self.batch) else clips
        if float32:
            self.videos = read
        del engine, float32
        runtime.release_memory()
        common = [video for video in read if video.path in self.expected]
        if not common:
            raise UserError("none of the clips that are to prove the precision could be read")
        expected, low = (np.stack([answers[video.path] for video in common]) for answers in (self.expected, found))
        return AgreementStats.of(expected, low, [video.label for video in common])

    def speed(self) -> Speed:
        """The time of both for clips in memory, with nothing beside them."""
        engines: list[Compute] = [self.network.float32(), self.network.load(self.folder)]
        for engine in engines:
            engine(self.batch)  # the first time takes longer
        seconds: list[list[float]] = [[] for _ in engines]
        began = time.monotonic()
        while len(seconds[0]) < _ROUNDS and not (seconds[0] and time.monotonic() - began > _LONGEST):
            for engine, taken in zip(engines, seconds):
                time.sleep(_PAUSE)
                start = time.perf_counter()
                engine(self.batch)
                taken.append((time.perf_counter() - start) / len(self.batch))
        name = getattr(engines[0], "name", "Paddle")
        return Speed(name, len(self.batch), *(float(np.median(taken)) for taken in seconds))
