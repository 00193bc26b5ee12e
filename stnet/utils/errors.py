"""Errors that are the user's to mend: one readable line, no traceback."""

from __future__ import annotations

_LONGEST = 200  # characters of a line that another library wrote


class UserError(Exception):
    """Wrong input or surroundings. The message says what was found and what was expected.

    Args:
        message: the fact, without a word of flags: a lower room does not know which program it serves.
        topic: key of stnet.advice.ADVICE, from which an entry says which flag or setting mends it; "" where none does.
    """

    expected = True  # not a fault of the code: it passes from process to process without a traceback

    def __init__(self, message: str, topic: str = "") -> None:
        super().__init__(message)
        self.topic = topic


def first_line(error: BaseException) -> str:
    """The first line of an error's message, where decord, for one, says what is wrong."""
    return _lines(error)[0]


def last_line(error: BaseException) -> str:
    """The last line of an error's message, where Paddle says what is wrong."""
    return _lines(error)[-1]


def _lines(error: BaseException) -> list[str]:
    """Lines of an error's message, without blank and ruled ones; its type where there is none."""
    lines = [line.strip()[:_LONGEST] for line in str(error).splitlines() if line.strip("- ")]
    return lines or [type(error).__name__]
