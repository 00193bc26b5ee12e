"""Which frames of a clip the network sees. Pure functions; the original's arithmetic, draw for draw."""

from __future__ import annotations

import random

from reader.formats import FORMATS, VIDEO


def sample_frames(
    num_frames: int, seg_num: int, seglen: int, format: str = VIDEO, rng: random.Random | None = None
) -> list[list[int]]:
    """Indices of the frames: seg_num segments of seglen consecutive frames.

    Args:
        num_frames: decodable frames, at least 1.
        seg_num, seglen: segments, and frames in each.
        format: one of FORMATS; the original's two are centred differently.
        rng: for training (one randint per segment); None takes the centre.

    Returns:
        seg_num lists of seglen indices. A clip shorter than seg_num * seglen overlaps or wraps around.
    """
    average = num_frames // seg_num
    segments = []
    for i in range(seg_num):
        if average >= seglen:
            offset = rng.randint(0, average - seglen) if rng else FORMATS.get(format)().centre(average, seglen)
            start = i * average + offset
        else:
            start = i * average if average >= 1 else i
        segments.append([(start + k) % num_frames for k in range(seglen)])
    return segments
