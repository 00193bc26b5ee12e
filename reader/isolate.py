"""Read clips in a child process: a decoder that hangs or crashes costs one clip, not the run."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Any

import numpy as np

from stnet.utils.processes import Child


class ReaderDied(Exception):
    """The child process timed out and was killed, or crashed; the message says which."""


def receive(child: Child, timeout: float) -> Any:
    """Receive a child's next answer, or raise its exception. Raises ReaderDied if it timed out or crashed."""
    try:
        return child.receive(timeout)
    except TimeoutError:
        child.kill()
        raise ReaderDied(f"reading took more than {timeout:g} s; the decoder was stopped") from None
    except EOFError:
        raise ReaderDied(f"the decoder {child.exit_reason()}") from None


class IsolatedReader:
    """Calls `read` in a forked child process, and forks a new one after it died.

    Args:
        read: function of one argument that returns (uint8 array of `shape`, label) or raises.
        shape: of the array, which is passed through shared memory.
        timeout: seconds for one call.

    Used from one process only; the child ends when that process does.
    """

    def __init__(self, read: Callable[[Any], tuple[np.ndarray, Any]], shape: tuple[int, ...], timeout: float) -> None:
        self.read, self.timeout = read, timeout
        self.array = np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        self.child: Child | None = None

    def __call__(self, argument: Any) -> tuple[np.ndarray, Any]:
        """Return `read(argument)`, or raise its exception. Raises ReaderDied if the child timed out or crashed."""
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
