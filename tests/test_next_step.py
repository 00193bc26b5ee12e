"""The next command is said as this user types commands, with what the model needs."""

import shlex
import sys

import pytest

from stnet import flags, next_step
from stnet.utils.signals import Stopped, Terminated


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


@pytest.mark.parametrize(("raised", "message"), [(Terminated(15), "SIGTERM"), (KeyboardInterrupt(), "SIGINT")])
def test_a_run_that_is_stopped_says_how_to_go_on(raised, message, monkeypatch):
    monkeypatch.delenv("STNET_TYPED", raising=False)
    monkeypatch.setattr(sys, "argv", ["../predict.py"])
    typed = ["a b.mp4", "--overwrite", "--config=c.yaml", "--output=r.csv", "-o", "INFER.views=3", "-o", "MODEL.topk=2"]
    args = flags.parse("predict", None, [*typed, "c d", "--video_path=e", "--explain", "--video_path=f"])
    with (
        pytest.raises(Stopped, match=f"^stopped by {message}; to go on: ") as stop,
        next_step.resumable(args, "--resume"),
    ):
        raise raised
    assert stop.value.code == {"SIGTERM": 143, "SIGINT": 130}[message]
    assert shlex.split(str(stop.value).partition("to go on: ")[2]) == [
        "python", "../predict.py", "--config=c.yaml", "a b.mp4", "c d", "--output=r.csv", "-o", "INFER.views=3", "-o",
        "MODEL.topk=2", "--video_path=e", "--video_path=f", "--explain", "--resume",
    ]  # fmt: skip


def test_training_that_is_stopped_goes_on_by_run_sh(monkeypatch):
    monkeypatch.setenv("STNET_TYPED", "bash run.sh")
    args = flags.parse("train", None, ["--model_name=STNET", "--config=c", "--resume=old.pdparams", "--epoch=3"])
    with pytest.raises(Stopped) as stop, next_step.resumable(args, "--resume=auto"):
        raise Stopped(2)
    assert str(stop.value) == "stopped by SIGINT; to go on: bash run.sh train STNET c --epoch=3 --resume=auto"


def test_settings_given_in_the_environment_of_run_sh_go_along(monkeypatch, caplog):
    monkeypatch.setenv("STNET_TYPED", "bash run.sh")
    given = {"epoch": "30", "save_dir": "my run", "use_gpu": "False", "resume": "old", "video_path": "a.mp4"}
    for name, value in {**given, "log_interval": "10"}.items():
        monkeypatch.setenv(f"STNET_SET_{name}", value)
    for name, value in given.items():  # log_interval: run.sh's own default
        monkeypatch.setenv(name, value)
    args = flags.parse("train", None, ["--model_name=STNET", "--config=c"])
    with pytest.raises(Stopped) as stop, next_step.resumable(args, "--resume=auto"):
        raise Stopped(2)
    command = "epoch=30 save_dir='my run' use_gpu=False bash run.sh train STNET c --resume=auto"
    assert str(stop.value) == f"stopped by SIGINT; to go on: {command}"
    caplog.set_level("INFO")
    next_step.suggest(args, "eval", "--weights=w")
    assert caplog.messages[-1] == "next: use_gpu=False bash run.sh eval STNET c --weights=w"
