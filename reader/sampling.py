"""Sample the frames of a clip. Pure functions with the original's arithmetic and random draws."""

from __future__ import annotations

import random

from stnet.reader.formats import FORMATS, VIDEO


def sample_frames(
    num_frames: int,
    seg_num: int,
    seglen: int,
    format: str = VIDEO,
    rng: random.Random | None = None,
    clip: int = 0,
    num_clips: int = 1,
) -> list[list[int]]:
    """Sample seg_num segments of seglen consecutive frames.

    Args:
        num_frames: of the video, at least 1.
        seg_num, seglen: segments, and frames in each.
        format: one of FORMATS; the original's two are centred differently.
        rng: for training (one randint per segment); None takes the centre.
        clip, num_clips: number of the clip, from 0, of several that are spread evenly over each part of the video, from
            its start to its end (see `spread`), in any format; a single one is the centre.

    Returns:
        seg_num lists of seglen frame numbers. A clip shorter than seg_num * seglen overlaps or wraps around.
    """
    average = num_frames // seg_num
    segments = []
    for i in range(seg_num):
        if average >= seglen:
            if rng:
                offset = rng.randint(0, average - seglen)
            elif num_clips > 1:
                offset = spread(average - seglen, clip, num_clips)
            else:
                offset = FORMATS.get(format)().centre(average, seglen)
            start = i * average + offset
        else:
            start = i * average if average >= 1 else i
        segments.append([(start + k) % num_frames for k in range(seglen)])
    return segments


def spread(room: int, number: int, count: int) -> int:
    """Position of the number-th of `count` > 1 points evenly spaced from 0 to `room`, rounded half up."""
    return (2 * number * room + count - 1) // (2 * (count - 1))
