"""Reading clips in one process: against decoding alone, and against the way of the original.

The reader's way goes from the file to the uint8 clip; decoding alone is decord on the very frames that the clip needs.
"""

import hashlib
import random

from bench.child import Work
from bench.measure import Failed, interleave
from bench.results import Part

SIZES = {"no resize": ((340, 256), 1.05), "resize": ((320, 240), 1.5)}  # and ours / decord at most
ORIGINAL = {"train": 1.8, "test": 6.0}  # original / ours at least
GROWTH_MB = 50
_OURS, _NORMALISED, _DECORD, _ORIGINAL = "ours", "ours, normalised by NumPy", "decord alone", "original's way"


def measure(settings):
    """The Part of this module.

    Args:
        settings: bench.measure.Settings.
    """
    part = Part("reader", "one process, file to clip; seconds a clip")
    count, frames = (2, 60) if settings.quick else (4, 300)
    quick = {"quick": settings.quick}
    factories = {
        _OURS: ("bench.reader:ours", quick),
        _NORMALISED: ("bench.reader:ours_normalised", quick),
        _DECORD: ("bench.reader:bare_decord", quick),
        _ORIGINAL: ("bench.reader:original", quick),
    }
    with settings.crew(factories) as contenders:
        for kind, (size, aim) in SIZES.items():
            paths, about = settings.call(
                "bench.clips:draw_clips", folder=settings.folder, count=count, size=size, frames=frames
            )
            part.notes.append(about)
            for mode in ("train", "test"):
                timed = interleave(contenders, settings.rounds, {"paths": paths, "mode": mode}, failures=part.failures)
                _note(part, f"{kind}, {_about(mode, settings.quick)}", timed, len(paths), aim, ORIGINAL[mode])
        _measure_kinds(part, settings, contenders)
    _measure_growth(part, settings)
    return part


def _measure_kinds(part, settings, contenders):
    """Rows of files that decord's random access reads wrongly, or by a seek."""
    frames = 30 if settings.quick else 300
    paths = settings.call("bench.clips:draw_kinds", folder=settings.folder, size=(340, 256), frames=frames)
    two = [contender for contender in contenders if contender.name in (_OURS, _DECORD)]
    for kind, path in paths.items():
        for mode in ("train", "test"):
            timed = interleave(two, settings.rounds, {"paths": [path], "mode": mode}, failures=part.failures)
            part.add(f"{kind}, {_about(mode, settings.quick)}", timed, base=_OURS)


def _note(part, group, timed, clips, decord_aim, original_aim):
    """Rows, aims and checks of one group."""
    facts = {name: one.facts for name, one in timed.items()}
    timed = {name: one.shared_by(clips) for name, one in timed.items()}
    part.add(group, timed, base=_OURS)
    if _OURS in timed and _DECORD in timed:
        part.aim_ratio(f"{group}: ours / decord alone", timed[_OURS], timed[_DECORD], decord_aim)
    if _OURS in timed and _ORIGINAL in timed:
        text = f"{group}: original's way / ours"
        part.aim_ratio(text, timed[_ORIGINAL], timed[_OURS], original_aim, least=True)
        unequal = sum(a != b for a, b in zip(facts[_OURS], facts[_ORIGINAL]))
        part.check(f"{group}: normalised clips of both that have other bits", unequal, 0)


def _measure_growth(part, settings):
    clips, warm = (30, 10) if settings.quick else (2000, 100)
    try:
        paths, about = settings.call(
            "bench.clips:draw_clips", folder=settings.folder, count=8, size=(320, 240), frames=60
        )
        found = settings.call("bench.reader:growth", paths=paths, clips=clips, warm=warm, quick=settings.quick)
    except Failed as error:
        part.failures.append(f"memory growth: {error}")
        return
    part.notes.append(f"memory is watched on {about}")
    part.aim(f"memory growth from clip {warm} to {clips}", found, GROWTH_MB, unit=" MB")


def section(mode, quick):
    """The ReaderSection of a mode ("train" or "test"), with the values of configs/stnet.yaml."""
    from core.config import ReaderSection, TrainSection

    if quick:
        sizes = {"seg_num": 3 if mode == "train" else 5, "short_size": 48, "target_size": 40}
    else:
        sizes = {"seg_num": 7, "target_size": 224} if mode == "train" else {"seg_num": 25, "target_size": 256}
    return (TrainSection if mode == "train" else ReaderSection)(seglen=5, **sizes)


def _about(mode, quick):
    want = section(mode, quick)
    return f"{mode} setting ({want.seg_num} x {want.seglen} frames, {want.target_size} pixels)"


def _rng(mode, index):
    """The random numbers of a clip, as KineticsDataset draws them with seed 0 in epoch 0."""
    return random.Random(f"0/0/{index}") if mode == "train" else None


def ours(quick):
    """Factory: the reader's whole way to uint8 clips; facts are digests of the normalised clips."""
    from reader.kinetics import KineticsDataset
    from reader.lists import Clip

    def run(case):
        clips = [Clip(path, 0) for path in case["paths"]]
        dataset = KineticsDataset(clips, section(case["mode"], quick), "mp4", augment=case["mode"] == "train")
        return [dataset.read(index)[0] for index in range(len(clips))]

    return Work(run, lambda clips: [digest(normalise(clip)) for clip in clips])


def ours_normalised(quick):
    """Factory: as `ours`, and normalised to float32, which usually the network's side does."""
    read = ours(quick).run
    return Work(lambda case: [normalise(clip) for clip in read(case)])


def bare_decord(quick):
    """Factory: decord on the frames that the reader wants, each once, and nothing else."""
    import decord
    import numpy as np

    from reader.sampling import sample_frames

    def run(case):
        want = section(case["mode"], quick)
        for index, path in enumerate(case["paths"]):
            video = decord.VideoReader(path, num_threads=1)
            segments = sample_frames(len(video), want.seg_num, want.seglen, "mp4", _rng(case["mode"], index))
            video.get_batch(np.unique(segments)).asnumpy()

    return Work(run)


def original(quick):
    """Factory: bench.peers.original_reader; facts are digests of its clips."""
    from bench.peers.original_reader import read_clip

    def run(case):
        want = section(case["mode"], quick)
        return [read_clip(path, want, _rng(case["mode"], index)) for index, path in enumerate(case["paths"])]

    return Work(run, lambda clips: [digest(clip) for clip in clips])


def normalise(clip):
    """uint8 [T, 3 * seglen, H, W] -> float32, by NumPy, in the order of the original's arithmetic."""
    import numpy as np

    mean = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
    std = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)
    count, channels, height, width = clip.shape
    frames = clip.reshape(count, channels // 3, 3, height, width).astype(np.float32) / np.float32(255)
    return ((frames - mean) / std).reshape(clip.shape)


def digest(array):
    """SHA-256 of an array's bytes."""
    return hashlib.sha256(array.tobytes()).hexdigest()


def growth(paths, clips, warm, quick):
    """MB by which this process grows from the clip number `warm` to the last of `clips`."""
    import os

    from reader.kinetics import KineticsDataset
    from reader.lists import Clip

    def resident():
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    listed = [Clip(path, 0) for path in paths]
    dataset = KineticsDataset(listed, section("train", quick), "mp4", augment=True)
    for number in range(clips):
        if number == warm:
            before = resident()
        dataset.read(number % len(paths), number // len(paths))
    return resident() - before
