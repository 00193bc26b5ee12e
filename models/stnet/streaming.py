"""StNet over the overlapping windows of a long video, and the shares of a window's segments in its logits.

Layers before the first temporal block see one segment. A temporal block adds the two neighbours within the window: so
after the first block only the first and last segment of overlapping windows differ, after the second the first two and
the last two. Each value is identified by its inputs, and computed once for all windows that share it:

    pixels of a segment -> Segments -> (before, itself, after) -> Middle -> (before, itself, after) -> Last -> T vectors
    of a window -> Head -> features

The convolution of a temporal block is the sum of three products, one for each position of a segment in it. The part
before the block computes all three, and they are added for each combination of neighbours.
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

BEFORE, ITSELF, AFTER, INPUT = range(4)  # along axis 1 of the outputs of Segments and Middle


class Part(nn.Layer):
    """Part of a network, with its weights."""

    input_dtype = "float32"

    def __init__(self, network: StNet) -> None:
        super().__init__()
        self.network = network


class Segments(Part):
    """Normalised clips of one segment [N, 1, 3 * seglen, H, W] -> the terms of the first temporal block."""

    def forward(self, clips: paddle.Tensor) -> paddle.Tensor:
        """Return [N, 4, C, h, w], see `terms`."""
        return terms(self.network.temporal1, self.network.stem(clips.squeeze(1)))


class Middle(Part):
    """Sums and inputs of the first temporal block [N, 2, C, h, w] -> the terms of the second [N, 4, C', h', w']."""

    def forward(self, sums: paddle.Tensor) -> paddle.Tensor:
        """Run the third stage."""
        network = self.network
        return terms(network.temporal2, network.layer3(joined(network.temporal1, sums)))


class Last(Part):
    """Sums and inputs of the second temporal block [N, 2, C, h, w] -> pooled vectors [N, C']."""

    def forward(self, sums: paddle.Tensor) -> paddle.Tensor:
        """Run the fourth stage."""
        network = self.network
        return network.pool(network.layer4(joined(network.temporal2, sums)))


class Head(Part):
    """Pooled vectors of windows [N, T, C] -> features [N, T, C / 2], whose maximum over T the classifier takes."""

    def forward(self, vectors: paddle.Tensor) -> paddle.Tensor:
        """Run the temporal Xception block."""
        x = vectors.transpose([0, 2, 1]).unsqueeze(-1)  # [N, T, C] -> [N, C, T, 1]
        return self.network.xception(x).squeeze(-1).transpose([0, 2, 1])  # [N, C/2, T, 1] -> [N, T, C/2]


def terms(block: TemporalBlock, x: paddle.Tensor) -> paddle.Tensor:
    """Terms of segments x [N, C, h, w] in the block's convolution, [N, 4, C, h, w].

    BEFORE: in that of the next segment; ITSELF: in its own, bias included; AFTER: in that of the previous segment.
    INPUT: x.
    """
    weight, biases = block.conv.weight, (None, block.conv.bias, None)
    products = [F.conv2d(x, weight[:, :, place], biases[place]) for place in (BEFORE, ITSELF, AFTER)]
    return paddle.stack([*products, x], axis=1)


def joined(block: TemporalBlock, sums: paddle.Tensor) -> paddle.Tensor:
    """Output [N, C, h, w] of the block for [N, 2, C, h, w]: the sums of the terms, and the inputs."""
    return block.bn(F.relu(sums[:, 0]).unsqueeze(2)).squeeze(2) + sums[:, 1]


class Value:
    """Output of part `stage`, computed once.

    Attributes:
        inputs: values, None beyond an end of the window; freed as soon as it is computed.
        missing: number of inputs that are not computed yet.
        users: values that wait for this one.
        window: number of the window whose features it is; else -1.
    """

    def __init__(self, stage: int, number: int, inputs: Sequence[Optional[Value]], window: int = -1) -> None:
        self.stage, self.number, self.window = stage, number, window
        self.inputs: Sequence[Any] = inputs
        self.missing = 0
        self.users: list[Value] = []
        self.result: Any = None  # array, once computed
        for value in inputs:
            if value is not None and value.result is None:
                self.missing += 1
                value.users.append(self)


class StNetWindows:
    """Windows of stnet.models.streaming. A value is kept while another waits for it."""

    def __init__(self, runs: Sequence[Run], at_once: Sequence[int]) -> None:
        self.runs, self.at_once = runs, at_once
        self.numbers = itertools.count()
        self.known: weakref.WeakValueDictionary[Hashable, Value] = weakref.WeakValueDictionary()
        self.ready: list[list[Value]] = [[] for _ in runs]
        self.pixels: dict[int, np.ndarray] = {}  # of values of stage 0, by number
        self.windows: set[Value] = set()
        self.finished: list[tuple[int, np.ndarray]] = []

    def add(self, window: int, segments: Sequence[Hashable]) -> None:
        """Request a window."""
        row: list[Value] = [self._value(0, segment, ()) for segment in segments]
        for stage in (1, 2):
            ends = [None, *row, None]
            row = [self._value(stage, None, ends[i : i + 3]) for i in range(len(row))]
        self.windows.add(self._queue_if_ready(Value(3, next(self.numbers), row, window)))

    def feed(self, segment: Hashable, pixels: np.ndarray) -> None:
        """Take a segment's frames."""
        value = self.known.get((0, segment))
        if value is not None and value.result is None and value.number not in self.pixels:
            self.pixels[value.number] = pixels
            self.ready[0].append(value)
            self._compute(whole_batches=True)

    def flush(self) -> None:
        """Compute incomplete batches."""
        self._compute(whole_batches=False)

    def done(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the computed windows."""
        while self.finished:
            yield self.finished.pop(0)

    def _value(self, stage: int, segment: Hashable, inputs: Sequence[Optional[Value]]) -> Value:
        """Value of a part for a segment, or for other values: the known one, if there is one."""
        name = (stage, tuple(value and value.number for value in inputs) or segment)
        value = self.known.get(name)
        if value is None:
            value = self.known[name] = Value(stage, next(self.numbers), inputs)
            if stage:
                self._queue_if_ready(value)
        return value

    def _queue_if_ready(self, value: Value) -> Value:
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
            self._queue_if_ready(user)
        value.users = []


class StNetStreaming:
    """Streaming of stnet.models.streaming, for a network in evaluation mode."""

    def __init__(self, network: StNet) -> None:
        self.network = network
        self.parts: Sequence[nn.Layer] = [part(network) for part in (Segments, Middle, Last, Head)]

    def windows(self, runs: Sequence[Run], at_once: Sequence[int]) -> StNetWindows:
        """Begin to compute windows."""
        return StNetWindows(runs, at_once)

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits of a window's features."""
        weight, bias = self._classifier()
        return features.max(axis=0) @ weight + bias

    def shares(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Shares of segments and bias in the logits."""
        weight, bias = self._classifier()
        return shares(features, weight), bias

    def _classifier(self) -> tuple[np.ndarray, np.ndarray]:
        return self.network.fc.weight.numpy(), self.network.fc.bias.numpy()


def shares(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Share of each segment in each logit, [T, num_classes]: with the bias they sum to the logits.

    Each channel counts for the segment where it is largest, of equal ones the first.

    Args:
        features: [T, C].
        weight: [C, num_classes] of the classifier.
    """
    taken = np.zeros_like(features)
    where = features.argmax(axis=0), np.arange(features.shape[1])
    taken[where] = features[where]
    return taken @ weight
