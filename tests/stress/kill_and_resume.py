"""Kill training runs at random moments, resume them, and compare every loss with an uninterrupted run.

PYTHONPATH=. python tests/stress/kill_and_resume.py --runs 20

Draws a few clips into a temporary folder and trains a small StNet on them, with worker processes. Half of the runs
are killed by SIGKILL at a random time; the others kill themselves inside a random file system call (fsync or rename)
while a checkpoint is being written. Each is then resumed with --resume auto, and its losses, step by step, must be the
very numbers of the run that was never interrupted. Exit code 1 if one differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import yaml

from stnet.tools.demo_clips import write_set
from stnet.training.log import read_journal
from stnet.utils import streams

PROJECT = Path(__file__).resolve().parents[2]

# Runs train.py, but for the N-th call of fsync or of a rename, which kills the process before or after doing its work.
_SELF_KILLING = """
import os, runpy, signal, sys
count = int(sys.argv[1])
def deadly(call, before):
    def called(*args, **options):
        global count
        count -= 1
        if count == 0 and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*args, **options)
        if count == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return called
os.fsync, os.replace = deadly(os.fsync, count % 2), deadly(os.replace, count % 3)
os.rename = deadly(os.rename, count % 3)
sys.argv = sys.argv[2:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def prepare(folder: str | Path, clips: int = 6) -> Path:
    """Clips, lists and a configuration; returns the configuration's path."""
    write_set(str(folder), train=clips, val=1, seed=0)
    reading = {"short_size": 32, "target_size": 32, "num_reader_threads": 2, "batch_size": 4}
    config = {
        "MODEL": {"name": "STNET", "num_classes": 6, "num_layers": 18, "seg_num": 2, "seglen": 2, "labels": ""},
        "TRAIN": {**reading, "epoch": 2, "use_gpu": False, "filelist": f"{folder}/train.list", "save_interval": 2},
        "VALID": {**reading, "filelist": f"{folder}/val.list"},
        "TEST": {**reading, "filelist": f"{folder}/val.list"},
        "INFER": {**reading, "filelist": f"{folder}/infer.list"},
    }  # fmt: skip
    path = Path(folder) / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def command(config: str | Path, save_dir: str | Path, resume: bool = True) -> list[str]:
    """train.py, every step logged."""
    words = [str(PROJECT / "train.py"), f"--config={config}", f"--save_dir={save_dir}", "--log_interval=1"]
    words += ["--pretrain=none", "--fix_random_seed=True"]
    return words + (["--resume=auto"] if resume else [])


def losses(save_dir: str | Path) -> dict[int, float]:
    """Step -> loss of a run."""
    return {row["step"]: row["loss"] for row in read_journal(f"{save_dir}/train_log.jsonl") if row["kind"] == "train"}


def run(words: list[str], log: TextIO) -> None:
    """Run to the end. Raises RuntimeError with the end of the log when it fails."""
    if subprocess.run([sys.executable, *words], stdout=log, stderr=subprocess.STDOUT, check=False).returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{Path(log.name).read_text(encoding='utf-8')[-2000:]}")


def kill_by_clock(words: list[str], seconds: float, log: TextIO) -> bool:
    """Start, wait, SIGKILL. Returns whether it was still running."""
    process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=subprocess.STDOUT)
    time.sleep(seconds)
    process.kill()
    return process.wait() == -signal.SIGKILL


def kill_in_a_call(words: list[str], count: int, log: TextIO) -> bool:
    """Let the process kill itself in its `count`-th file system call. Returns whether it came to that."""
    process = subprocess.run(
        [sys.executable, "-c", _SELF_KILLING, str(count), *words], stdout=log, stderr=subprocess.STDOUT, check=False
    )
    return process.returncode == -signal.SIGKILL


def trial(number: int, config: Path, save_dir: str, duration: float, log: TextIO) -> str:
    """One run, killed and resumed. Returns what was done to it, in words."""
    rng = random.Random(number)
    if number % 2:
        seconds = rng.uniform(0.3, 0.95) * duration
        hit = kill_by_clock(command(config, save_dir), seconds, log)
        fate = f"SIGKILL after {seconds:.1f} s"
    else:
        count = rng.randrange(1, 90)
        hit = kill_in_a_call(command(config, save_dir), count, log)
        fate = f"killed in file system call {count}"
    reached = max(losses(save_dir), default=0)
    left = len([name for name in os.listdir(save_dir) if ".writing-" in name]) if os.path.isdir(save_dir) else 0
    run(command(config, save_dir), log)
    return f"{fate}{'' if hit else ' (too late: it had ended)'}, at step {reached}, {left} half-written files"


def main() -> int:
    """Command line. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="number of the first run, the seed of its fate")
    args = parser.parse_args()
    different = 0
    with tempfile.TemporaryDirectory() as folder, open(os.path.join(folder, "log"), "w", encoding="utf-8") as log:
        config = prepare(folder)
        began = time.monotonic()
        run(command(config, f"{folder}/whole", resume=False), log)
        duration, expected = time.monotonic() - began, losses(f"{folder}/whole")
        print(f"uninterrupted: {len(expected)} steps, {duration:.1f} s", flush=True)
        for number in range(args.first, args.first + args.runs):
            save_dir = f"{folder}/run{number}"
            fate = trial(number, config, save_dir, duration, log)
            same = losses(save_dir) == expected
            left = [name for name in os.listdir(save_dir) if ".writing-" in name]
            different += not same or bool(left)
            print(f"run {number}: {fate}; resumed: {'identical' if same else 'DIFFERENT'}", flush=True)
    print(f"{args.runs - different} of {args.runs} identical")
    return 1 if different else 0


if __name__ == "__main__":
    streams.prepare()
    sys.exit(main())
