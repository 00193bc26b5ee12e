"""StNet over the overlapping windows of a long video, and what each segment of a window adds to its logits.

What lies before the first temporal block belongs to one segment. A temporal block sees a segment between its two
neighbours, and nothing beyond the ends of a window: so after the first block only a window's first and last segment
differ from those of its neighbours, after the second one the first two and the last two. Here each value is known by
what it is made of, and so computed once, however many windows have it:

    pixels of a segment -> Segments -> (before, itself, after) -> Middle -> (before, itself, after) -> Last -> T vectors
    of a window -> Head -> features

The convolution of a temporal block is three products, one for each of the places a segment can have in it. The part
before the block gives all three, which leaves two additions for each surroundings; beyond an end nothing is added.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Optional

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from stnet.models.stnet.network import StNet, TemporalBlock
from stnet.models.streaming import Run

BEFORE, ITSELF, AFTER, INPUT = range(4)  # along axis 1 of what Segments and Middle give


class Segments(nn.Layer):
    """Normalised clips of one segment [N, 1, 3 * seglen, H, W] -> the terms of the first temporal block."""

    input_dtype = "float32"

    def __init__(self, network: StNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, clips: paddle.Tensor) -> paddle.Tensor:
        """[N, 4, C, h, w], see `terms`."""
        return terms(self.network.temporal1, self.network.stem(clips.squeeze(1)))


class Middle(nn.Layer):
    """Sums and inputs of the first temporal block [N, 2, C, h, w] -> the terms of the second [N, 4, C', h', w']."""

    input_dtype = "float32"

    def __init__(self, network: StNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, sums: paddle.Tensor) -> paddle.Tensor:
        """The third stage between two temporal blocks."""
        network = self.network
        return terms(network.temporal2, network.layer3(joined(network.temporal1, sums)))


class Last(nn.Layer):
    """Sums and inputs of the second temporal block [N, 2, C, h, w] -> pooled vectors [N, C']."""

    input_dtype = "float32"

    def __init__(self, network: StNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, sums: paddle.Tensor) -> paddle.Tensor:
        """The fourth stage."""
        network = self.network
        return network.pool(network.layer4(joined(network.temporal2, sums)))


class Head(nn.Layer):
    """Pooled vectors of windows [N, T, C] -> features [N, T, C / 2], whose maximum over T the classifier takes."""

    input_dtype = "float32"

    def __init__(self, network: StNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, vectors: paddle.Tensor) -> paddle.Tensor:
        """The temporal Xception block."""
        x = vectors.transpose([0, 2, 1]).unsqueeze(-1)  # [N, T, C] -> [N, C, T, 1]
        return self.network.xception(x).squeeze(-1).transpose([0, 2, 1])  # [N, C/2, T, 1] -> [N, T, C/2]


def terms(block: TemporalBlock, x: paddle.Tensor) -> paddle.Tensor:
    """What segments x [N, C, h, w] add to the block's convolution, [N, 4, C, h, w].

    BEFORE: to that of the segment after it; ITSELF: to its own, the bias included; AFTER: to that of the segment before
    it. INPUT: x.
    """
    weight, biases = block.conv.weight, (None, block.conv.bias, None)
    products = [F.conv2d(x, weight[:, :, place], biases[place]) for place in (BEFORE, ITSELF, AFTER)]
    return paddle.stack([*products, x], axis=1)


def joined(block: TemporalBlock, sums: paddle.Tensor) -> paddle.Tensor:
    """The block's output [N, C, h, w] for sums [N, 2, C, h, w]: those of the terms, and the inputs."""
    return block.bn(F.relu(sums[:, 0]).unsqueeze(2)).squeeze(2) + sums[:, 1]


class Value:
    """Something to be computed once, by the part of number `stage`.

    Attributes:
        inputs: what it is made of, None beyond an end of the window; given up as soon as it is computed.
        missing: how many of them are not computed yet.
        users: values that wait for this one.
        window: number of the window whose features it is; else -1.
    """

    def __init__(self, stage: int, number: int, inputs: Sequence[Optional[Value]], window: int = -1) -> None:
        self.stage, self.number, self.window = stage, number, window
        self.inputs: Sequence[Any] = inputs
        self.missing = 0
        self.users: list[Value] = []
        self.result: Any = None  # an array, as soon as it is computed
        for value in inputs:
            if value is not None and value.result is None:
                self.missing += 1
                value.users.append(self)


class StNetWindows:
    """See stnet.models.streaming.Windows. A value lives as long as something waits for it."""

    def __init__(self, runs: Sequence[Run], at_once: Sequence[int]) -> None:
        self.runs, self.at_once = runs, at_once
        self.numbers = itertools.count()
        self.known: weakref.WeakValueDictionary[Hashable, Value] = weakref.WeakValueDictionary()
        self.ready: list[list[Value]] = [[] for _ in runs]
        self.pixels: dict[int, np.ndarray] = {}  # number of a value -> what it is made of
        self.windows: set[Value] = set()
        self.finished: list[tuple[int, np.ndarray]] = []

    def add(self, window: int, segments: Sequence[Hashable]) -> None:
        """See stnet.models.streaming.Windows."""
        row: list[Value] = [self._value(0, segment, ()) for segment in segments]
        for stage in (1, 2):
            ends = [None, *row, None]
            row = [self._value(stage, None, ends[i : i + 3]) for i in range(len(row))]
        self.windows.add(self._waiting(Value(3, next(self.numbers), row, window)))

    def feed(self, segment: Hashable, pixels: np.ndarray) -> None:
        """See stnet.models.streaming.Windows."""
        value = self.known.get((0, segment))
        if value is not None and value.result is None and value.number not in self.pixels:
            self.pixels[value.number] = pixels
            self.ready[0].append(value)
            self._compute(whole_batches=True)

    def flush(self) -> None:
        """See stnet.models.streaming.Windows."""
        self._compute(whole_batches=False)

    def done(self) -> Iterator[tuple[int, np.ndarray]]:
        """See stnet.models.streaming.Windows."""
        while self.finished:
            yield self.finished.pop(0)

    def _value(self, stage: int, segment: Hashable, inputs: Sequence[Optional[Value]]) -> Value:
        """The value that a part makes of a segment, or of other values: a known one, if there is one."""
        name = (stage, tuple(value and value.number for value in inputs) or segment)
        value = self.known.get(name)
        if value is None:
            value = self.known[name] = Value(stage, next(self.numbers), inputs)
            if stage:
                self._waiting(value)
        return value

    def _waiting(self, value: Value) -> Value:
        if not value.missing:
            self.ready[value.stage].append(value)
        return value

    def _compute(self, whole_batches: bool) -> None:
        for stage, ready in enumerate(self.ready):
            while len(ready) >= (self.at_once[stage] if whole_batches else 1):
                batch = ready[: self.at_once[stage]]
                del ready[: len(batch)]
                for value, result in zip(batch, self.runs[stage](self._input(batch))):
                    self._finish(value, result)

    def _input(self, batch: list[Value]) -> np.ndarray:
        stage = batch[0].stage
        if stage == 0:
            return np.stack([self.pixels.pop(value.number) for value in batch])[:, None]
        if stage == 3:
            return np.stack([[vector.result for vector in value.inputs] for value in batch])
        shape = batch[0].inputs[ITSELF].result.shape[1:]
        sums = np.empty((len(batch), 2, *shape), np.float32)
        for row, value in zip(sums, batch):
            before, itself, after = value.inputs
            row[0] = itself.result[ITSELF]
            if before:
                row[0] += before.result[BEFORE]
            if after:
                row[0] += after.result[AFTER]
            row[1] = itself.result[INPUT]
        return sums

    def _finish(self, value: Value, result: np.ndarray) -> None:
        value.inputs = ()
        if value in self.windows:
            self.windows.remove(value)
            self.finished.append((value.window, result))
            return
        value.result = result
        for user in value.users:
            user.missing -= 1
            self._waiting(user)
        value.users = []


class StNetStreaming:
    """See stnet.models.streaming.Streaming.

    Args:
        network: in evaluation mode.
    """

    def __init__(self, network: StNet) -> None:
        self.network = network
        self.parts: Sequence[nn.Layer] = [part(network) for part in (Segments, Middle, Last, Head)]

    def windows(self, runs: Sequence[Run], at_once: Sequence[int]) -> StNetWindows:
        """See stnet.models.streaming.Streaming."""
        return StNetWindows(runs, at_once)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """See stnet.models.streaming.Streaming."""
        weight, bias = self._classifier()
        return features.max(axis=0) @ weight + bias

    def shares(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See stnet.models.streaming.Streaming."""
        weight, bias = self._classifier()
        return shares(features, weight), bias

    def _classifier(self) -> tuple[np.ndarray, np.ndarray]:
        return self.network.fc.weight.numpy(), self.network.fc.bias.numpy()


def shares(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """What each segment adds to each logit, [T, num_classes]: with the bias they sum to the logits.

    The classifier takes each channel from the segment where it is largest; of equal ones the first has it.

    Args:
        features: [T, C].
        weight: [C, num_classes] of the classifier.
    """
    taken = np.zeros_like(features)
    where = features.argmax(axis=0), np.arange(features.shape[1])
    taken[where] = features[where]
    return taken @ weight
