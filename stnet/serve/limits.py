"""What a request may ask for, and how one is refused."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """The most that one request, and all of them together, may take."""

    bytes: int = 256 << 20  # of an upload
    seconds: float = 3600.0  # of a video
    frames: int = 120_000  # of a video
    pixels: int = 4096 * 2304  # of a frame
    request_seconds: float = 120.0  # from admission to the answer
    queue: int = 16  # requests accepted at once


class NotTaken(Exception):
    """The client does not read its answer."""


class Refused(Exception):
    """A request that gets no answer but the reason.

    Attributes:
        status: of HTTP.
        code: a word for programs.
        message: one plain line for people.
        retry_after: seconds after which it is worth another try; None: it is not, as it is.
    """

    expected = True  # the fault of a request, not of the code: it passes between processes without a traceback

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(status, code, message, retry_after)  # all of them: it is pickled
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def __str__(self) -> str:
        """The message."""
        return self.message
