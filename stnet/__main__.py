"""The command `stnet`: every entry of the checkout by one name."""

import sys

USAGE = """\
stnet ACTION [flags]      stnet ACTION --help lists an action's flags

  stnet train             train a model
  stnet eval              score weights on a labelled list
  stnet predict           classify videos
  stnet inference         export a model for a server
  stnet data              make, check, pack and show data sets"""
ACTIONS = {
    "train": "train.py",
    "eval": "eval.py",
    "predict": "predict.py",
    "inference": "inference_model.py",
    "data": "-m tools.dataset",
}


def entry(action):
    """The module of an action."""
    if action == "train":
        import train as module
    elif action == "eval":
        import eval as module
    elif action == "predict":
        import predict as module
    elif action == "inference":
        import inference_model as module
    else:
        import tools.dataset.__main__ as module
    return module


def main():
    """Run the action that the command line names. Returns the exit code."""
    action = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if action in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if action not in ACTIONS:
        print(f"error: unknown action {action!r}; known: {', '.join(ACTIONS)}", file=sys.stderr)
        return 2
    from core import cli

    module = entry(action)
    module.__doc__ = (module.__doc__ or "").replace(f"python {ACTIONS[action]}", f"stnet {action}")
    sys.argv[:2] = [f"stnet {action}"]  # what the usage line says
    return cli.run(module.main)


if __name__ == "__main__":
    sys.exit(main())
