"""The last line of a run: what to do next, as this user types commands."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys

from core import flags, runtime
from core.config import PROJECT

logger = logging.getLogger("stnet")
_CARRIED = ("use_gpu", "engine", "weights_home", "weights_url")  # flags that the next command needs, too
_SCRIPTS = {"train": "train.py", "eval": "eval.py", "predict": "predict.py", "inference": "inference_model.py"}


def suggest(args: argparse.Namespace, action: str, *words: str) -> None:
    """Log the command of the next action on the same model: `words`, and what was typed now and holds there, too."""
    typed, names = dict(args.typed), {flag.name for flag in flags.flags_of(action)}
    carried = [f"--{name}={typed[name]}" for name in _CARRIED if name in typed and name in names]
    carried += [f"--plugin={path}" for path in args.plugin]
    sections = ("MODEL.", f"{flags.SECTIONS[action]}.")
    overrides = [word for text in args.o if text.startswith(sections) for word in ("-o", text)]
    logger.info("next: %s", shlex.join([*_start(args, action), *words, *carried, *overrides]))


def suggest_deployed(args: argparse.Namespace) -> None:
    """Log the command that classifies a video with an exported model."""
    module = f"{__name__.rpartition('core.')[0]}tools.run_deployed"  # below `stnet` in a wheel
    by_name = not runtime.typed() and sys.argv[0].endswith(".py")  # the user has typed a `python`
    words = ["python" if by_name else _short(sys.executable), "-m", module, args.save_dir, "a.mp4"]
    elsewhere = module.startswith("tools") and os.path.realpath(os.getcwd()) != os.path.realpath(PROJECT)
    path = f"PYTHONPATH={shlex.quote(PROJECT)} " if elsewhere else ""
    logger.info("next: %s%s", path, shlex.join(words))


def _start(args: argparse.Namespace, action: str) -> list[str]:
    if runtime.typed():
        return [*runtime.typed().split(" ", 1), action, args.model_name, args.config]
    typed = dict(args.typed)
    model = [f"--{name}={typed[name]}" for name in ("model_name", "config") if name in typed]
    if sys.argv[0].endswith(".py"):
        return ["python", os.path.join(os.path.dirname(sys.argv[0]), _SCRIPTS[action]), *model]
    return ["stnet", action, *model]


def _short(path: str) -> str:
    return min(path, os.path.relpath(path), key=len)
