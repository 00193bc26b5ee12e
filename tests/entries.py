"""The entries, called in this process."""

import re

import eval as eval_entry
import finetune
import inference_model
import predict
import train
from stnet import cli

ENTRIES = {"train": train, "eval": eval_entry, "predict": predict, "finetune": finetune}


def run(entry, *argv):
    """The exit code of an entry."""
    return cli.run(entry.main, [str(a) for a in argv])


def failing(entry, message, capsys, *argv):
    """The entry fails with exit code 1 and one readable line."""
    assert run(ENTRIES[entry], *argv) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert re.search(message, error), error


__all__ = ["ENTRIES", "eval_entry", "failing", "finetune", "inference_model", "predict", "run", "train"]
