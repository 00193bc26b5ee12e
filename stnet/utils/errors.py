"""Errors that are the user's to mend: one readable line, no traceback."""

from __future__ import annotations

_LONGEST = 200  # characters of a line that another library wrote
# Hints that several files give. Where there is no run.sh, in a wheel, stnet.cli leaves it out.
USE_PADDLE = "--engine=paddle always works"
INSTALL_ONNX = "bash run.sh setup onnx, or pip install 'paddle2onnx>=2.1' onnxruntime ml_dtypes"
INSTALL_OPENVINO = "bash run.sh setup openvino, or pip install 'openvino>=2024.0'"
MAKE_LISTS = "bash run.sh data makes lists, see data/dataset/README.md"


class UserError(Exception):
    """Wrong input or surroundings. The message says what was found and what was expected.

    Args:
        message: the fact.
        hint: what to do about it, such as the flag or setting to change; "" where nothing is known.
    """

    expected = True  # not a fault of the code: it passes from process to process without a traceback

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


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
