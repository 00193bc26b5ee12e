"""What can be wrong with a clip, and whatever a decoder raises as one of these errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from stnet.utils.errors import first_line

T = TypeVar("T")


class ClipError(Exception):
    """A clip cannot be read; the message is the reason, without the path."""

    expected = True  # the fault of a file, not of the code: no traceback is wanted


class NoVideo(ClipError):
    """A media file without video, such as a piece of music."""


class IndexMismatch(Exception):
    """The frames did not come as the index says; the message is the reason."""


class CorruptVideo(Exception):
    """The decoder met data that is not whole; the message is the reason."""


@contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever is raised within into CorruptVideo: at unsound files PyAV raises IndexError, too, for example.

    Only calls of a decoder belong within, so that a bug of ours stays one.

    Raises:
        ClipError: the memory does not suffice.
        CorruptVideo
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
    """Packets or frames as a decoder gives them. Raises as `decoding`."""
    iterator = iter(items)
    while True:
        with decoding():
            item = next(iterator, None)
        if item is None:
            return
        yield item
