"""Part precision: the network in fewer bits, ours against what people would take otherwise, and against float32."""

from __future__ import annotations

from functools import partial
from statistics import median

import numpy as np

from bench import network
from bench import spec as forms
from bench.clips import write_list
from bench.contender import Prepare, Run
from bench.network import installed
from bench.part import Part, Timed
from bench.spec import ONNX, WEIGHTS, Spec

QUANTISED = "int8-" + ONNX
AIMS = {"bf16": 0.60, "int8": 0.42}  # ours / the fastest float32
CLIPS = 8  # to calibrate ours with


def precision(part: Part) -> None:
    """One clip in float32, bfloat16 and bytes. That the classes stay right is the gate's to say, not this part's."""
    layers = 18 if part.quick else 50
    passes = {(2, 48): 1} if part.quick else {(7, 224): 4, (25, 256): 1}  # in a turn
    part.description = f"batch 1, {layers} layers, 400 classes"
    here = formats()
    part.notes += [f"{name} is left out: it cannot be had here" for name in AIMS if name not in here]
    write_list(f"{part.folder}/calibration.list", part.draw_clips(CLIPS, (340, 256), 60), CLIPS)
    for size, times in passes.items():
        spec = Spec(layers, *size)
        part.call(forms.write_weights, spec)
        with part.going_on("the network as ONNX"):
            part.call(forms.write_onnx, spec)
            if "int8" in here:
                part.call(quantise, spec)
        timed = part.time(contenders(spec, part.threads, here), times=times)
        best = min((name for name in timed if name.endswith("fp32")), key=lambda name: median(timed[name].seconds))
        part.add(spec.text, timed, base=best)
        for name in here:
            part.aim_ratio(timed, (f"ours, {name}", best), spec.text, AIMS[name])
            _compare_peers(part, spec.text, timed, name)
        _note_logits(part, spec.text, timed)


def formats() -> list[str]:
    """Those of AIMS that this machine computes in."""
    from stnet.quantize.processor import this_processor

    there = {"bf16": this_processor().bf16 and installed("openvino"), "int8": installed("onnxruntime", "onnx")}
    return [name for name in AIMS if there[name] and installed("paddle2onnx")]


def contenders(spec: Spec, threads: int, here: list[str]) -> dict[str, Prepare]:
    """Ours and its peers in each format."""
    crew: dict[str, Prepare] = {"ours, fp32": partial(network.ours, spec, "auto")}
    for name, (peer, modules) in network.PEERS.items():
        if installed(*modules):
            crew[f"{name}, fp32"] = partial(peer, spec, threads)
    for name in here:
        crew[f"ours, {name}"] = partial(ours, spec, name)
    if "bf16" in here:
        crew["OpenVINO, bf16"] = partial(network.openvino, spec, threads, "bf16")
        if "PyTorch, fp32" in crew:
            crew["PyTorch, bf16"] = partial(torch_bf16, spec, threads)
    if "int8" in here:
        crew["ONNX Runtime, int8"] = partial(network.onnxruntime, spec, threads, QUANTISED)
        if "OpenVINO, fp32" in crew:
            crew["OpenVINO, int8 of ONNX Runtime"] = partial(network.openvino, spec, threads, "f32", QUANTISED)
    return crew


def _compare_peers(part: Part, group: str, timed: dict[str, Timed], name: str) -> None:
    """Ours against the fastest peer in the same format."""
    peers = [peer for peer in timed if f", {name}" in peer and not peer.startswith("ours")]
    for best in sorted(peers, key=lambda peer: median(timed[peer].seconds))[:1]:
        part.aim_ratio(timed, (f"ours, {name}", best), group, 1.0)


def _note_logits(part: Part, group: str, timed: dict[str, Timed]) -> None:
    if "ours, fp32" in timed:
        expected = timed["ours, fp32"].result[1]
        for name, one in timed.items():
            share = np.abs(one.result[1] - expected).max() / np.abs(expected).max()
            part.notes.append(f"{group}, {name}: logits differ by {share:.2%} of the largest")


def ours(spec: Spec, name: str) -> Run:
    """Contender: what eval and predict compute with --precision; gives (its name, logits)."""
    config = forms.load_config(spec.overrides())
    from stnet.inference.predictor import Predictor
    from stnet.quantize.report import Precision

    asked = Precision(name, "calibration.list", unproven=True)  # too few clips to prove anything
    compute, clips = Predictor(WEIGHTS, config, device="cpu", precision=asked).engine, spec.clips()
    return lambda: (getattr(compute, "name", name), compute(clips))


def torch_bf16(spec: Spec, threads: int) -> Run:
    """Contender: PyTorch, eager, by its autocast; gives ("", logits)."""
    import torch

    run = network.torch(spec, threads)

    def cast() -> tuple[str, np.ndarray]:
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    return cast


def quantise(spec: Spec) -> None:
    """Write QUANTISED: ONNX Runtime's static quantisation, per channel, as its own documentation does it."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Clips(CalibrationDataReader):
        def __init__(self) -> None:
            self.clips = iter([spec.normalised_clips()])

        def get_next(self) -> dict[str, np.ndarray] | None:
            clips = next(self.clips, None)
            return None if clips is None else {"clips": clips}

    path = QUANTISED.format(spec)
    quant_pre_process(ONNX.format(spec), f"{path}.prepared", skip_symbolic_shape=True)
    quantize_static(f"{path}.prepared", path, Clips(), per_channel=True)
