"""Part timeline: the windows of a long video, what they share computed once, against one window after the other.

Both start from the same uint8 segments, decoded beforehand, and use the same engine, the fastest.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from bench import spec as forms
from bench.contender import Run
from bench.part import Part
from bench.spec import Spec

# (segments in a window, from one window to the next, speed-up by multiply-adds where the ends are convolved anew)
CASES = ((25, 1, 9.2), (25, 5, 3.7), (7, 1, 2.6))
DIFFERENT = 40  # segments that are drawn; the video repeats them


def timeline(part: Part) -> None:
    """All windows of a video; the times are of one window."""
    layers, size, segments = (18, 48, 30) if part.quick else (50, 256, 300)
    part.description = f"{segments} segments of {size} x {size}, decoded beforehand, fp32, {layers} layers, 400 classes"
    for seg_num, stride, ceiling in CASES:
        spec, windows = Spec(layers, seg_num, size), (segments - seg_num) // stride + 1
        part.call(forms.write_weights, spec)
        timed = part.time(
            {"timeline": partial(shared, spec, segments, stride), "window by window": partial(single, spec)}
        )
        group = f"windows of {seg_num} segments, every {stride}"
        if len(timed) == 2:
            timed["timeline"] = timed["timeline"].per(windows)
            one, other = (timed[name].result for name in ("timeline", "window by window"))
            limit = 1e-4 * max(1.0, float(np.abs(other).max()))
            part.aim(f"{group}: logits of the first window", float(np.abs(one - other).max()), limit, must=True)
            part.aim_ratio(timed, ("window by window", "timeline"), group, ceiling * 2 / 3, least=True)
        part.add(group, timed, base="timeline")


def video(spec: Spec) -> np.ndarray:
    """Segments that are drawn, uint8 [DIFFERENT, 15, size, size]."""
    return np.random.RandomState(0).randint(0, 256, (DIFFERENT, *spec.shape[2:])).astype(np.uint8)


def shared(spec: Spec, segments: int, stride: int) -> Run:
    """Contender: all windows of a video in parts; gives the first one's logits."""
    model, pixels = forms.load_model(spec), video(spec)
    from stnet.backends.parts import build_stages

    parts = build_stages("auto", model, model.config.section("infer"))

    def run() -> np.ndarray:
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

    return run


def single(spec: Spec) -> Run:
    """Contender: the first window by what eval and predict compute with; gives its logits."""
    compute, pixels = forms.load_engine(spec, "auto"), video(spec)
    return lambda: compute(pixels[None, : spec.seg_num])[0]
