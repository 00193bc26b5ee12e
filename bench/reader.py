"""Parts reader, shrinking and check: from a file to its uint8 clip, against decoding alone."""

from __future__ import annotations

import collections
import hashlib
import multiprocessing
import os
import random
import struct
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Callable

import numpy as np

from bench.clips import draw_kinds, write_list
from bench.contender import Prepare, Run
from bench.part import Part, Timed
from bench.spec import CONFIG, normalise

if TYPE_CHECKING:
    from stnet.config import ReaderSection

OURS, DECORD, ORIGINAL = "ours", "decord alone", "original's way"
PYAV = "PyAV, decoding all and nothing else"
SIZES = {"no resize": ((340, 256), 1.05), "resize": ((320, 240), 1.5)}  # and ours / decord at most
MODES = {"train": 1.8, "test": 6.0}  # and original's way / ours at least


def reader(part: Part) -> None:
    """One process: clips of two sizes, also by the original's way, files of three kinds, and the growth of memory."""
    part.description = "one process, file to clip; seconds a clip"
    count, frames = (2, 60) if part.quick else (4, 300)
    for size, (pixels, aim) in SIZES.items():
        paths = part.draw_clips(count, pixels, frames)
        for mode in MODES:
            _compare(part, size, paths, mode, aim)
    for kind, path in draw_kinds(part.folder, (340, 256), frames).items():
        for mode in MODES:
            contenders = {
                name: partial(way, [path], mode, part.quick) for name, way in ((OURS, ours), (DECORD, decord))
            }
            part.add(f"{kind}, {_setting(mode, part.quick)}", part.time(contenders), base=OURS)
    clips, warm = (30, 10) if part.quick else (2000, 100)
    paths = part.draw_clips(8, (320, 240), 60)
    with part.going_on("memory growth"):
        growth = part.call(memory_growth, paths, clips, warm, part.quick)
        part.aim(f"memory growth from clip {warm} to {clips}", growth, 50, unit=" MB")


def _compare(part: Part, size: str, paths: Sequence[str], mode: str, decord_aim: float) -> None:
    group = f"{size}, {_setting(mode, part.quick)}"
    ways: dict[str, Callable[..., Run]] = {
        OURS: ours,
        "ours, normalised by NumPy": partial(ours, normalised=True),
        DECORD: decord,
        ORIGINAL: original,
    }
    timed = part.time({name: partial(way, paths, mode, part.quick) for name, way in ways.items()}, per=len(paths))
    part.add(group, timed, base=OURS)
    part.aim_ratio(timed, (OURS, DECORD), group, decord_aim)
    part.aim_ratio(timed, (ORIGINAL, OURS), group, MODES[mode], least=True)
    _same_bits(part, group, timed)


def shrinking(part: Part) -> None:
    """Frames that are larger than the network's, as most of Kinetics' are."""
    part.description = "one process, file to clip; ratios of processor seconds"
    for pixels in ((120, 90), (160, 120)) if part.quick else ((1280, 720), (1920, 1080)):
        paths = part.draw_clips(2, pixels, 60 if part.quick else 300)
        for mode in MODES:
            ways = {OURS: ours, PYAV: pyav, DECORD: decord}
            if pixels[1] < 1000:  # it keeps every frame
                ways[ORIGINAL] = original
            group = f"{pixels[0]} x {pixels[1]}, {_setting(mode, part.quick)}"
            timed = part.time({name: partial(way, paths, mode, part.quick) for name, way in ways.items()}, per=2)
            timed = {name: Timed(one.cpu, one.cpu, one.result) for name, one in timed.items()}
            part.add(group, timed, base=PYAV)
            if mode == "test":
                part.aim_ratio(timed, (OURS, PYAV), group, 1.6)
            _same_bits(part, group, timed)


def pyav(paths: Sequence[str], mode: str, quick: bool) -> Run:
    """Contender: PyAV decodes all frames; none is even converted to RGB."""

    def run() -> None:
        import av

        for path in paths:
            with av.open(path) as container:
                container.streams.video[0].codec_context.thread_count = 1
                collections.deque(container.decode(video=0), maxlen=1)

    return run


def _same_bits(part: Part, group: str, timed: Mapping[str, Timed]) -> None:
    if OURS in timed and ORIGINAL in timed:
        unequal = sum(a != b for a, b in zip(timed[OURS].result, timed[ORIGINAL].result))
        part.aim(f"{group}: normalised clips of both that have other bits", unequal, 0, must=True)


def section(mode: str, quick: bool) -> ReaderSection:
    """The settings of a mode ("train" or "test"), with the values of configs/stnet.yaml."""
    from stnet.config import ReaderSection, TrainSection

    kind, seg_num, size = (TrainSection, 7, 224) if mode == "train" else (ReaderSection, 25, 256)
    if quick:
        return kind(seglen=5, seg_num=3, short_size=48, target_size=40)
    return kind(seglen=5, seg_num=seg_num, target_size=size)


def _setting(mode: str, quick: bool) -> str:
    want = section(mode, quick)
    return f"{mode} setting ({want.seg_num} x {want.seglen} frames, {want.target_size} pixels)"


def _rng(mode: str, index: int, epoch: int = 0) -> random.Random | None:
    from stnet.reader.clip import clip_rng

    return clip_rng(0, epoch, index) if mode == "train" else None


def digests(clips: Sequence[np.ndarray]) -> list[str]:
    """SHA-256 of each clip's bytes."""
    return [hashlib.sha256(clip.tobytes()).hexdigest() for clip in clips]


def ours(paths: Sequence[str], mode: str, quick: bool, normalised: bool = False) -> Run:
    """Contender: uint8 clips, or float32, normalised, as usually the network's side does; gives digests of these."""
    from stnet.reader.clip import read_clip
    from stnet.reader.transforms import to_super_images

    want = section(mode, quick)
    seg_num = want.seg_num
    assert seg_num is not None  # `section` has set it

    def run() -> Run:
        read = (read_clip(path, want, rng=_rng(mode, index)).frames for index, path in enumerate(paths))
        clips = [to_super_images(frames, seg_num) for frames in read]
        clips = [normalise(clip) for clip in clips] if normalised else clips
        return lambda: digests(clips if normalised else [normalise(clip) for clip in clips])

    return run


def decord(paths: Sequence[str], mode: str, quick: bool) -> Run:
    """Contender: decord on the frames that the reader wants, each once, and nothing else."""
    from stnet.reader.sampling import sample_frames

    want = section(mode, quick)
    seg_num, seglen = want.seg_num, want.seglen
    assert seg_num and seglen

    def run() -> None:
        import decord

        for index, path in enumerate(paths):
            video = decord.VideoReader(path, num_threads=1)
            segments = sample_frames(len(video), seg_num, seglen, "mp4", _rng(mode, index))
            video.get_batch(np.unique(segments)).asnumpy()

    return run


def original(paths: Sequence[str], mode: str, quick: bool) -> Run:
    """Contender: bench.peers.original_reader; gives digests of its clips."""
    from bench.peers.original_reader import read_clip

    def run() -> Run:
        clips = [read_clip(path, section(mode, quick), _rng(mode, index)) for index, path in enumerate(paths)]
        return lambda: digests(clips)

    return run


def memory_growth(paths: Sequence[str], clips: int, warm: int, quick: bool) -> int:
    """MB by which this process grows from the clip number `warm` to the last of `clips`."""
    from stnet.reader.clip import read_clip
    from stnet.runtime import memory_mb

    after = []
    for number in range(clips):
        epoch, index = divmod(number, len(paths))
        read_clip(paths[index], section("train", quick), rng=_rng("train", index, epoch))
        after.append(memory_mb())
    return after[-1] - after[warm - 1]


def check(part: Part) -> None:
    """How fast `tools.dataset check` looks at many short clips, against decord alone on all cores and on one."""
    count = 8 if part.quick else 2000
    part.description = f"{count} clips, {part.threads} processes; seconds a clip"
    drawn = [Path(path).read_bytes() for path in part.draw_clips(min(50, count // 2), (128, 128), 60)]
    paths = [os.path.join(part.folder, f"clip{number:05d}.mp4") for number in range(count)]
    for number, path in enumerate(paths):
        free_box = struct.pack(">I4sI", 12, b"free", number)  # no two files alike
        Path(path).write_bytes(drawn[number % len(drawn)] + free_box)
    filelist = write_list(os.path.join(part.folder, "train.list"), paths, count)
    contenders: dict[str, Prepare] = {"check": partial(checking, filelist, part.threads)}
    contenders["decord alone, all cores"] = partial(decoding, paths, part.threads)
    contenders["decord alone, one process"] = partial(decoding, paths, 1)
    timed = part.time(contenders, per=count, warm=0)
    part.add("one clip", timed, base="check")
    part.aim_ratio(timed, ("decord alone, all cores", "check"), "one clip", 0.8, least=True)


def checking(filelist: str, workers: int) -> Run:
    """Contender: a whole check, from reading the list to the report, nothing remembered."""
    from stnet.tools.dataset.__main__ import main

    def run() -> None:
        with tempfile.TemporaryDirectory() as out:
            command = ["check", f"--list={filelist}", f"--config={CONFIG}", f"--out={out}", f"--workers={workers}"]
            if main(command):
                raise RuntimeError("check found something wrong")

    return run


def decoding(paths: Sequence[str], processes: int) -> Run:
    """Contender: decord alone at the training setting, in processes that share the clips."""
    shares = [decord(paths[i::processes], "train", quick=False) for i in range(processes)]

    def run() -> None:
        crew = [multiprocessing.get_context("fork").Process(target=share) for share in shares]
        for process in crew:
            process.start()
        for process in crew:
            process.join()

    return run
