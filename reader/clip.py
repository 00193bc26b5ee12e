"""The one way from a path to a clip: sample, decode, scale, crop, flip. The loader, `check` and `show` all go it."""

import random
from typing import NamedTuple, Optional

import numpy as np

from reader.decode import Video, read_frames, read_pickle
from reader.errors import ClipError
from reader.sampling import sample_frames
from reader.transforms import ClipBuilder


class Clip(NamedTuple):
    """What the network sees of a file, and where it comes from."""

    frames: np.ndarray  # uint8 [seg_num * seglen, target_size, target_size, 3] RGB
    label: Optional[int]  # inside a pickle; None in a video
    segments: list  # seg_num lists of seglen numbers of frames
    num_frames: int  # that can be decoded
    video: Optional[Video]  # how a video was read; None for a pickle


def clip_rng(seed, epoch, index):
    """random.Random of the draws that training makes for a clip: whoever reads it, they are the same."""
    return random.Random(f"{seed}/{epoch}/{index}")


def read_clip(path, section, format="mp4", rng=None, decoder=""):
    """Read a clip as a section of the configuration says.

    Args:
        path: the file.
        section: core.config.ReaderSection with seg_num and seglen set.
        format: "mp4" (any video file) or "pkl".
        rng: random.Random augments as training does, in the original's order of draws: segments, crop, flip; None takes
            the centre.
        decoder: see reader.decode.read_frames.

    Returns:
        Clip.

    Raises:
        ClipError: the file cannot be read, or no crop of target_size fits into its frames.
    """
    sink = _Sink(section, format, rng)
    try:
        if format == "pkl":
            label, video = _read_pickle(path, sink), None
        else:
            label, video = None, read_frames(path, sink, decoder)
        frames = sink.builder.clip(sink.places)
    except ValueError as error:
        raise ClipError(str(error)) from None
    return Clip(frames, label, sink.segments, sink.count, video)


def _read_pickle(path, sink):
    """Put a pickle's frames. Returns the label."""
    frames, _, label = read_pickle(path, sink.begin)
    for row, frame in enumerate(frames):
        sink.put(row, frame)
    return label


class _Sink:
    """Samples the frames and builds the clip; each attempt at decoding begins with the same draws."""

    def __init__(self, section, format, rng):
        self.section, self.format, self.rng = section, format, rng
        self.drawn = rng.getstate() if rng else None

    def begin(self, count):
        """The distinct frames of the segments, ascending."""
        want = self.section
        if self.rng:
            self.rng.setstate(self.drawn)
        self.count = count
        self.segments = sample_frames(count, want.seg_num, want.seglen, self.format, self.rng)
        frames, places = np.unique(np.asarray(self.segments).ravel(), return_inverse=True)
        self.places = places.reshape(-1)
        flip_ratio = want.flip_ratio if self.rng else 0
        self.builder = ClipBuilder(len(frames), want.short_size, want.target_size, self.rng, flip_ratio)
        self.put = self.builder.put
        return frames.tolist()
