"""Standard streams: a run continues when they are closed or their reader ends; output of native code held back."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

_NO_READER = (errno.EPIPE, errno.EIO)  # the reader of a pipe has ended; the terminal is gone


class Lasting(io.FileIO):
    """A file descriptor for writing that drops text which cannot be written, as for `| head` or a full disk.

    Attributes:
        failure: the reason that text was lost; None if none was, or if its reader has ended.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        """Write; from the first failure on, drop all output of Python and native code."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in _NO_READER:
                self.failure = error
            _discard(self.fileno())
            return len(data)


def _discard(number: int) -> None:
    """Redirect a file descriptor to /dev/null."""
    null = os.open(os.devnull, os.O_RDWR)
    if null == number:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, number)
        os.close(null)


def prepare() -> None:
    """Open closed standard streams on /dev/null, so that no file takes their numbers; make the others `Lasting`.

    Streams that a caller has replaced stay.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            try:
                os.fstat(number)
            except OSError:  # closed
                _discard(number)
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
        elif number and stream is getattr(sys, f"__{name}__") and isinstance(stream, io.TextIOWrapper):
            stream.flush()
            buffer = io.BufferedWriter(Lasting(number, "w", closefd=False))
            by_line = stream.line_buffering or stream.write_through or number == 2
            stream = io.TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=by_line)
        setattr(sys, name, stream)


def lost() -> str:
    """The reason that standard output could not be written; "" if it could, or if its reader has ended."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if isinstance(raw, Lasting):
        sys.stdout.flush()
    failure = getattr(raw, "failure", None)
    return (failure.strerror or str(failure)) if failure else ""


@contextlib.contextmanager
def stdout_held_back() -> Iterator[None]:
    """Hold back standard output, also of native code, within this context; an error shows it on standard error."""
    if sys.stdout is None:  # closed: its number may be another file's
        yield
        return
    sys.stdout.flush()
    saved = os.dup(1)
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as held:
        os.dup2(held.fileno(), 1)
        try:
            with contextlib.redirect_stdout(held):
                yield
        except (Exception, SystemExit):
            _flush_native()
            held.seek(0)
            sys.stderr.write(held.read())
            raise
        finally:
            _flush_native()
            os.dup2(saved, 1)
            os.close(saved)


def _flush_native() -> None:
    ctypes.CDLL(None).fflush(None)
