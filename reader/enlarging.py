"""Enlarging frames with Pillow's bits, several at a time: blends of whole rows and columns by OpenCV."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from stnet.reader.scratch import memory

CHUNK = 25  # frames enlarged together: many, as each call costs, but not more than the processor's cache holds
_UNIT = 1 << 22  # Pillow's weights are whole multiples of 1 / _UNIT
_NUDGE = 2.0**-14  # Pillow rounds n + 1/2 up, also where float32 falls a little short of it

Blend = tuple[int, int, float, float]  # two old rows or columns, and the weights of both


class Enlarger:
    """Enlarges frames of one shape.

    Args:
        columns, rows: the blends (see blends_of) of old ones that make the new ones.

    Attributes:
        together: how many frames it takes at most, before `fill`.
    """

    together = CHUNK

    def __init__(self, columns: Sequence[Blend], rows: Sequence[Blend]) -> None:
        self.columns, self.rows = columns, rows
        self.frames: list[np.ndarray] = []

    def add(self, frame: np.ndarray) -> None:
        """Take a frame, uint8 [H, W, 3]; it is kept until `fill`."""
        self.frames.append(frame)

    def fill(self, planes: np.ndarray) -> None:
        """Fill planes, uint8 [count, 3, h, w], with the frames taken since the last time."""
        _enlarge(planes, np.stack(self.frames), self.columns, self.rows)
        self.frames.clear()


def _enlarge(planes: np.ndarray, frames: np.ndarray, columns: Sequence[Blend], rows: Sequence[Blend]) -> None:
    """Fill planes, uint8 [K, 3, h, w], with frames, uint8 [K, H, W, 3].

    One call blends a column, or row, of all frames: what it blends is turned so that it lies together in memory.
    """
    import cv2

    count, height, width, _ = frames.shape
    # [K, H, W, 3] -> [W, 3K, H]
    turned = memory("turned", width, 3 * count, height)
    cv2.transpose(frames.reshape(count * height, width * 3), dst=turned.reshape(width * 3, count * height))
    wide = memory("wide", len(columns), 3 * count, height)
    _blend(turned, columns, wide)
    # [w, 3K, H] -> [H, 3K, w], where now the colours of a frame lie together
    turned = memory("turned", height, 3 * count, len(columns))
    for i in range(3 * count):
        colour, frame = divmod(i, count)
        cv2.transpose(wide[:, i], dst=turned[:, 3 * frame + colour])
    lines = planes.reshape(3 * count, len(rows), len(columns)).transpose(1, 0, 2)  # [K, 3, h, w] -> [h, 3K, w]
    _blend(turned, rows, lines)


def _blend(lines: np.ndarray, blends: Sequence[Blend], out: np.ndarray) -> None:
    """Fill out[i], uint8 [M, N], with the i-th of the blends of `lines`."""
    import cv2

    for line, (first, second, share, rest) in zip(out, blends):
        cv2.addWeighted(lines[first], share, lines[second], rest, _NUDGE, dst=line)


@functools.cache
def blends_of(length: int, scaled: int) -> list[Blend] | None:
    """How Pillow's bilinear filter makes `scaled` pixels out of `length`, where these are not more.

    Returns:
        for each new pixel the two old ones that it blends, and the weights for cv2.addWeighted; None if there are
        more old pixels, or Pillow's bits cannot be had so.
    """
    if scaled < length:
        return None
    blends: list[Blend] = []
    for i in range(scaled):
        centre = (i + 0.5) * (length / scaled)
        first = max(int(centre - 0.5), 0)
        second = min(first + 1, length - 1)
        share = max(0.0, 1 - abs(first - centre + 0.5))
        rest = max(0.0, 1 - abs(second - centre + 0.5)) if second > first else 0.0
        weights = _float_weights(share / (share + rest), rest / (share + rest))
        if weights is None:
            return None
        blends.append((first, second, weights[0], weights[1]))
    return blends


@functools.cache
def _float_weights(share: float, rest: float) -> list[float] | None:
    """Weights with which cv2.addWeighted makes of every two bytes what Pillow makes of them; None if none are found.

    Pillow rounds its weights to 22 bits, adds up integers and rounds halves up. float32 can only differ from that
    where the sum is next to n + 1/2, and there the rounding of the weights decides, by as little as 1 / _UNIT. So
    what the rounding did to the weights is exaggerated until all 65,536 pairs of bytes come out right, with room on
    both sides for processors that round a float sum differently.
    """
    import cv2

    fixed = [int(weight * _UNIT + 0.5) for weight in (share, rest)]
    byte = np.arange(256, dtype=np.int32)
    sums = memory("sums", 256, 256, dtype=np.int32)
    np.add(byte[:, None] * fixed[0], byte * fixed[1] + _UNIT // 2, out=sums)
    pillows = np.right_shift(sums, 22, out=sums).astype(np.uint8)
    first, second = _every_two_bytes()
    for factor in (1, 64, 512):
        weights = [weight + factor * (whole / _UNIT - weight) for weight, whole in zip((share, rest), fixed)]
        opencvs = [cv2.addWeighted(first, weights[0], second, weights[1], _NUDGE * room) for room in (0.5, 1.5)]
        if all(np.array_equal(blended, pillows) for blended in opencvs):
            return weights
    return None


@functools.cache
def _every_two_bytes() -> np.ndarray:
    return np.indices((256, 256), np.uint8)
