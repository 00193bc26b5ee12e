"""Windows of a long video: shared stages computed once, against one window after the other.

Both start from the same decoded uint8 segments, and use the same engine, the fastest.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np

from benchmarks.network import Spec, load_engine, load_model, write_weights
from benchmarks.timer import Run, Timer, run

# (segments of a window, stride, speed-up by multiply-adds with the borders convolved again)
CASES = ((25, 1, 9.2), (25, 5, 3.7), (7, 1, 2.6))
DIFFERENT = 40  # random segments, repeated by the video


def timeline(timer: Timer) -> None:
    """Time all windows of a video; seconds a window."""
    layers, size, segments = (18, 48, 30) if timer.quick else (50, 256, 300)
    for seg_num, stride, ceiling in CASES:
        spec, windows = Spec(layers, seg_num, size), (segments - seg_num) // stride + 1
        timer.call(write_weights, spec)
        ways = {"timeline": partial(shared, spec, segments, stride), "window by window": partial(single, spec)}
        timed = timer.time(ways)
        if len(timed) == 2:
            timed["timeline"] = timed["timeline"].per(windows)
            timer.table(f"windows of {seg_num} of {segments} segments, every {stride}, {size} x {size}", timed)
            one, other = (timed[name].result for name in ways)
            limit = 1e-4 * max(1.0, float(np.abs(other).max()))
            timer.agree("logits of the first window of both", float(np.abs(one - other).max()), limit)
            timer.ratio(timed, "window by window", "timeline", f"at least {ceiling * 2 / 3:.2f}")


def video(spec: Spec) -> np.ndarray:
    """Draw segments, uint8 [DIFFERENT, 15, size, size]."""
    return np.random.RandomState(0).randint(0, 256, (DIFFERENT, *spec.shape[2:])).astype(np.uint8)


def shared(spec: Spec, segments: int, stride: int) -> Run:
    """Contender: all windows of a video by the staged network; gives the first one's logits."""
    model, pixels = load_model(spec), video(spec)
    from stnet.backends.stages import build_stages

    parts = build_stages("auto", model, model.config.section("infer"))

    def compute() -> np.ndarray:
        windows = parts.windows()
        logits: dict[int, np.ndarray] = {}
        for segment in range(segments):
            if segment % stride == 0 and segment + spec.seg_num <= segments:
                windows.add(segment, range(segment, segment + spec.seg_num))
            windows.feed(segment, pixels[segment % DIFFERENT])
            logits.update((window, parts.streaming.logits(features)) for window, features in windows.done())
        windows.flush()
        logits.update((window, parts.streaming.logits(features)) for window, features in windows.done())
        return logits[0]

    return compute


def single(spec: Spec) -> Run:
    """Contender: the first window by the engine of eval and predict; gives its logits."""
    compute, pixels = load_engine(spec.overrides()), video(spec)
    return lambda: compute(pixels[None, : spec.seg_num])[0]


if __name__ == "__main__":
    sys.exit(run(timeline))
