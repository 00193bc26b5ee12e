"""Reading a file into a uint8 clip, in one process: ours, decord alone, and the original's way; seconds a clip."""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Callable

import numpy as np

from benchmarks.clips import draw_clips, draw_kinds
from benchmarks.network import normalise
from benchmarks.timer import Run, Timer, Times, run
from stnet.config import ReaderSection, TrainSection

SIZES = {"no resize": ((340, 256), 1.05), "resize": ((320, 240), 1.5)}  # and ours / decord at most
MODES = {"train": 1.8, "test": 6.0}  # and original's way / ours at least


def reader(timer: Timer) -> None:
    """Time clips of two sizes and files that are hard to seek in, and measure the growth of memory."""
    count, frames = (2, 60) if timer.quick else (4, 300)
    ways: dict[str, Callable[..., Run]] = {"ours": ours, "ours, normalised by NumPy": partial(ours, normalised=True)}
    for size, (pixels, aim) in SIZES.items():
        paths = draw_clips(timer.folder, count, pixels, frames)
        for mode, least in MODES.items():
            title = f"{size}, {pixels[0]} x {pixels[1]}, {frames} frames, {mode}"
            timed = compare(timer, title, {**ways, "decord alone": decord, "original's way": original}, paths, mode)
            timer.ratio(timed, "ours", "decord alone", f"at most {aim}")
            timer.ratio(timed, "original's way", "ours", f"at least {least}")
    for kind, path in draw_kinds(timer.folder, (340, 256), frames).items():
        for mode in MODES:
            compare(timer, f"{kind}, {mode}", {"ours": ours, "decord alone": decord}, [path], mode)

    clips, warm = (30, 10) if timer.quick else (2000, 100)
    growth = timer.call(memory_growth, draw_clips(timer.folder, 8, (320, 240), 60), clips, warm, timer.quick)
    print(f"\n  memory growth from clip {warm} to {clips}: {growth} MB (aim: at most 50)")


def compare(
    timer: Timer, title: str, ways: Mapping[str, Callable[..., Run]], paths: Sequence[str], mode: str, cpu: bool = False
) -> dict[str, Times]:
    """Time ways to read clips, and compare our bits with the original's; `cpu`: by processor seconds."""
    timed = timer.time({name: partial(way, paths, mode, timer.quick) for name, way in ways.items()})
    timed = {name: one.per(len(paths)) for name, one in timed.items()}
    timed = {name: one._replace(seconds=one.cpu) for name, one in timed.items()} if cpu else timed
    timer.table(title, timed)
    if "ours" in timed and "original's way" in timed:
        unequal = sum(a != b for a, b in zip(timed["ours"].result, timed["original's way"].result))
        timer.agree("normalised clips of ours and the original that have other bits", unequal, 0)
    return timed


def section(mode: str, quick: bool) -> ReaderSection:
    """Settings of a mode ("train" or "test"), as in configs/stnet.yaml."""
    kind, seg_num, size = (TrainSection, 7, 224) if mode == "train" else (ReaderSection, 25, 256)
    if quick:
        return kind(seglen=5, seg_num=3, short_size=48, target_size=40)
    return kind(seglen=5, seg_num=seg_num, target_size=size)


def _rng(mode: str, index: int, epoch: int = 0) -> random.Random | None:
    from stnet.reader.clip import clip_rng

    return clip_rng(0, epoch, index) if mode == "train" else None


def digests(clips: Sequence[np.ndarray]) -> list[str]:
    """SHA-256 of each clip's bytes."""
    return [hashlib.sha256(clip.tobytes()).hexdigest() for clip in clips]


def ours(paths: Sequence[str], mode: str, quick: bool, normalised: bool = False) -> Run:
    """Contender: uint8 clips, or normalised float32; gives digests of the normalised ones."""
    from stnet.reader.clip import read_clip
    from stnet.reader.transforms import to_super_images

    want = section(mode, quick)

    def read() -> Run:
        frames = (read_clip(path, want, rng=_rng(mode, index)).frames for index, path in enumerate(paths))
        clips = [to_super_images(one, want.seg_num or 0) for one in frames]
        clips = [normalise(clip) for clip in clips] if normalised else clips
        return lambda: digests(clips if normalised else [normalise(clip) for clip in clips])

    return read


def decord(paths: Sequence[str], mode: str, quick: bool) -> Run:
    """Contender: decord decoding the sampled frames, each once, and nothing else."""
    from stnet.reader.sampling import sample_frames

    want = section(mode, quick)

    def read() -> None:
        import decord

        for index, path in enumerate(paths):
            video = decord.VideoReader(path, num_threads=1)
            segments = sample_frames(len(video), want.seg_num or 0, want.seglen or 0, "mp4", _rng(mode, index))
            video.get_batch(np.unique(segments)).asnumpy()

    return read


def original(paths: Sequence[str], mode: str, quick: bool) -> Run:
    """Contender: benchmarks.peers.original_reader; gives digests of its clips."""
    from benchmarks.peers.original_reader import read_clip

    def read() -> Run:
        clips = [read_clip(path, section(mode, quick), _rng(mode, index)) for index, path in enumerate(paths)]
        return lambda: digests(clips)

    return read


def memory_growth(paths: Sequence[str], clips: int, warm: int, quick: bool) -> int:
    """Growth of this process in MB from the clip number `warm` to the last of `clips`."""
    from stnet.reader.clip import read_clip
    from stnet.runtime import memory_mb

    after = []
    for number in range(clips):
        epoch, index = divmod(number, len(paths))
        read_clip(paths[index], section("train", quick), rng=_rng("train", index, epoch))
        after.append(memory_mb())
    return after[-1] - after[warm - 1]


if __name__ == "__main__":
    sys.exit(run(reader))
