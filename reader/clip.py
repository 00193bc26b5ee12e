"""Read a clip from its path: sample, decode, scale, crop, flip. The loader, `check` and `show` all use it."""

from __future__ import annotations

import random
from typing import NamedTuple, cast

import numpy as np

from stnet.config import ReaderSection, TrainSection
from stnet.reader.decode import Video
from stnet.reader.errors import ClipError
from stnet.reader.formats import FORMATS, VIDEO
from stnet.reader.sampling import sample_frames
from stnet.reader.spans import Span
from stnet.reader.transforms import CROPS, ClipBuilder


class Clip(NamedTuple):
    """Decoded frames of all views of a file, one view after the other, and their source."""

    frames: np.ndarray  # uint8 [views * seg_num * seglen, target_size, target_size, 3] RGB
    label: int | None  # None where the format has none inside the file
    segments: list[list[int]]  # views * seg_num lists of seglen numbers of frames
    num_frames: int  # of the file, or of the span, decodable
    video: Video | None  # index and decoder of a video; None for other formats


def clip_rng(seed: int, epoch: int, index: int) -> random.Random:
    """Random generator of a clip's augmentation, which depends on seed, epoch and index alone."""
    return random.Random(f"{seed}/{epoch}/{index}")


def read_clip(
    path: str,
    section: ReaderSection,
    format: str = VIDEO,
    rng: random.Random | None = None,
    decoder: str = "",
    span: Span | None = None,
) -> Clip:
    """Read all views of a clip: num_clips clips for each of num_crops crops along the longer side.

    The file is decoded once, and each distinct frame is scaled once for each crop.

    Args:
        path: the file.
        section: of the configuration, with seg_num and seglen set.
        format: one of stnet.reader.formats.FORMATS.
        rng: for training, in the original's order of draws: segments, crop, flip; None takes the centre.
        decoder: see stnet.reader.formats.Format.read.
        span: the part of the file that is the clip; its frames are numbered from 0. None: all.

    Raises:
        ClipError: the file cannot be read, no frame is in the span, or no crop of target_size fits into its frames.
        UserError: no such format, or one without spans.
    """
    clip_format = FORMATS.get(format)()
    clip_format.check_span(span)
    sink = _Sink(section, format, rng, span)
    try:
        label = clip_format.read(path, sink, decoder)
        frames = sink.frames()
    except (ValueError, OSError) as error:
        raise ClipError(str(error) or type(error).__name__) from None
    return Clip(frames, label, sink.segments, sink.count, sink.video)


class _Sink:
    """Samples frames and builds the clip; each attempt at decoding begins with the same random state."""

    def __init__(
        self, section: ReaderSection, format: str, rng: random.Random | None, span: Span | None = None
    ) -> None:
        self.section, self.format, self.rng, self.span = section, format, rng, span
        self.rng_state = rng.getstate() if rng else None
        self.video: Video | None = None

    def begin(self, count: int) -> list[int]:
        """Sample the segments of all views. Returns the distinct frames, ascending."""
        if count < 1:
            raise ClipError("it has no frame")
        section = self.section
        assert section.seg_num and section.seglen  # Config.section has set them
        if self.rng and self.rng_state:
            self.rng.setstate(self.rng_state)
        self.count = count
        segments = []
        for clip in range(section.num_clips):
            segments += sample_frames(
                count, section.seg_num, section.seglen, self.format, self.rng, clip, section.num_clips
            )
        self.segments = segments * section.num_crops
        frames, places = np.unique(np.asarray(segments).ravel(), return_inverse=True)
        self.places = places.reshape(-1)
        flip_ratio = cast(TrainSection, section).flip_ratio if self.rng else 0.0
        sizes = len(frames), section.short_size, section.target_size
        self.builders = [ClipBuilder(*sizes, self.rng, flip_ratio, crop) for crop in CROPS[section.num_crops]]
        return frames.tolist()

    def put(self, row: int, frame: np.ndarray) -> None:
        """Scale, crop and keep a frame."""
        for builder in self.builders:
            builder.put(row, frame)

    def frames(self) -> np.ndarray:
        """Frames of all views. Called once: each builder is freed as it is copied."""
        if len(self.builders) == 1:
            return self.builders[0].clip(self.places)
        size = self.section.target_size
        planes = np.empty((len(self.builders), len(self.places), 3, size, size), np.uint8)
        for crop in planes:
            crop[...] = self.builders.pop(0).clip(self.places).transpose(0, 3, 1, 2)
        return planes.reshape(-1, 3, size, size).transpose(0, 2, 3, 1)
