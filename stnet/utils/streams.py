"""Standard output and error that may be closed, or whose reader may leave: a run goes on and writes its files."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any

_LEFT = (errno.EPIPE, errno.EIO)  # the reader of a pipe has ended; the terminal is gone


class Lasting(io.FileIO):
    """A file descriptor for writing that drops the text where nobody can take it, as for `| head` or a full disk.

    Attributes:
        failure: why text was lost; None where none was, or where its reader has left.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or from the first failure on drop, what Python and native code print."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _LEFT:
                self.failure = error
            _discard(self.fileno())
            return len(data)


def _discard(number: int) -> None:
    """Let a file descriptor lead to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, number)
        os.close(null)


def prepare() -> None:
    """Open standard streams that are closed, lest a file or a socket takes their numbers, and have the others last.

    Streams that a caller has put in their place stay.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            if not _is_open(number):
                _discard(number)
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
        elif number and stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            buffer = io.BufferedWriter(Lasting(number, "w", closefd=False))
            by_line = stream.line_buffering or stream.write_through or number == 2
            stream = io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=by_line)
        setattr(sys, name, stream)


def lost() -> str:
    """Why standard output could not be written; "" where it could, or where its reader has left."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Lasting):
        sys.stdout.flush()
    failure = getattr(raw, "failure", None)
    return (failure.strerror or str(failure)) if failure else ""


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
