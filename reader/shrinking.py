"""Shrinking frames with Pillow's bits, several at a time: weighted sums of whole rows and columns by OpenCV.

Pillow multiplies bytes by weights of 22 bits, adds them up, and rounds. Here float32 sums are rounded twice: once
after taking off more than they can be wrong by, once after adding it. Where both agree, that is Pillow's byte; the few
others are added up in whole numbers.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stnet.reader.scratch import memory

_UNIT = 1 << 22  # Pillow's weights are whole multiples of 1 / _UNIT
_ERROR = 2.0**-14  # that one step adds to a sum at most: four roundings of float32, each of 2**-24 of 256
_BYTES = 12 << 20  # of the frames that are shrunk together: many, as each call costs, but memory is not free


MOST = 200  # old rows or columns for a new one: float32 cannot tell sums of very many


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
        self.turned = np.empty((3 * width, self.together, height), np.uint8)  # frames; what is missing is any bytes
        self.count = 0

    def add(self, frame: np.ndarray) -> None:
        """Take a frame, uint8 [H, W, 3]; its memory may be used again afterwards."""
        import cv2

        width = len(self.turned)
        flat = np.ascontiguousarray(frame).reshape(len(frame), -1)  # [H, 3W]
        crop = flat[self.top : self.bottom, 3 * self.left : 3 * self.left + width]
        cv2.transpose(crop, dst=self.turned[:, self.count])
        self.count += 1

    def fill(self, planes: np.ndarray) -> None:
        """Fill planes, uint8 [count, 3, h, w], with the frames taken since the last time."""
        import cv2

        _, most, height = self.turned.shape
        columns = _added("wide", self.turned.reshape(-1, 3 * most * height), self.columns, self.left)
        wide = columns.reshape(-1, 3, most, height)
        turned = memory("turned", height, self.count, 3, len(wide))
        for place in range(self.count):
            for colour in range(3):
                cv2.transpose(wide[:, colour, place], dst=turned[:, place, colour])
        lines = _added("lines", turned.reshape(height, -1), self.rows, self.top)
        planes[...] = lines.reshape(-1, self.count, 3, len(wide)).transpose(1, 2, 0, 3)
        self.count = 0


def _span(sums: Sequence[Sum]) -> tuple[int, int]:
    """The first of the old rows or columns that any sum needs, and the one after the last."""
    return min(one.first for one in sums), max(one.first + len(one.weights) for one in sums)


def _added(name: str, lines: np.ndarray, sums: Sequence[Sum], origin: int) -> np.ndarray:
    """The sums, uint8 [len(sums), N], of lines, uint8 [M, N], of which the first is the old one number `origin`."""
    import cv2

    size = lines.shape[1]
    low, high = memory(name, len(sums), size), memory("high", len(sums), size)
    mean = memory("mean", 1, size, dtype=np.float32)
    mean.fill(0)
    rows = list(lines[:, None])
    for (first, weights, shares), lower, upper in zip(sums, low[:, None], high[:, None]):
        for line, share in enumerate(shares, first - origin):
            cv2.accumulateWeighted(rows[line], mean, share)
        scale, error = sum(weights) / _UNIT, (len(weights) + 1) * _ERROR
        cv2.convertScaleAbs(mean, lower, scale, -error)
        cv2.convertScaleAbs(mean, upper, scale, error)
    _add_exactly(low, np.flatnonzero(low != high), lines, sums, origin)
    return low


def _add_exactly(out: np.ndarray, places: np.ndarray, lines: np.ndarray, sums: Sequence[Sum], origin: int) -> None:
    """Fill out.flat[places] with what Pillow's whole numbers give."""
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
    """How Pillow's bilinear filter makes `scaled` pixels out of `length`, which are not fewer."""
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
