import os
import subprocess
import sys
from pathlib import Path

import paddle
import pytest

from stnet import runtime
from stnet.utils.errors import UserError

PROJECT = Path(__file__).parents[1]


class Card:
    """What paddle says of a card that this build may hold no code for; the arithmetic runs on the CPU."""

    def __init__(self, monkeypatch, wrong):
        real, calls = paddle.nn.functional.conv2d, []

        def conv2d(*args):
            calls.append(args)
            if len(calls) == 1 and wrong is not None:
                if isinstance(wrong, Exception):
                    raise wrong
                return real(*args) * wrong
            return real(*args)

        monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
        monkeypatch.setattr(paddle, "set_device", lambda name: None)
        monkeypatch.setattr(paddle.version, "cuda", lambda: "11.8")
        monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(paddle.device.cuda, "get_device_name", lambda: "NVIDIA H200")
        monkeypatch.setattr(paddle.device.cuda, "get_device_capability", lambda: (9, 0))
        monkeypatch.setattr(paddle.nn.functional, "conv2d", conv2d)


def test_a_card_that_computes_right_is_taken(monkeypatch):
    Card(monkeypatch, None)
    runtime.start(use_gpu=True)


@pytest.mark.parametrize("wrong", [0.0, float("nan"), 1.1, RuntimeError("no kernel image is available")])
def test_a_build_without_code_for_the_card_is_refused(monkeypatch, wrong):
    Card(monkeypatch, wrong)
    message = (
        r"use_gpu is True, but this Paddle \(.*CUDA 11.8\) does not work on NVIDIA H200 \(compute capability 9.0\)"
    )
    with pytest.raises(UserError, match=message):
        runtime.start(use_gpu=True)


def test_auto_falls_back_to_the_cpu_and_says_why(monkeypatch, caplog):
    caplog.set_level("INFO")
    Card(monkeypatch, 0.0)
    runtime.start(use_gpu="auto")
    assert "running on the CPU (this Paddle" in caplog.text
    assert "gives wrong numbers" in caplog.text


def test_variables_that_the_user_set_are_left_alone():
    code = "from stnet import runtime; runtime.prepare(); import os; print(os.environ.get('MKL_DEBUG_CPU_TYPE'))"
    for given in ("4", "5"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "MKL_DEBUG_CPU_TYPE": given},
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == given
