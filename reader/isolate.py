"""Reading in a process that can be killed: a decoder that hangs or crashes costs one clip, not the run."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

from stnet.utils.processes import Child


class ReaderDied(Exception):
    """The reading process hung and was killed, or crashed; the message says which."""


def receive(child: Child, timeout: float) -> Any:
    """A child's next answer, or what it raised. Raises ReaderDied where it had to be given up: then it is gone."""
    try:
        return child.receive(timeout)
    except TimeoutError:
        child.kill()
        raise ReaderDied(f"reading took more than {timeout:g} s; the decoder was stopped") from None
    except EOFError:
        raise ReaderDied(f"the decoder {child.exit_reason()}") from None


class IsolatedReader:
    """Calls `read` in a forked process of its own; a new one is forked after it died.

    Args:
        read: function of one argument that returns (uint8 array of `shape`, label) or raises.
        shape: of the array; it travels through shared memory.
        timeout: seconds that one call may take.

    Used from one process only; the child ends when that process does.
    """

    def __init__(self, read: Callable[[Any], tuple[np.ndarray, Any]], shape: tuple[int, ...], timeout: float) -> None:
        self.read, self.timeout = read, timeout
        self.array = np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        self.child: Child | None = None

    def __call__(self, argument: Any) -> tuple[np.ndarray, Any]:
        """What `read(argument)` returns or raises. Raises ReaderDied when the child had to be given up."""
        if self.child is None:
            self.child = Child(self._fill)
        self.child.send([argument])
        try:
            label = receive(self.child, self.timeout)
        except ReaderDied:
            self.child = None
            raise
        return self.array.copy(), label

    def _fill(self, argument: Any) -> Any:
        """In the child: read into the shared memory. Returns the label."""
        self.array[...], label = self.read(argument)
        return label

    def close(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.kill()
            self.child = None
