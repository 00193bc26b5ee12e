"""Errors of clips, and the conversion of decoders' exceptions to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from stnet.utils.errors import first_line

T = TypeVar("T")


class ClipError(Exception):
    """A clip cannot be read; the message is the reason, without the path."""

    expected = True  # a fault of the file, not a bug: no traceback is wanted


class NoVideo(ClipError):
    """A media file without video, such as music."""


class IndexMismatch(Exception):
    """Decoded frames do not match the index; the message is the reason."""


class CorruptVideo(Exception):
    """Data is damaged or incomplete; the message is the reason."""


@contextmanager
def decoding() -> Iterator[None]:
    """Convert any exception to CorruptVideo, or to ClipError where memory runs out.

    Decoders raise many types at damaged files. Only calls of a decoder belong within, so that bugs stay visible.
    """
    try:
        yield
    except (ClipError, CorruptVideo):
        raise
    except MemoryError:
        raise ClipError("decoding it takes more memory than it may have") from None
    except Exception as error:
        raise CorruptVideo(getattr(error, "strerror", None) or first_line(error)) from None


def decoded(items: Iterable[T]) -> Iterator[T]:
    """Iterate over packets or frames of a decoder. Raises as `decoding`."""
    iterator = iter(items)
    while True:
        with decoding():
            item = next(iterator, None)
        if item is None:
            return
        yield item
