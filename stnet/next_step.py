"""The last line of a run: the next command, written as this user types commands."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator

from stnet import flags, runtime
from stnet.config import PACKAGE
from stnet.utils.signals import Stopped, Terminated

logger = logging.getLogger("stnet")
_CARRIED = ("use_gpu", "engine", "weights_home", "weights_url")  # flags that the next command needs, too
_OF_THE_MACHINE = ("PYTHON", "CUDA_VISIBLE_DEVICES")  # variables that every command needs
_LEFT_OUT = ("model_name", "config", "resume", "overwrite")  # of a resuming command; `_program` writes the first two
_REPEATED = {flag.name for flag in flags.FLAGS if flag.kind == "list"}
_SCRIPTS = {
    "train": "train.py",
    "finetune": "finetune.py",
    "eval": "eval.py",
    "predict": "predict.py",
    "inference": "inference_model.py",
}


def suggest(args: argparse.Namespace, action: str, *words: str) -> None:
    """Log the command of the next action on the same model: `words`, and the flags typed now that apply to it, too."""
    typed, names = dict(args.typed), {flag.name for flag in flags.flags_of(action)}
    carried = [f"--{name}={typed[name]}" for name in _CARRIED if name in typed and name in names]
    carried += [f"--plugin={path}" for path in args.plugin]
    sections = ("MODEL.", f"{flags.SECTIONS[action]}.")
    overrides: list[str] = []
    for text in args.o:
        if text.startswith(sections):
            overrides += ["-o", text]
    given = _assignments(name for name in _CARRIED if name in names)
    logger.info("next: %s%s", given, shlex.join([*_program(args, action), *words, *carried, *overrides]))


@contextlib.contextmanager
def resumable(args: argparse.Namespace, resume: str = "") -> Iterator[None]:
    """Context in which a signal raises Stopped with the command that resumes the run: as typed, plus `resume`."""
    try:
        yield
    except Stopped as stop:
        raise Stopped(stop.number, _resume_command(args, resume)) from None
    except KeyboardInterrupt as stop:
        number = signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT
        raise Stopped(number, _resume_command(args, resume)) from None


def _resume_command(args: argparse.Namespace, resume: str) -> str:
    """Format the command line of this run, without flags that do not apply to resuming it, plus `resume`."""
    typed = {(name, value if name in _REPEATED else ""): value for name, value in args.typed if name not in _LEFT_OUT}
    words: list[str] = []
    for (name, _), value in typed.items():
        words += ["-o", str(value)] if name == "o" else [f"--{name}={value}"]
    switches = [flag for flag in flags.flags_of(args.action) if flag.kind == "switch" and getattr(args, flag.name)]
    words += [flag.typed for flag in switches if flag.name not in _LEFT_OUT]
    of_others = {flag.name for flag in flags.FLAGS} - {flag.name for flag in flags.flags_of(args.action)}
    given = _assignments(name for name in runtime.given() if name not in {*_LEFT_OUT, *of_others})
    videos = args.videos if args.action == "predict" else []
    return given + shlex.join([*_program(args, args.action), *videos, *words, *filter(None, [resume])])


def _assignments(names: Iterable[str]) -> str:
    """Variables that the user has set before `bash run.sh`, of these names or of _OF_THE_MACHINE."""
    given, wanted = runtime.given(), {*names, *_OF_THE_MACHINE}
    return "".join(f"{name}={shlex.quote(given[name])} " for name in given if name in wanted)


def suggest_deployed(args: argparse.Namespace) -> None:
    """Log the command that classifies a video with an exported model."""
    by_name = not runtime.typed() and sys.argv[0].endswith(".py")  # the user has typed a `python`
    python = "python" if by_name else min(sys.executable, os.path.relpath(sys.executable), key=len)
    words = [python, "-m", "stnet.tools.run_deployed", args.save_dir, "a.mp4"]
    checkout = os.path.dirname(PACKAGE)
    elsewhere = os.path.exists(f"{checkout}/run.sh") and os.path.realpath(os.getcwd()) != os.path.realpath(checkout)
    path = f"PYTHONPATH={shlex.quote(checkout)} " if elsewhere else ""
    logger.info("next: %s%s", path, shlex.join(words))


def _program(args: argparse.Namespace, action: str) -> list[str]:
    """First words of a command: program, action, model and configuration, as this user has typed them."""
    if runtime.typed():
        return [*runtime.typed().split(" ", 1), action, args.model_name, args.config]
    typed = dict(args.typed)
    model = [f"--{name}={typed[name]}" for name in ("model_name", "config") if name in typed]
    if sys.argv[0].endswith(".py"):
        return ["python", os.path.join(os.path.dirname(sys.argv[0]), _SCRIPTS[action]), *model]
    return ["stnet", action, *model]
