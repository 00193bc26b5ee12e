"""Bilinear resizing with Pillow's exact result, several frames at a time: sums of whole rows and columns by OpenCV.

Pillow multiplies bytes by weights of 22 bits, adds them up in integers, and rounds halves up. `Enlarger` blends two
rows or columns in float32, with weights for which every pair of bytes gives Pillow's. `Shrinker` rounds each float32
sum twice: once after subtracting the most that it can be wrong by, once after adding it. Where both agree, that is
Pillow's byte; the few others are added up in integers.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

CHUNK = 25  # frames enlarged together: many, as each call costs, but not more than the processor's cache holds
MAX_RATIO = 200  # old rows or columns for a new one: float32 is not exact enough for longer sums
_UNIT = 1 << 22  # Pillow's weights are integer multiples of 1 / _UNIT
_NUDGE = 2.0**-14  # Pillow rounds n + 1/2 up, also where float32 is a little below it
_ERROR = 2.0**-14  # that one step adds to a sum at most: four roundings of float32, each of 2**-24 of 256
_BYTES = 12 << 20  # of the frames that are shrunk together: many, as each call costs, but memory is not free

Blend = tuple[int, int, float, float]  # two old rows or columns, and the weights of both
_buffers = threading.local()


def _buffer(name: str, *shape: int, dtype: Any = np.uint8) -> np.ndarray:
    """Uninitialised array, in memory that the thread's next call with this name reuses: allocating takes longer."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if getattr(_buffers, name, np.empty(0)).nbytes < size:
        setattr(_buffers, name, np.empty(size, np.uint8))
    return getattr(_buffers, name)[:size].view(dtype).reshape(shape)


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
        """Fill planes, uint8 [K, 3, h, w], with the K frames taken since the last time.

        One call blends a column, or row, of all frames: the axis is brought to the front, to be contiguous in memory.
        """
        import cv2

        frames = np.stack(self.frames)
        self.frames.clear()
        count, height, width, _ = frames.shape
        # [K, H, W, 3] -> [W, 3K, H]
        transposed = _buffer("transposed", width, 3 * count, height)
        cv2.transpose(frames.reshape(count * height, width * 3), dst=transposed.reshape(width * 3, count * height))
        wide = _buffer("wide", len(self.columns), 3 * count, height)
        _blend(transposed, self.columns, wide)
        # [w, 3K, H] -> [H, 3K, w], where the colours of a frame are adjacent
        transposed = _buffer("transposed", height, 3 * count, len(self.columns))
        for i in range(3 * count):
            colour, frame = divmod(i, count)
            cv2.transpose(wide[:, i], dst=transposed[:, 3 * frame + colour])
        # [K, 3, h, w] -> [h, 3K, w]
        lines = planes.reshape(3 * count, len(self.rows), len(self.columns)).transpose(1, 0, 2)
        _blend(transposed, self.rows, lines)


def _blend(lines: np.ndarray, blends: Sequence[Blend], out: np.ndarray) -> None:
    """Fill out[i], uint8 [M, N], with the i-th of the blends of `lines`."""
    import cv2

    for line, (first, second, share, rest) in zip(out, blends):
        cv2.addWeighted(lines[first], share, lines[second], rest, _NUDGE, dst=line)


@functools.cache
def blends_of(length: int, scaled: int) -> list[Blend] | None:
    """Blends by which Pillow's bilinear filter enlarges `length` pixels to `scaled`.

    Returns:
        for each new pixel the two old ones that it blends, and the weights for cv2.addWeighted; None if `scaled` is
        smaller, or no weights give Pillow's result.
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

    float32 can only differ from Pillow's integers where the sum is next to n + 1/2, and there the rounding of the
    weights to 22 bits decides, by as little as 1 / _UNIT. So that rounding is exaggerated until all 65,536 pairs of
    bytes are right, with a margin on both sides for processors that round a float sum differently.
    """
    import cv2

    fixed = [int(weight * _UNIT + 0.5) for weight in (share, rest)]
    byte = np.arange(256, dtype=np.int32)
    sums = _buffer("sums", 256, 256, dtype=np.int32)
    np.add(byte[:, None] * fixed[0], byte * fixed[1] + _UNIT // 2, out=sums)
    pillows = np.right_shift(sums, 22, out=sums).astype(np.uint8)
    first, second = _every_two_bytes()
    for factor in (1, 64, 512):
        weights = [weight + factor * (whole / _UNIT - weight) for weight, whole in zip((share, rest), fixed)]
        opencvs = [cv2.addWeighted(first, weights[0], second, weights[1], _NUDGE * margin) for margin in (0.5, 1.5)]
        if all(np.array_equal(blended, pillows) for blended in opencvs):
            return weights
    return None


@functools.cache
def _every_two_bytes() -> np.ndarray:
    return np.indices((256, 256), np.uint8)


class Sum(NamedTuple):
    """A new row or column: `first` and the old ones after it, each times its weight, in units of 1 / _UNIT."""

    first: int
    weights: list[int]
    shares: list[float]  # of each weight in those up to it


class Shrinker:
    """Shrinks frames of one shape.

    Args:
        columns, rows: the sums (see sums_of) of old ones that make the new ones.
        frames: how many there will be.

    Attributes:
        together: how many frames it takes at most, before `fill`.
    """

    def __init__(self, columns: Sequence[Sum], rows: Sequence[Sum], frames: int) -> None:
        self.columns, self.rows = columns, rows
        (self.left, right), (self.top, self.bottom) = _span(columns), _span(rows)
        height, width = self.bottom - self.top, right - self.left
        times = math.ceil(frames * 3 * width * height / _BYTES)
        self.together = math.ceil(frames / times)
        self.transposed = np.empty((3 * width, self.together, height), np.uint8)  # [3W, K, H]
        self.count = 0

    def add(self, frame: np.ndarray) -> None:
        """Take a frame, uint8 [H, W, 3]; its memory may be used again afterwards."""
        import cv2

        width = len(self.transposed)
        flat = np.ascontiguousarray(frame).reshape(len(frame), -1)  # [H, 3W]
        crop = flat[self.top : self.bottom, 3 * self.left : 3 * self.left + width]
        cv2.transpose(crop, dst=self.transposed[:, self.count])
        self.count += 1

    def fill(self, planes: np.ndarray) -> None:
        """Fill planes, uint8 [count, 3, h, w], with the frames taken since the last time."""
        import cv2

        _, most, height = self.transposed.shape
        columns = _sums("wide", self.transposed.reshape(-1, 3 * most * height), self.columns, self.left)
        wide = columns.reshape(-1, 3, most, height)
        transposed = _buffer("transposed", height, self.count, 3, len(wide))
        for place in range(self.count):
            for colour in range(3):
                cv2.transpose(wide[:, colour, place], dst=transposed[:, place, colour])
        lines = _sums("lines", transposed.reshape(height, -1), self.rows, self.top)
        planes[...] = lines.reshape(-1, self.count, 3, len(wide)).transpose(1, 2, 0, 3)
        self.count = 0


def _span(sums: Sequence[Sum]) -> tuple[int, int]:
    """The first of the old rows or columns that any sum needs, and the one after the last."""
    return min(one.first for one in sums), max(one.first + len(one.weights) for one in sums)


def _sums(name: str, lines: np.ndarray, sums: Sequence[Sum], origin: int) -> np.ndarray:
    """The sums, uint8 [len(sums), N], of lines, uint8 [M, N], of which the first is the old one number `origin`."""
    import cv2

    size = lines.shape[1]
    low, high = _buffer(name, len(sums), size), _buffer("high", len(sums), size)
    mean = _buffer("mean", 1, size, dtype=np.float32)
    mean.fill(0)
    rows = list(lines[:, None])
    for (first, weights, shares), lower, upper in zip(sums, low[:, None], high[:, None]):
        for line, share in enumerate(shares, first - origin):
            cv2.accumulateWeighted(rows[line], mean, share)
        scale, error = sum(weights) / _UNIT, (len(weights) + 1) * _ERROR
        cv2.convertScaleAbs(mean, lower, scale, -error)
        cv2.convertScaleAbs(mean, upper, scale, error)
    _add_in_integers(low, np.flatnonzero(low != high), lines, sums, origin)
    return low


def _add_in_integers(out: np.ndarray, places: np.ndarray, lines: np.ndarray, sums: Sequence[Sum], origin: int) -> None:
    """Fill out.flat[places] with Pillow's integer sums."""
    line, column = np.divmod(places, out.shape[1])
    first = np.array([one.first - origin for one in sums])[line]
    longest = max(len(one.weights) for one in sums)
    weights = np.array([one.weights + [0] * (longest - len(one.weights)) for one in sums], np.int64)[line]
    total = np.full(len(places), _UNIT // 2)
    for step in range(longest):
        total += weights[:, step] * lines[np.minimum(first + step, len(lines) - 1), column]
    out[line, column] = total // _UNIT


@functools.cache
def sums_of(length: int, scaled: int) -> list[Sum]:
    """Sums by which Pillow's bilinear filter shrinks `length` pixels to `scaled`."""
    sums, scale = [], length / scaled
    for i in range(scaled):
        centre = (i + 0.5) * scale
        first, end = max(0, int(centre - scale + 0.5)), min(length, int(centre + scale + 0.5))
        shares = [max(0.0, 1 - abs((old - centre + 0.5) * (1 / scale))) for old in range(first, end)]
        total = functools.reduce(operator.add, shares)  # as Pillow does: sum() is more exact since Python 3.12
        weights = [int(share / total * _UNIT + 0.5) for share in shares]
        while not weights[-1]:
            weights.pop()
        skipped = next(place for place, weight in enumerate(weights) if weight)
        weights = weights[skipped:]
        shares = [weight / total for weight, total in zip(weights, itertools.accumulate(weights))]
        sums.append(Sum(first + skipped, weights, shares))
    return sums
