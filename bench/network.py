"""Parts forward and train_step: the network in float32, ours against what people would take otherwise.

Ours starts from uint8 clips; peers get them normalised, ready made.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from statistics import median

import numpy as np

from bench import spec as forms
from bench.contender import Prepare, Run
from bench.part import Part, Timed
from bench.spec import ONNX, WEIGHTS, Spec

PRODUCTS = 4  # in an iteration


def installed(*modules: str) -> bool:
    """Whether modules can be imported; they are not."""
    return all(importlib.util.find_spec(module) for module in modules)


def forward(part: Part) -> None:
    """One clip by ours, by peers, and by what its multiply-adds alone take at the rate of a matrix product."""
    layers, side = (18, 512) if part.quick else (50, 2048)
    passes = {(2, 48): 1} if part.quick else {(7, 224): 4, (25, 256): 1}  # in a turn
    part.description = f"fp32, batch 1, {layers} layers, 400 classes"
    for name, (_, modules) in PEERS.items():
        part.notes += [] if installed(*modules) else [f"{name} is left out: it needs {' and '.join(modules)}"]
    peers = {name: contender for name, (contender, modules) in PEERS.items() if installed(*modules)}
    for size, times in passes.items():
        spec = Spec(layers, *size)
        flops = 2 * part.call(forms.write_weights, spec)
        if {"ONNX Runtime", "OpenVINO"} & {*peers}:
            with part.going_on("the network as ONNX"):
                part.call(forms.write_onnx, spec)
        contenders: dict[str, Prepare] = {"ours": partial(ours, spec, "auto")}
        contenders.update({f"ours, --engine={name}": partial(ours, spec, name) for name in ("inference", "paddle")})
        contenders.update({name: partial(contender, spec, part.threads) for name, contender in peers.items()})
        libraries = [name for name in ("numpy", "paddle", "torch") if installed(name)]
        contenders.update(
            {f"matrix product by {name}": partial(product, name, side, part.threads) for name in libraries}
        )
        timed = part.time(contenders, times=times)
        products = {name: timed.pop(name).per(PRODUCTS) for name in contenders if name in timed and "product" in name}
        part.add(spec.text, timed, base="ours")
        part.add(f"{spec.text}: 2 x {side}^3 operations", products)
        if "ours" in timed and products:
            _compare(part, spec.text, timed)
            best = min(products, key=lambda name: median(products[name].seconds))
            rate = 2 * side**3 / median(products[best].seconds)
            text = f"{spec.text}: ours / {flops / 1e9:.1f} G operations at {rate / 1e9:.0f} G a second ({best})"
            part.aim(text, timed["ours"].ratio(products[best]) * 2 * side**3 / flops, 1.25)


def _compare(part: Part, group: str, timed: Mapping[str, Timed]) -> None:
    engine, expected = timed["ours"].result
    part.notes.append(f"{group}: ours runs {engine}")
    limit = 1e-4 * max(1.0, float(np.abs(expected).max()))
    for name in timed:
        difference = float(np.abs(timed[name].result[1] - expected).max())
        if name != "ours":
            part.aim(f"{group}: logits of ours - {name}", difference, limit, must=True)
    peers = [name for name in PEERS if name in timed]
    for best in sorted(peers, key=lambda name: median(timed[name].seconds))[:1]:
        part.aim_ratio(timed, ("ours", best), group, 1.0)


def ours(spec: Spec, engine: str) -> Run:
    """Contender: what eval and predict compute with; gives (its name, logits)."""
    compute, clips = forms.load_engine(spec, engine), spec.clips()
    return lambda: (compute.name, compute(clips))


def onnxruntime(spec: Spec, threads: int, file: str = ONNX) -> Run:
    """Contender: ONNX Runtime with its own choice of optimisations; gives ("", logits)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3  # errors
    session = onnxruntime.InferenceSession(file.format(spec), options, ["CPUExecutionProvider"])
    clips = spec.normalised_clips()
    return lambda: ("", session.run(None, {"clips": clips})[0])


def openvino(spec: Spec, threads: int, precision: str = "f32", file: str = ONNX) -> Run:
    """Contender: OpenVINO, told in what to compute and to care for the time of one clip; gives ("", logits)."""
    import openvino

    hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    model, clips = openvino.Core().compile_model(file.format(spec), "CPU", hints), spec.normalised_clips()
    return lambda: ("", model(clips)[0])


def torch(spec: Spec, threads: int) -> Run:
    """Contender: PyTorch, eager; gives ("", logits)."""
    import torch

    from bench.peers import torch_stnet

    network, clips = torch_stnet.load(WEIGHTS, spec.layers, threads).eval(), torch.from_numpy(spec.normalised_clips())
    return torch.inference_mode()(lambda: ("", network(clips).float().numpy()))


PEERS: dict[str, tuple[Callable[..., Run], tuple[str, ...]]] = {  # name: (contender, modules)
    "ONNX Runtime": (onnxruntime, ("onnxruntime", "paddle2onnx")),
    "OpenVINO": (openvino, ("openvino", "paddle2onnx")),
    "PyTorch": (torch, ("torch", "torchvision")),
}


def product(module: str, side: int, threads: int) -> Run:
    """Contender: products of square float32 matrices by NumPy, Paddle or PyTorch."""
    if module == "paddle":
        forms.start()
    library = importlib.import_module(module)
    if module == "torch":
        library.set_num_threads(threads)
    convert = getattr(library, {"numpy": "asarray", "paddle": "to_tensor", "torch": "from_numpy"}[module])
    one, other = map(convert, np.random.RandomState(0).rand(2, side, side).astype(np.float32))
    return lambda: [library.matmul(one, other) for _ in range(PRODUCTS)] and None


def train_step(part: Part) -> None:
    """One step, from the clips to the updated weights, again and again, from the same weights."""
    layers, seg_num, size = (18, 2, 48) if part.quick else (50, 7, 112)
    spec = Spec(layers, seg_num, size, batch=2, rate=1e-3)  # small: the labels of noise are not to be learnt
    part.description = f"forward, backward and update, batch {spec.batch}, {spec.text}, {layers} layers, fp32"
    part.call(forms.write_weights, spec)
    contenders: dict[str, Prepare] = {"ours": partial(our_step, spec)}
    if installed("torch", "torchvision"):
        contenders["PyTorch"] = partial(torch_step, spec, part.threads)
    else:
        part.notes.append("PyTorch is left out: it needs torch and torchvision")
    timed = part.time(contenders, warm=2)
    part.add("one step", timed, base="ours")
    part.aim_ratio(timed, ("ours", "PyTorch"), "one step", 1.15)
    if len(timed) == 2:
        one, other = (timed[name].result for name in contenders)
        part.aim(f"first losses of ours ({one:.5f}) - PyTorch ({other:.5f})", abs(one - other), 1e-3, must=True)


def our_step(spec: Spec) -> Run:
    """Contender: training's step; gives the loss."""
    model = forms.load_model(spec, "train")
    import paddle

    from stnet.models.normalizer import Normalizer
    from stnet.reader.loader import Batch
    from stnet.training.step import Stepper

    normalize = Normalizer(model.config.MODEL.image_mean, model.config.MODEL.image_std)
    clips = spec.clips()
    stepper = Stepper(model, normalize, (10**6, 2 * 10**6), clips.shape[1:])
    model.network.train()
    batch = Batch(paddle.to_tensor(clips), paddle.arange(spec.batch, dtype="int64"), list(range(spec.batch)))

    def run() -> float:
        (outcome,) = stepper.step([batch])
        return float(outcome.loss)  # as the log lines do; waits for it

    return run


def torch_step(spec: Spec, threads: int) -> Run:
    """Contender: the same in PyTorch, eager; gives the loss."""
    import torch

    from bench.peers import torch_stnet

    network = torch_stnet.load(WEIGHTS, spec.layers, threads).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=spec.rate, momentum=0.9, weight_decay=1e-4)
    clips, labels = torch.from_numpy(spec.normalised_clips()), torch.arange(spec.batch)

    def run() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(clips), labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return run
