"""Errors that the user can fix: one readable line, no traceback."""

from __future__ import annotations

_LONGEST = 200  # characters of a line that another library wrote
# Hints of several files; stnet.cli leaves run.sh out where there is none, as in a wheel.
USE_PADDLE = "--engine=paddle always works"
INSTALL_ONNX = "bash run.sh setup onnx, or pip install 'paddle2onnx>=2.1' onnxruntime ml_dtypes"
INSTALL_OPENVINO = "bash run.sh setup openvino, or pip install 'openvino>=2024.0'"
MAKE_LISTS = "bash run.sh data makes lists, see data/dataset/README.md"


class UserError(Exception):
    """Wrong input or environment.

    Args:
        message: the fact: found and expected.
        hint: how to fix it, such as the flag or setting to change; "" if unknown.
    """

    expected = True  # not a bug: it passes from process to process without a traceback

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def first_line(error: BaseException) -> str:
    """First line of an error's message, where decord, for one, has the reason."""
    return _lines(error)[0]


def last_line(error: BaseException) -> str:
    """Last line of an error's message, where Paddle has the reason."""
    return _lines(error)[-1]


def _lines(error: BaseException) -> list[str]:
    """Lines of an error's message, without blank and ruled ones; its type if there are none."""
    lines = [line.strip()[:_LONGEST] for line in str(error).splitlines() if line.strip("- ")]
    return lines or [type(error).__name__]
