"""The network in float32, bfloat16 and int8 on one clip: ours and its peers, against the fastest float32.

Accuracy is not measured here.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Callable

import numpy as np

from benchmarks import network
from benchmarks.clips import draw_clips, write_list
from benchmarks.network import ONNX, Spec
from benchmarks.timer import Prepare, Run, Timer, Times, run
from stnet.quantize.report import this_processor
from stnet.utils.atomic import write_atomically

QUANTISED = "int8-" + ONNX
AIMS = {"bf16": 0.60, "int8": 0.42}  # ours / the fastest float32


def precision(timer: Timer) -> None:
    """Time one clip in each format, and print the deviation of the logits."""
    formats, others = formats_here(), network.peers()
    for name in set(AIMS) - set(formats):
        print(f"{name} is left out: this machine or what is installed does not compute in it")
    write_list(f"{timer.folder}/calibration.list", draw_clips(timer.folder, 8, (340, 256), 60), 8)
    for spec, times in network.sizes(timer.quick).items():
        for prepare in (network.write_weights, network.write_onnx, *([quantise] if "int8" in formats else [])):
            timer.call(prepare, spec)
        timed = timer.time(contenders(spec, timer.threads, others, formats), times=times)
        ranked = sorted(timed, key=lambda name: median(timed[name].seconds))
        best = next(name for name in ranked if name.endswith("fp32"))
        timer.table(f"{spec.text}, batch 1, {spec.layers} layers", {best: timed[best], **timed})
        for name in formats:
            timer.ratio(timed, f"ours, {name}", best, f"at most {AIMS[name]}")
            for peer in [peer for peer in ranked if f", {name}" in peer and not peer.startswith("ours")][:1]:
                timer.ratio(timed, f"ours, {name}", peer, "at most 1")
        if "ours, fp32" in timed:
            expected = timed["ours, fp32"].result[1]
            for name, one in timed.items():
                share = np.abs(one.result[1] - expected).max() / np.abs(expected).max()
                print(f"  {name}: logits differ by {share:.2%} of the largest")


def contenders(
    spec: Spec, threads: int, others: Mapping[str, Callable[..., Run]], formats: list[str]
) -> dict[str, Prepare]:
    """Contenders: ours and its peers in each format."""
    ways: dict[str, Prepare] = {"ours, fp32": partial(network.ours, spec)}
    ways |= {f"{name}, fp32": partial(peer, spec, threads) for name, peer in others.items()}
    ways |= {f"ours, {name}": partial(ours, spec, name) for name in formats}
    if "bf16" in formats:
        ways["OpenVINO, bf16"] = partial(network.openvino, spec, threads, "bf16")
        if "PyTorch" in others:
            ways["PyTorch, bf16"] = partial(network.torch, spec, threads, bf16=True)
    if "int8" in formats:
        ways["ONNX Runtime, int8"] = partial(network.onnxruntime, spec, threads, QUANTISED)
        if "OpenVINO" in others:
            ways["OpenVINO, int8 of ONNX Runtime"] = partial(network.openvino, spec, threads, "f32", QUANTISED)
    return ways


def formats_here() -> list[str]:
    """Formats of AIMS that this machine supports."""
    has_bf16 = this_processor().bf16 and network.installed("openvino")
    there = {"bf16": has_bf16, "int8": network.installed("onnxruntime", "onnx")}
    return [name for name in AIMS if there[name] and network.installed("paddle2onnx")]


def ours(spec: Spec, name: str) -> Run:
    """Contender: the engine of eval and predict with --precision; gives (its name, logits)."""
    from stnet.quantize.report import Precision

    asked = Precision(name, "calibration.list", unproven=True)  # too few clips for a validation report
    compute, clips = network.load_engine(spec.overrides(), precision=asked), spec.clips()
    return lambda: (getattr(compute, "name", name), compute(clips))


def quantise(spec: Spec) -> None:
    """Write QUANTISED: ONNX Runtime's static quantisation, per channel, as in its documentation."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Clips(CalibrationDataReader):
        def __init__(self) -> None:
            self.clips = iter([{"clips": spec.normalised_clips()}])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.clips, None)

    path = QUANTISED.format(spec)
    quant_pre_process(ONNX.format(spec), f"{path}.prepared", skip_symbolic_shape=True)
    quantize_static(f"{path}.prepared", path, Clips(), per_channel=True)


def draw(tables: Mapping[str, Mapping[str, Times]], path: str | Path) -> None:
    """Draw bars of the times relative to the first of each table, into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height = 0.26 * max(map(len, tables.values())) + 1.1
    figure = Figure(figsize=(4.6 * len(tables), height), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, timed) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items()):
        base = next(iter(timed.values()))
        bars = sorted(((one.ratio(base), name) for name, one in timed.items()), reverse=True)
        colours = ["#1f6feb" if name.startswith("ours") else "#b8c0cc" for _, name in bars]
        axes.barh([name for _, name in bars], [ratio for ratio, _ in bars], color=colours)
        for row, (ratio, _) in enumerate(bars):
            axes.text(min(ratio, 1.6), row, f" {ratio:.2f}", va="center", fontsize=8)
        axes.axvline(1, color="#57606a", linewidth=0.8)
        axes.set_xlim(0, 1.9)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("time of one clip / that of the fastest float32", fontsize=8)
    write_atomically(str(path), lambda temporary: figure.savefig(temporary, format="png"))


if __name__ == "__main__":
    sys.exit(run(precision, draw))
