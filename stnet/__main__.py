"""The command `stnet`: every entry of the checkout by one name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from stnet import __version__
from stnet.utils import streams

USAGE = """\
stnet ACTION [flags]      stnet ACTION --help lists an action's flags

  stnet train             train a model
  stnet finetune          train on your own videos, in one command
  stnet eval              score weights on a labelled list
  stnet predict           classify videos
  stnet inference         export a model for a server
  stnet serve             a page and an API
  stnet data              make, check, pack and show data sets

  stnet --version         the version"""
ACTIONS = {  # script in a checkout, and module
    "train": ("train.py", "stnet.train"),
    "finetune": ("finetune.py", "stnet.finetune"),
    "eval": ("eval.py", "stnet.eval"),
    "predict": ("predict.py", "stnet.predict"),
    "inference": ("inference_model.py", "stnet.inference_model"),
    "serve": ("serve_model.py", "stnet.serve_model"),
    "data": ("-m tools.dataset", "stnet.tools.dataset.__main__"),
}


def start(argv: Sequence[str] | None) -> int | None:
    """Run the action that the command line names. Returns its exit code."""
    action = sys.argv[1]
    typed, name = ACTIONS[action]
    module = importlib.import_module(name)
    module.__doc__ = (module.__doc__ or "").replace(f"python {typed}", f"stnet {action}")
    sys.argv[:2] = [f"stnet {action}"]  # for the usage line
    code: int | None = module.main(argv)
    return code


def main() -> int:
    """Run the command. Returns the exit code."""
    streams.prepare()
    action = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if action in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if action in ("-V", "--version"):
        print(f"stnet {__version__}")
        return 0
    if action not in ACTIONS:
        print(f"error: unknown action {action!r}; known: {', '.join(ACTIONS)}", file=sys.stderr)
        return 2
    from stnet import cli  # reads YAML: late, so that --help is instant

    return cli.run(start)


if __name__ == "__main__":
    sys.exit(main())
