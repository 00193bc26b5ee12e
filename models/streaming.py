"""What a model brings that can score the overlapping windows of a long video without computing anything twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from paddle import nn

Run = Callable[[np.ndarray], np.ndarray]  # a part of a network, as some engine computes it


class Windows(Protocol):
    """Windows that are being computed, each made of segments which other windows may have, too."""

    def add(self, window: int, segments: Sequence[Hashable]) -> None:
        """Announce a window and the names of its segments, before any of those that are new is fed."""

    def feed(self, segment: Hashable, pixels: np.ndarray) -> None:
        """Give a segment's frames, uint8 [3 * seglen, H, W]; those that no window waits for are left out."""

    def flush(self) -> None:
        """Compute what waits for a batch to fill."""

    def done(self) -> Iterator[tuple[int, np.ndarray]]:
        """The windows computed since the last call, with their features [T, C]."""


class Streaming(Protocol):
    """A network cut into parts, the first of which takes clips of one segment, [N, 1, 3 * seglen, H, W].

    Each part is a layer with one input and one output, both with any number N of things along the first axis, that
    holds the very weights of the network.
    """

    parts: Sequence[nn.Layer]

    def windows(self, runs: Sequence[Run], at_once: Sequence[int]) -> Windows:
        """Begin. `runs` compute the parts, the first from uint8; `at_once` says how many things each is given."""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits [num_classes] of a window's features [T, C]."""

    def shares(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(what each segment adds to each logit [T, num_classes], what none of them adds [num_classes]); exact."""
