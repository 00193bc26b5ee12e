"""Measure how fast `tools.dataset check` looks at many short clips, against decord alone.

python -m bench.check_rate --clips 2000 --rounds 5

Each round decodes the frames that the reader wants of all clips in one process with decord and nothing else, then
checks the same clips on all cores, nothing remembered. Aim: check / (cores x decord alone) of at least 0.8. Where
other programs take part of the cores, compare with decord alone in as many processes, and by processor time.
"""

import argparse
import contextlib
import functools
import io
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from core import cli
from reader.sampling import sample_frames
from tools.dataset import check
from tools.dataset.workers import cores

_SEG_NUM, _SEGLEN = 7, 5  # of configs/stnet.yaml


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=cli.positive_int, default=2000, help="clips drawn (default: %(default)s)")
    parser.add_argument("--rounds", type=cli.positive_int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--size", type=cli.positive_int, default=128, help="pixels of a side (default: %(default)s)")
    parser.add_argument("--frames", type=cli.positive_int, default=60, help="frames a clip (default: %(default)s)")
    parser.add_argument("--workers", type=cli.positive_int, default=cores(), help="processes (default: %(default)s)")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        paths = draw_clips(folder, args.clips, args.size, args.frames)
        works = (
            functools.partial(decord_alone, paths, 1),
            functools.partial(check_all, folder, args.workers),
            functools.partial(decord_alone, paths, args.workers),
        )
        rounds = [[measure(work, args.clips) for work in works] for _ in range(args.rounds)]
    report(rounds, args.workers)


def report(rounds, workers):
    """Print each round, the medians and the ratios."""
    for number, (bare, checked, crew) in enumerate(rounds, start=1):
        print(
            f"round {number}: decord alone {bare.rate:.0f} clips/s, in {workers} processes {crew.rate:.0f}; "
            f"check {checked.rate:.0f}"
        )
    bare, checked, crew = (statistics.median(one.rate for one in column) for column in zip(*rounds))
    print(f"medians: decord alone {bare:.0f} clips/s, in {workers} processes {crew:.0f}; check {checked:.0f}")
    print(f"check / (workers x decord alone) = {checked / (workers * bare):.2f}")
    print(f"check / decord alone in {workers} processes = {checked / crew:.2f}")
    by_time = statistics.median(checked.cpu_rate / bare.cpu_rate for bare, checked, _ in rounds)
    print(f"check / decord alone by processor time = {by_time:.2f}")


class Measured(NamedTuple):
    """Clips a second, and a second of processor time."""

    rate: float
    cpu_rate: float


def measure(work, clips):
    """Measured rate of `work()`, which handles `clips` clips here or in child processes that have ended after it."""
    started, cpu = time.perf_counter(), _cpu_seconds()
    work()
    return Measured(clips / (time.perf_counter() - started), clips / (_cpu_seconds() - cpu))


def _cpu_seconds():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def draw_clips(folder, count, size, frames):
    """Write `count` different clips and train.list into a folder; returns the paths."""
    import cv2

    from tools.demo_clips import write_clip

    paths = []
    for number in range(count):
        noise = np.random.RandomState(number).randint(0, 256, (size // 8 + 1, size // 8 + 1, 3), np.uint8)
        image = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
        paths.append(os.path.join(folder, f"{number:05d}.mp4"))
        write_clip(paths[-1], np.stack([np.roll(image, 2 * i, axis=1) for i in range(frames)]))
    with open(os.path.join(folder, "train.list"), "w", encoding="utf-8") as file:
        file.writelines(f"{path} 0\n" for path in paths)
    return paths


def decord_alone(paths, processes):
    """Decode the frames that the reader wants, and nothing else, in processes that share the clips."""
    context = multiprocessing.get_context("fork")
    numbered = list(enumerate(paths))
    crew = [context.Process(target=_decode_all, args=(numbered[i::processes],)) for i in range(processes)]
    for process in crew:
        process.start()
    for process in crew:
        process.join()


def _decode_all(numbered):
    import decord

    for index, path in numbered:
        video = decord.VideoReader(path, num_threads=1)
        segments = sample_frames(len(video), _SEG_NUM, _SEGLEN, "mp4", random.Random(f"0/0/{index}"))
        video.get_batch(np.unique(segments)).asnumpy()


def check_all(folder, workers):
    """A whole `check`, from reading the list to the report, every clip looked at."""
    with tempfile.TemporaryDirectory() as out:
        args = SimpleNamespace(
            list=os.path.join(folder, "train.list"),
            config="configs/stnet.yaml",
            mode="train",
            override=[],
            plugin=[],
            out=out,
            workers=workers,
            timeout=60.0,
        )
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            code = check.run(args)
    if code:
        sys.exit(f"check found something wrong:\n{printed.getvalue()}")


if __name__ == "__main__":
    cli.run(main)
