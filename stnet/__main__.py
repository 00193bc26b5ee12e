"""The command `stnet`: every entry of the checkout by one name."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

USAGE = """\
stnet ACTION [flags]      stnet ACTION --help lists an action's flags

  stnet train             train a model
  stnet eval              score weights on a labelled list
  stnet predict           classify videos
  stnet inference         export a model for a server
  stnet serve             a page and an API
  stnet data              make, check, pack and show data sets

  stnet --version         the version"""
ACTIONS = {
    "train": "train.py",
    "eval": "eval.py",
    "predict": "predict.py",
    "inference": "inference_model.py",
    "serve": "serve_model.py",
    "data": "-m tools.dataset",
}


def entry(action: str) -> ModuleType:
    """The module of an action."""
    if action == "train":
        import train as train_module

        return train_module
    if action == "eval":
        import eval as eval_module

        return eval_module
    if action == "predict":
        import predict as predict_module

        return predict_module
    if action == "inference":
        import inference_model as inference_module

        return inference_module
    if action == "serve":
        import serve_model as serve_module

        return serve_module
    import tools.dataset.__main__ as data_module

    return data_module


def start(argv: Sequence[str] | None) -> int | None:
    """Run the action that the command line names. Returns its exit code."""
    action = sys.argv[1]
    module = entry(action)
    module.__doc__ = (module.__doc__ or "").replace(f"python {ACTIONS[action]}", f"stnet {action}")
    sys.argv[:2] = [f"stnet {action}"]  # what the usage line says
    code: int | None = module.main(argv)
    return code


def main() -> int:
    """The command. Returns the exit code."""
    from core import streams

    streams.prepare()
    action = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if action in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if action in ("-V", "--version"):
        from stnet import __version__

        print(f"stnet {__version__}")
        return 0
    if action not in ACTIONS:
        print(f"error: unknown action {action!r}; known: {', '.join(ACTIONS)}", file=sys.stderr)
        return 2
    from core import cli

    return cli.run(start)


if __name__ == "__main__":
    sys.exit(main())
