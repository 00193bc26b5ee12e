"""Speed of `tools.dataset check` on many short clips, against decord alone on all cores and on one."""

from __future__ import annotations

import multiprocessing
import struct
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.clips import draw_clips, write_list
from benchmarks.network import CONFIG
from benchmarks.reader import decord
from benchmarks.timer import Prepare, Run, Timer, run


def check(timer: Timer) -> None:
    """Time whole checks; seconds a clip."""
    count = 8 if timer.quick else 2000
    drawn = [Path(path).read_bytes() for path in draw_clips(timer.folder, min(50, count // 2), (128, 128), 60)]
    paths = [f"{timer.folder}/clip{number:05d}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        free_box = struct.pack(">I4sI", 12, b"free", number)  # no two files alike
        Path(path).write_bytes(drawn[number % len(drawn)] + free_box)
    filelist = write_list(f"{timer.folder}/train.list", paths, count)
    contenders: dict[str, Prepare] = {"check": partial(checking, filelist, timer.threads)}
    contenders["decord alone, all cores"] = partial(decoding, paths, timer.threads)
    contenders["decord alone, one process"] = partial(decoding, paths, 1)
    timed = timer.time(contenders, warm=0)
    timer.table(f"{count} clips, {timer.threads} processes; one clip", {k: one.per(count) for k, one in timed.items()})
    timer.ratio(timed, "decord alone, all cores", "check", "at least 0.8")


def checking(filelist: str, workers: int) -> Run:
    """Contender: a whole check, from reading the list to the report, without a cache."""
    from stnet.tools.dataset.__main__ import main

    def look() -> None:
        with tempfile.TemporaryDirectory() as out:
            if main(["check", f"--list={filelist}", f"--config={CONFIG}", f"--out={out}", f"--workers={workers}"]):
                raise RuntimeError("check found something wrong")

    return look


def decoding(paths: Sequence[str], processes: int) -> Run:
    """Contender: decord alone at the training setting, in processes that share the clips."""
    shares = [decord(paths[i::processes], "train", quick=False) for i in range(processes)]

    def decode() -> None:
        children = [multiprocessing.get_context("fork").Process(target=share) for share in shares]
        for process in children:
            process.start()
        for process in children:
            process.join()

    return decode


if __name__ == "__main__":
    sys.exit(run(check))
