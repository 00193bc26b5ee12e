"""What the tests of the list-making commands share."""

import argparse
import json


def call(module, *argv):
    """The exit code of a list-making command."""
    parser = argparse.ArgumentParser()
    module.add_parser(parser.add_subparsers(dest="command"))
    args = parser.parse_args([module.__name__.rpartition(".")[2], *map(str, argv)])
    return args.run(args)


def write(path, text="x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def lines(path):
    return path.read_text(encoding="utf-8").splitlines()


def report(out):
    return json.loads((out / "lists_report.json").read_text(encoding="utf-8"))


def numbers(out):
    """Per part: (clips, present, missing, unreadable)."""
    return {part: tuple(counts.values()) for part, counts in report(out)["clips"].items()}
