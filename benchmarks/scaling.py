"""Reading with 1, 2, 4, ... processes, and training on as many ranks of one thread each, up to all cores.

Run it on an idle machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from statistics import median

from benchmarks.clips import draw_clips, write_list
from benchmarks.network import CONFIG, Spec
from benchmarks.pipeline import reading
from benchmarks.timer import ROOT, Run, Timer, run


def scaling(timer: Timer) -> None:
    """Time a clip; the rates are measured inside the loader and the training."""
    spec, frames, drawn = (Spec(18, 3, 48), 60, 4) if timer.quick else (Spec(18, 7, 224), 300, 16)
    paths = draw_clips(timer.folder, drawn, (340, 256), frames)
    for action, contender, most in (("reading", workers, 16), ("training", ranks, 8)):
        counts = [count for count in (1, 2, 4, 8, 16) if count <= min(timer.threads, most)]
        names = {f"{count} {contender.__name__}": count for count in counts}
        timed = timer.time({name: partial(contender, spec, paths, names[name], timer.quick) for name in names}, warm=0)
        timer.table(f"{action}, a clip", {name: one.per(one.result["clips"]) for name, one in timed.items()})
        rates = {names[name]: one.result["rate"] for name, one in timed.items()}
        for count, rate in rates.items():
            efficiency = rate / (count * rates[1]) if 1 in rates else float("nan")
            print(f"  {count} {contender.__name__}: {rate:.2f} clips a second, efficiency {efficiency:.2f}")
    print("  aim: efficiency of at least 0.8 at 8")


def workers(spec: Spec, paths: list[str], count: int, quick: bool) -> Run:
    """Contender: an epoch of the training loader with `count` workers."""
    filelist = write_list(f"workers{count}.list", paths, (8 if quick else 96) * count)
    values = {"TRAIN_filelist": filelist, "TRAIN_num_reader_threads": count, "TRAIN_epoch": 1}
    return reading(spec._replace(batch=4).overrides(**values), "train")


def ranks(spec: Spec, paths: list[str], count: int, quick: bool) -> Run:
    """Contender: a short training on `count` CPU ranks, two clips each; the rate is from its log."""
    from stnet.training.log import read_journal

    batch, out = 2 * count, f"ranks{count}"
    clips = batch * (3 if quick else 12)
    overrides = spec._replace(size=min(spec.size, 112), batch=batch).overrides(
        TRAIN_filelist=write_list(f"{out}.list", paths, clips), TRAIN_num_reader_threads=1, TRAIN_epoch=1
    )
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(count), "--log_dir", f"{out}/log"]
    command = [
        sys.executable,
        *(launch if count > 1 else []),
        str(ROOT / "train.py"),
        f"--config={CONFIG}",
        f"--save_dir={out}",
    ]
    command += ["--use_gpu=False", "--pretrain=none", "--valid_interval=0", "--log_interval=1", "--overwrite"]
    command += [f"-o{text}" for text in overrides]

    def train() -> dict[str, float]:
        subprocess.run(command, check=True, env={**os.environ, "STNET_THREADS": "1"})
        rows = [row["clips_per_s"] for row in read_journal(f"{out}/train_log.jsonl") if row["kind"] == "train"]
        return {"clips": clips, "rate": median(rows[1:])}

    return train


if __name__ == "__main__":
    sys.exit(run(scaling))
