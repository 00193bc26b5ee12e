"""Whole evaluation against decoding and the network alone; and the memory of predict.py."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.clips import draw_clips, write_list
from benchmarks.network import CONFIG, WEIGHTS, Spec, load_config, load_engine, write_weights
from benchmarks.timer import ROOT, Prepare, Run, Timer, run

if TYPE_CHECKING:
    from stnet.reader.loader import Batch


def pipeline(timer: Timer) -> None:
    """Time evaluation in its steady state; seconds a clip."""
    specs = [Spec(18, 3, 48, batch=4)] if timer.quick else [Spec(50, 7, 224, batch=4), Spec(50, 25, 256, batch=4)]
    count, drawn, frames = (24, 4, 60) if timer.quick else (400, 8, 300)
    paths = draw_clips(timer.folder, drawn, (340, 256), frames)
    filelist = write_list(f"{timer.folder}/all.list", paths, count)
    for spec in specs:
        timer.call(write_weights, spec)
        overrides = spec.overrides(TEST_filelist=filelist, TEST_num_reader_threads=timer.threads)
        contenders: dict[str, Prepare] = {"evaluation": partial(evaluation, overrides)}
        contenders |= {"decoding alone": partial(reading, overrides, "test"), "network alone": partial(computing, spec)}
        timed = timer.time(contenders, rounds=min(3, timer.rounds), warm=0)  # each takes minutes
        timed = {name: one.per(one.result["clips"]) for name, one in timed.items()}
        timer.table(f"{count} clips ({drawn} different), batch 4, {spec.text}; one clip", timed)
        if len(timed) == len(contenders):
            seconds = 1 / timed["evaluation"].result["rate"]  # a clip, once all is going
            least = (median(timed["decoding alone"].cpu) + median(timed["network alone"].cpu)) / timer.threads
            print(f"  {seconds:.4f} s a clip without the start, at best {least:.4f}: what both keep the cores busy")
            print(f"  evaluation / at best = {seconds / least:.3g} (aim: at most 1.08)")
    workers = specs[-1].overrides(INFER_num_reader_threads=timer.threads)
    largest, together = timer.call(memory, workers, paths[0])
    print(f"\n  predict.py, one clip, main process: {largest:.2f} GB (aim: at most 1.5)")
    print(f"  predict.py with its reading processes: {together:.2f} GB, pages they share counted once")


def evaluation(overrides: list[str]) -> Run:
    """Contender: eval's loop; gives clips and clips a second in the steady state."""
    engine, config = load_engine(overrides, mode="test"), load_config(overrides)
    from stnet.evaluation.loop import scored
    from stnet.reader.loader import build_loader

    def evaluate() -> dict[str, float]:
        loader = build_loader(config, "test")
        with contextlib.closing(scored(engine, loader, "eval", 1000)) as batches:
            return rate_of(config.TEST.num_reader_threads, (batch for batch, _ in batches))

    return evaluate


def rate_of(workers: int, batches: Iterable[Batch]) -> dict[str, float]:
    """Count the clips, and the clips a second once every worker runs."""
    counts, moments = zip(*((len(batch.indices), time.perf_counter()) for batch in batches))
    warm = min(2 * workers, len(counts) - 2)
    return {"clips": sum(counts), "rate": sum(counts[warm + 1 :]) / (moments[-1] - moments[warm])}


def reading(overrides: list[str], mode: str) -> Run:
    """Contender: the loader alone; gives clips and clips a second in the steady state."""
    config = load_config(overrides)
    from stnet.reader.loader import build_loader

    def read() -> dict[str, float]:
        with contextlib.closing(build_loader(config, mode).epoch()) as batches:
            return rate_of(config.section(mode).num_reader_threads, batches)

    return read


def computing(spec: Spec) -> Run:
    """Contender: eval's engine on clips in memory; gives their number."""
    engine, clips, times = load_engine(spec.overrides()), spec.clips(), 10
    engine(clips)

    def compute() -> dict[str, int]:
        for _ in range(times):
            engine(clips)
        return {"clips": times * spec.batch}

    return compute


def memory(overrides: Sequence[str], video: str) -> tuple[float, float]:
    """Peak memory of predict.py for one video: GB of the largest process, and of all together."""
    command = [sys.executable, str(ROOT / "predict.py"), f"--config={CONFIG}", f"--weights={WEIGHTS}"]
    command += [
        "--use_gpu=False",
        "--save_dir=results",
        *(f"-o{text}" for text in overrides),
        f"-oINFER.video_path={video}",
    ]
    home = {"STNET_WEIGHTS_HOME": os.getcwd(), "STNET_WEIGHTS_URL": "none"}
    process = subprocess.Popen(command, env={**os.environ, **home})
    together = 0
    while process.poll() is None:
        together = max(together, _session_memory())
        time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"predict.py ended with {process.returncode}")
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e9, together / 1e9


def _session_memory() -> int:
    """Proportional set size, in bytes, of the processes that this contender started."""
    total = 0
    for path in Path("/proc").glob("[0-9]*/smaps_rollup"):
        with contextlib.suppress(OSError):
            if os.getsid(int(path.parent.name)) == os.getpid() != int(path.parent.name):
                total += sum(map(int, re.findall(r"^Pss: +(\d+)", path.read_text(), re.MULTILINE))) * 1024
    return total


if __name__ == "__main__":
    sys.exit(run(pipeline))
