"""Holding back what foreign code prints, so that standard output has results alone."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def stdout_held_back() -> Iterator[None]:
    """Hold back what is written to standard output, also by native code; should the work fail, show it as an error."""
    if sys.stdout is None:  # of a program without standard output, whose number may be another file's
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
            _flush()
            held.seek(0)
            sys.stderr.write(held.read())
            raise
        finally:
            _flush()
            os.dup2(saved, 1)
            os.close(saved)


def _flush() -> None:
    ctypes.CDLL(None).fflush(None)  # native code's own buffer
