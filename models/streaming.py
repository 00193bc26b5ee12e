"""Interface of models that score overlapping windows of a long video, computing shared parts once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from paddle import nn

Run = Callable[["np.ndarray"], "np.ndarray"]  # part of a network, computed by an engine


class Windows(Protocol):
    """Computes windows of segments, which windows may share."""

    def add(self, window: int, segments: Sequence[Hashable]) -> None:
        """Request a window by the names of its segments, before new ones are fed."""

    def feed(self, segment: Hashable, pixels: np.ndarray) -> None:
        """Take a segment's frames, uint8 [3 * seglen, H, W]; ignored if no window waits for them."""

    def flush(self) -> None:
        """Compute incomplete batches."""

    def done(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the windows computed since the last call, with their features [T, C]."""


class Streaming(Protocol):
    """Network in stages, the first of which takes clips of one segment, [N, 1, 3 * seglen, H, W].

    Each part is a layer that shares the weights of the network, with one input and one output, batched by N.
    """

    parts: Sequence[nn.Layer]

    def windows(self, runs: Sequence[Run], at_once: Sequence[int]) -> Windows:
        """Begin to compute windows: `runs` compute the parts, the first from uint8, in batches of `at_once`."""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits [num_classes] of a window's features [T, C]."""

    def shares(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact shares of the logits: (of each segment [T, num_classes], of none [num_classes])."""
