"""Scale, crop and flip, one clip at a time. Pure functions; what is random comes from the `rng` they are given."""

import numpy as np
from PIL import Image


def make_clip(frames, places, short_size, target_size, rng=None, flip_ratio=0.5):
    """Frames as the network sees them, before normalisation.

    Args:
        frames: uint8 [K, H, W, 3] RGB, the distinct frames.
        places: for each frame of the clip, its row in `frames`.
        short_size, target_size: pixels; scale the short side to the first, then crop a square of the second.
        rng: random.Random for training (random crop, then flip); None takes the centre.
        flip_ratio: share of training clips that are mirrored; 0 where left and right make a difference.

    Returns:
        uint8 [len(places), target_size, target_size, 3].
    """
    height, width = frames.shape[1:3]
    size = scaled_size(width, height, short_size)
    left, top = crop_corner(size, target_size, rng)
    flip = rng is not None and rng.random() < flip_ratio
    crops = np.empty((len(frames), target_size, target_size, 3), np.uint8)
    for crop, frame in zip(crops, frames):
        scaled = frame if size == (width, height) else resize(frame, size)
        cut = scaled[top : top + target_size, left : left + target_size]
        crop[:] = cut[:, ::-1] if flip else cut
    return crops[places]


def to_super_images(clip, seg_num):
    """[seg_num * seglen, H, W, 3] -> [seg_num, 3 * seglen, H, W]: a segment's frames stacked on the channel axis."""
    count, height, width, _ = clip.shape
    return np.ascontiguousarray(clip.transpose(0, 3, 1, 2)).reshape(seg_num, count // seg_num * 3, height, width)


def scaled_size(width, height, short_size):
    """(width, height) after scaling: short_size x 4/3 of it, the longer on the longer side; a square counts as wide.

    The aspect ratio is not kept: the released weights were trained so. Frames whose short side already has
    short_size stay as they are.
    """
    if min(width, height) == short_size:
        return width, height
    long_size = int(short_size * 4 / 3)
    return (short_size, long_size) if width < height else (long_size, short_size)


def crop_corner(size, target_size, rng=None):
    """(left, top) of the crop in an image of size (width, height): random, or the centre, rounded as the original."""
    room = size[0] - target_size, size[1] - target_size
    if rng is not None:
        return rng.randint(0, room[0]), rng.randint(0, room[1])
    return int(round(room[0] / 2.0)), int(round(room[1] / 2.0))


def resize(frame, size):
    """Antialiased bilinear resize of one uint8 frame [H, W, 3] to size (width, height).

    Pillow resizes one axis after the other and rounds in between. Which comes first has changed (since 13.0 the
    height, where it shrinks by much more than the width), so the order is fixed here: every Pillow gives the
    same bits.
    """
    height, width = frame.shape[:2]
    height_first = size[1] < height and height - size[1] > 2 * (width - size[0])
    between = (width, size[1]) if height_first else (size[0], height)
    image = Image.fromarray(frame).resize(between, Image.BILINEAR)
    return np.asarray(image.resize(size, Image.BILINEAR))
