"""Time of `predict.py --help`."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from benchmarks.timer import ROOT, Run, Timer, run


def startup(timer: Timer) -> None:
    """Time whole programs."""
    commands = {
        "predict.py --help (aim: at most 0.5 s)": [str(ROOT / "predict.py"), "--help"],
        "python -c 'import paddle'": ["-c", "import paddle"],
        "python -c pass": ["-c", "pass"],
    }
    timer.table("one program", timer.time({name: partial(start, *words) for name, words in commands.items()}))


def start(*arguments: str) -> Run:
    """Contender: Python with these arguments."""
    return lambda: subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL) and None


if __name__ == "__main__":
    sys.exit(run(startup))
