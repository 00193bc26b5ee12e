"""Accuracy and seconds with few clips a class: the head alone, then all layers, and all layers from random values.

The demo's network, trained on six motions, learns four others from 5, 10 and 20 clips of each; 100 of each are held
out. Each training and evaluation is a command of its own; seconds are those of the whole command.

python -m benchmarks.small_data --pretrain=demo/checkpoints/STNET_final.pdparams   # after bash run.sh demo
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from statistics import mean, stdev

from benchmarks.motions import MOTIONS, write_motions
from benchmarks.timer import ROOT

COUNTS = (5, 10, 20)  # training clips of each class
_COMMON = f"MODEL.num_classes={len(MOTIONS)} MODEL.labels= TRAIN.total_videos=0 TRAIN.num_reader_threads=2"
_HEAD = (
    "TRAIN.epoch=40 TRAIN.freeze=backbone TRAIN.augmented_views=4 TRAIN.optimizer=adamw TRAIN.schedule=cosine "
    "TRAIN.learning_rate=0.003 TRAIN.l2_weight_decay=0.01 TRAIN.label_smoothing=0.1"
)
_ALL = (
    "TRAIN.epoch=10 TRAIN.optimizer=adamw TRAIN.schedule=cosine TRAIN.learning_rate=0.0003 TRAIN.l2_weight_decay=0.01"
)
_RANDOM = "TRAIN.epoch=40 TRAIN.schedule=cosine TRAIN.learning_rate=0.01"


def main() -> int:
    """Train and evaluate for each number of clips and seed, and print a table. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretrain", required=True, metavar="FILE", help="the demo's trained weights")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the training clips (default: %(default)s)")
    parser.add_argument("--held_out", type=int, default=100, help="clips a class (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    args = parser.parse_args()
    counts, seeds, held_out = ((2,), 1, 3) if args.quick else (COUNTS, args.seeds, args.held_out)
    with tempfile.TemporaryDirectory(prefix="small-data-") as folder:
        test = write_motions(folder, "test", held_out, 0)
        for count in counts:
            rows: dict[str, list[tuple[float, float]]] = {}
            for seed in range(seeds):
                train = write_motions(folder, f"train{count}_{seed}", count, seed)
                work = Work(os.path.join(folder, f"{count}_{seed}"), train, test, args.quick)
                pretrained = os.path.abspath(args.pretrain)
                head, seconds = work.train("head", pretrained, f"{_HEAD} TRAIN.feature_cache={work.folder}/features")
                rows.setdefault("head alone", []).append((work.accuracy(head), seconds))
                whole, more = work.train("all", head, _ALL)
                rows.setdefault("head, then all", []).append((work.accuracy(whole), seconds + more))
                anew, seconds = work.train("random", "none", _RANDOM)
                rows.setdefault("all, from random", []).append((work.accuracy(anew), seconds))
            for name, pairs in rows.items():
                scores = [score for score, _ in pairs]
                spread = stdev(scores) if len(scores) > 1 else 0.0
                seconds = mean(seconds for _, seconds in pairs)
                print(
                    f"{count:3d} clips a class  {name:<18} {mean(scores):.3f} ± {spread:.3f}  {seconds:6.1f} s",
                    flush=True,
                )
    return 0


class Work:
    """Trains and evaluates on one draw of clips, by the commands."""

    def __init__(self, folder: str, train: str, test: str, quick: bool) -> None:
        self.folder, self.quick = folder, quick
        self.lists = f"TRAIN.filelist={train} VALID.filelist={test} TEST.filelist={test}"

    def train(self, name: str, pretrain: str, settings: str) -> tuple[str, float]:
        """Train by `settings`. Returns the path of the weights, and seconds."""
        began, folder = time.monotonic(), os.path.join(self.folder, name)
        if self.quick:
            settings += " TRAIN.epoch=1"
        flags = [f"--save_dir={folder}", f"--pretrain={pretrain}", "--valid_interval=0", "--fix_random_seed=True"]
        self._run("train.py", flags, settings)
        return os.path.join(folder, "STNET_final.pdparams"), time.monotonic() - began

    def accuracy(self, weights: str) -> float:
        """Top-1 on the held-out clips."""
        folder = os.path.join(self.folder, "results")
        self._run("eval.py", [f"--weights={weights}", f"--save_dir={folder}"], "")
        with open(os.path.join(folder, "eval_results.json"), encoding="utf-8") as file:
            return float(json.load(file)["TOP1_ACC"])

    def _run(self, script: str, flags: list[str], settings: str) -> None:
        overrides = [word for setting in f"{_COMMON} {self.lists} {settings}".split() for word in ("-o", setting)]
        command = [sys.executable, os.path.join(ROOT, script), "--config=configs/stnet_demo.yaml", *flags, *overrides]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout[-2000:])


if __name__ == "__main__":
    sys.exit(main())
