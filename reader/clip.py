"""The one way from a path to a clip: sample, decode, scale, crop, flip. The loader, `check` and `show` all go it."""

from __future__ import annotations

import random
from typing import NamedTuple, cast

import numpy as np

from stnet.config import ReaderSection, TrainSection
from stnet.reader.decode import Video
from stnet.reader.errors import ClipError
from stnet.reader.formats import FORMATS, VIDEO
from stnet.reader.sampling import sample_frames
from stnet.reader.transforms import CROPS, ClipBuilder


class Clip(NamedTuple):
    """What the network sees of a file, and where it comes from: one view after the other, where there are several."""

    frames: np.ndarray  # uint8 [views * seg_num * seglen, target_size, target_size, 3] RGB
    label: int | None  # where the format has it inside the file
    segments: list[list[int]]  # views * seg_num lists of seglen numbers of frames
    num_frames: int  # that can be decoded
    video: Video | None  # how a video was read; None for other formats


def clip_rng(seed: int, epoch: int, index: int) -> random.Random:
    """The draws that training makes for a clip: whoever reads it, they are the same."""
    return random.Random(f"{seed}/{epoch}/{index}")


def read_clip(
    path: str, section: ReaderSection, format: str = VIDEO, rng: random.Random | None = None, decoder: str = ""
) -> Clip:
    """Read a clip as a section of the configuration says.

    Section TEST may want several views: for each of its num_crops places along the longer side, num_clips clips. The
    file is decoded once, and each of the frames that any of them wants is scaled once for each place.

    Args:
        path: the file.
        section: with seg_num and seglen set.
        format: one of stnet.reader.formats.FORMATS.
        rng: augments as training does, in the original's order of draws: segments, crop, flip; None takes the centre.
        decoder: see stnet.reader.formats.Format.read.

    Raises:
        ClipError: the file cannot be read, or no crop of target_size fits into its frames.
        UserError: no such format.
    """
    clip_format = FORMATS.get(format)()
    sink = _Sink(section, format, rng)
    try:
        label = clip_format.read(path, sink, decoder)
        frames = sink.frames()
    except (ValueError, OSError) as error:
        raise ClipError(str(error) or type(error).__name__) from None
    return Clip(frames, label, sink.segments, sink.count, sink.video)


class _Sink:
    """Samples the frames and builds the clip; each attempt at decoding begins with the same draws."""

    def __init__(self, section: ReaderSection, format: str, rng: random.Random | None) -> None:
        self.section, self.format, self.rng = section, format, rng
        self.drawn = rng.getstate() if rng else None
        self.video: Video | None = None

    def begin(self, count: int) -> list[int]:
        """The distinct frames of the segments, ascending."""
        if count < 1:
            raise ClipError("it has no frame")
        section = self.section
        assert section.seg_num and section.seglen  # Config.section has set them
        if self.rng and self.drawn:
            self.rng.setstate(self.drawn)
        self.count = count
        clips = section.num_clips
        sampling = count, section.seg_num, section.seglen, self.format, self.rng
        segments = [segment for clip in range(clips) for segment in sample_frames(*sampling, clip, clips)]
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
        """Those of all views. Called once: what the builders hold is given up as it is copied."""
        if len(self.builders) == 1:
            return self.builders[0].clip(self.places)
        size = self.section.target_size
        planes = np.empty((len(self.builders), len(self.places), 3, size, size), np.uint8)
        for crop in planes:
            crop[...] = self.builders.pop(0).clip(self.places).transpose(0, 3, 1, 2)
        return planes.reshape(-1, 3, size, size).transpose(0, 2, 3, 1)
