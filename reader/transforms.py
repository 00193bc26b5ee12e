"""Scale, crop and flip, one clip at a time. Pure functions; what is random comes from the `rng` they are given."""

import functools
import math
import threading

import numpy as np
from PIL import Image

_UNIT = 1 << 22  # Pillow's weights are whole multiples of 1 / _UNIT
_NUDGE = 2.0**-14  # Pillow rounds n + 1/2 up, also where float32 falls a little short of it
_CHUNK = 25  # frames enlarged together: many, as each call costs, but not more than the processor's cache holds
_scratch = threading.local()  # see _memory


def make_clip(frames, places, short_size, target_size, rng=None, flip_ratio=0.5):
    """Frames as the network sees them, before normalisation.

    Args:
        frames: uint8 [K, H, W, 3] RGB, the distinct frames.
        places: for each frame of the clip, its row in `frames`.
        short_size, target_size: pixels; scale the short side to the first, then crop a square of the second.
        rng: random.Random for training (random crop, then flip); None takes the centre.
        flip_ratio: share of training clips that are mirrored; 0 where left and right make a difference.

    Returns:
        uint8 [len(places), target_size, target_size, 3]; each colour lies by itself in memory, so that
        to_super_images copies nothing.
    """
    height, width = frames.shape[1:3]
    size = scaled_size(width, height, short_size)
    if target_size > min(size):
        raise ValueError(f"no square of {target_size} pixels fits into {size[0]} x {size[1]}")
    left, top = crop_corner(size, target_size, rng)
    flip = rng is not None and rng.random() < flip_ratio
    box = left, top, left + target_size, top + target_size
    frames, size, box = _shrink_one_axis(np.ascontiguousarray(frames), size, box)
    planes = np.empty((len(frames), 3, target_size, target_size), np.uint8)
    _fill(planes, frames, size, box, flip)
    if not np.array_equal(places, np.arange(len(planes))):
        planes = planes[places]
    return planes.transpose(0, 2, 3, 1)  # [N, 3, H, W] -> [N, H, W, 3]


def _shrink_one_axis(frames, size, box):
    """Where one axis shrinks and the other grows: (frames, size, box) after the first, which is left to Pillow."""
    height, width = frames.shape[1:3]
    left, top, right, bottom = box
    if size[0] < width and size[1] > height:
        frames = [resize(frame, (size[0], height), (left, 0, right, height)) for frame in frames]
        return np.stack(frames), (right - left, size[1]), (0, top, right - left, bottom)
    if size[0] > width and size[1] < height:
        frames = [resize(frame, (width, size[1]), (0, top, width, bottom)) for frame in frames]
        return np.stack(frames), (size[0], bottom - top), (left, 0, right, bottom - top)
    return frames, size, box


def _fill(planes, frames, size, box, flip):
    """Fill planes, uint8 [K, 3, H, W], with the box of each frame scaled to `size`, mirrored if `flip`."""
    height, width = frames.shape[1:3]
    blends = None if size == (width, height) else (_blends_of(width, size[0]), _blends_of(height, size[1]))
    if blends is None or None in blends:
        _fill_one_by_one(planes, frames, size, box, flip)
        return
    left, top, right, bottom = box
    columns, rows = blends[0][left:right], blends[1][top:bottom]
    if flip:
        columns = columns[::-1]
    for i in range(0, len(frames), _CHUNK):
        _fill_enlarged(planes[i : i + _CHUNK], frames[i : i + _CHUNK], columns, rows)


def _fill_one_by_one(planes, frames, size, box, flip):
    """_fill for frames that keep their size or shrink."""
    import cv2  # late: a list can be read, and --help shown, without it

    left, top, right, bottom = box
    for frame, colours in zip(frames, planes):
        as_it_is = size == (frame.shape[1], frame.shape[0])
        crop = frame[top:bottom, left:right] if as_it_is else resize(frame, size, box)
        # OpenCV 5 can take seven times as long to split a crop that does not lie together in memory
        crop = cv2.flip(crop, 1) if flip else np.ascontiguousarray(crop)
        cv2.split(crop, list(colours))  # [H, W, 3] -> [3, H, W]


def _fill_enlarged(planes, frames, columns, rows):
    """_fill for frames that grow: `columns` and `rows` are the blends of the old ones that make the new ones.

    One call blends a column, or row, of all frames: what it blends is turned so that it lies together in memory.
    """
    import cv2

    count, height, width, _ = frames.shape
    # [K, H, W, 3] -> [W, 3K, H]
    turned = _memory("turned", width, 3 * count, height)
    cv2.transpose(frames.reshape(count * height, width * 3), dst=turned.reshape(width * 3, count * height))
    wide = _memory("wide", len(columns), 3 * count, height)
    _blend(turned, columns, wide)
    # [w, 3K, H] -> [H, 3K, w], where now the colours of a frame lie together
    turned = _memory("turned", height, 3 * count, len(columns))
    for i in range(3 * count):
        colour, frame = divmod(i, count)
        cv2.transpose(wide[:, i], dst=turned[:, 3 * frame + colour])
    lines = planes.reshape(3 * count, len(rows), len(columns)).transpose(1, 0, 2)  # [K, 3, h, w] -> [h, 3K, w]
    _blend(turned, rows, lines)


def _memory(name, *shape):
    """uint8 array, uninitialised, in memory that the thread's next call uses again: fresh memory costs more time."""
    size = math.prod(shape)
    if getattr(_scratch, name, np.empty(0)).size < size:
        setattr(_scratch, name, np.empty(size, np.uint8))
    return getattr(_scratch, name)[:size].reshape(shape)


def _blend(lines, blends, out):
    """Fill out[i], uint8 [M, N], with the i-th of the blends of `lines`."""
    import cv2

    for line, (first, second, share, rest) in zip(out, blends):
        cv2.addWeighted(lines[first], share, lines[second], rest, _NUDGE, dst=line)


@functools.cache
def _blends_of(length, scaled):
    """How Pillow's bilinear filter makes `scaled` pixels out of `length`, where these are not more.

    Returns:
        list of (index, index, weight, weight): for each new pixel the two old ones that it blends, and the weights
        for cv2.addWeighted; None if there are more old pixels, or Pillow's bits cannot be had so.
    """
    if scaled < length:
        return None
    blends = []
    for i in range(scaled):
        centre = (i + 0.5) * (length / scaled)
        first = max(int(centre - 0.5), 0)
        second = min(first + 1, length - 1)
        share = max(0.0, 1 - abs(first - centre + 0.5))
        rest = max(0.0, 1 - abs(second - centre + 0.5)) if second > first else 0.0
        weights = _float_weights(share / (share + rest), rest / (share + rest))
        if weights is None:
            return None
        blends.append((first, second, *weights))
    return blends


@functools.cache
def _float_weights(share, rest):
    """Weights with which cv2.addWeighted makes of every two bytes what Pillow makes of them; None if none are found.

    Pillow rounds its weights to 22 bits, adds up integers and rounds halves up. float32 can only differ from that
    where the sum is next to n + 1/2, and there the rounding of the weights decides, by as little as 1 / _UNIT. So
    what the rounding did to the weights is exaggerated until all 65,536 pairs of bytes come out right, with room on
    both sides for processors that round a float sum differently.
    """
    import cv2

    fixed = [int(weight * _UNIT + 0.5) for weight in (share, rest)]
    byte = np.arange(256, dtype=np.int32)
    sums = _memory("sums", 256, 4 * 256).view(np.int32)
    np.add(byte[:, None] * fixed[0], byte * fixed[1] + _UNIT // 2, out=sums)
    wanted = np.right_shift(sums, 22, out=sums).astype(np.uint8)
    first, second = _every_two_bytes()
    for factor in (1, 64, 512):
        weights = [weight + factor * (whole / _UNIT - weight) for weight, whole in zip((share, rest), fixed)]
        found = [cv2.addWeighted(first, weights[0], second, weights[1], _NUDGE * room) for room in (0.5, 1.5)]
        if all(np.array_equal(one, wanted) for one in found):
            return weights
    return None


@functools.cache
def _every_two_bytes():
    return np.indices((256, 256), np.uint8)


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


def resize(frame, size, box=None):
    """Antialiased bilinear resize of one uint8 frame [H, W, 3] to size (width, height), or a box of the result.

    Pillow resizes one axis after the other and rounds in between. Which comes first has changed (since 13.0 the
    height, where it shrinks by much more than the width), so the order is fixed here: every Pillow gives the
    same bits. What lies outside the box (left, top, right, bottom) is cut off after each pass.
    """
    height, width = frame.shape[:2]
    left, top, right, bottom = box or (0, 0, *size)
    height_first = size[1] < height and height - size[1] > 2 * (width - size[0])
    image = Image.fromarray(frame)
    if height_first:
        image = image.resize((width, size[1]), Image.BILINEAR).crop((0, top, width, bottom))
        image = image.resize((size[0], bottom - top), Image.BILINEAR).crop((left, 0, right, bottom - top))
    else:
        image = image.resize((size[0], height), Image.BILINEAR).crop((left, 0, right, height))
        image = image.resize((right - left, size[1]), Image.BILINEAR).crop((0, top, right - left, bottom))
    return np.asarray(image)
