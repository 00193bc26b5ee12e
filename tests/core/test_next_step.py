"""The next command is said as this user types commands, with what the model needs."""

import shlex
import sys

import pytest

from core import flags, next_step


def words_after(caplog, *argv, action="eval"):
    """What follows training by these words."""
    caplog.set_level("INFO")
    next_step.suggest(flags.parse("train", None, argv), action, "--weights=w")
    return shlex.split(caplog.messages[-1].partition("next: ")[2])


@pytest.mark.parametrize(
    ("typed", "program", "expected"),
    [
        ("bash ../my run.sh", "/x/train.py", ["bash", "../my run.sh", "eval", "STNET", "a b.yaml"]),
        ("", "../train.py", ["python", "../eval.py", "--model_name=STNET", "--config=a b.yaml"]),
        ("", "stnet train", ["stnet", "eval", "--model_name=STNET", "--config=a b.yaml"]),
    ],
)
def test_each_way_to_start_is_kept(typed, program, expected, monkeypatch, caplog):
    monkeypatch.setenv("STNET_TYPED", typed)
    monkeypatch.setattr(sys, "argv", [program])
    assert words_after(caplog, "--model_name=STNET", "--config=a b.yaml") == [*expected, "--weights=w"]


def test_what_was_typed_for_the_model_goes_along_and_what_is_of_training_does_not(monkeypatch, caplog):
    monkeypatch.delenv("STNET_TYPED", raising=False)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    typed = ["--epoch=3", "--batch_size=4", "--use_gpu=False", "--plugin=p.py", "--save_dir=s"]
    overrides = ["-o", "MODEL.seglen=2", "-o", "TRAIN.amp=O1", "-o", "TEST.seg_num=3"]
    assert words_after(caplog, *typed, *overrides) == [
        "python", "eval.py", "--weights=w", "--use_gpu=False", "--plugin=p.py", "-o", "MODEL.seglen=2", "-o",
        "TEST.seg_num=3",
    ]  # fmt: skip
