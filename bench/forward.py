"""One clip through the network in float32: ours against the engines that people would take otherwise.

Ours is what eval and predict use, from the uint8 clip to the logits; peers get the normalised clip ready made. Below
them all lies the time that the multiply-adds alone take at the rate of the fastest matrix product found here.
"""

import os
import statistics

import numpy as np

from bench import networks
from bench.child import Work
from bench.measure import Failed, installed, interleave, ratio
from bench.results import Part

AIM, ARITHMETIC_AIM = 1.0, 1.25
TOLERANCE = 1e-4  # of the logits, relative to the largest where that is above 1
_OURS, _INFERENCE, _DYGRAPH = "ours", "ours, --engine=inference", "ours, --engine=paddle"
_PEERS = {  # name: (factory, modules)
    "ONNX Runtime": ("onnxruntime", ("onnxruntime", "paddle2onnx")),
    "OpenVINO": ("openvino", ("openvino", "paddle2onnx")),
    "PyTorch": ("torch", ("torch",)),
}
_PRODUCTS = {"NumPy": "numpy", "Paddle": "paddle", "PyTorch": "torch"}  # name: module
_AT_ONCE = 4  # products in an iteration


def measure(settings):
    """The Part of this module.

    Args:
        settings: bench.measure.Settings.
    """
    layers = 18 if settings.quick else 50
    cases = {(2, 48): 1} if settings.quick else {(7, 224): 4, (25, 256): 1}  # (seg_num, size): passes in a turn
    part = Part("forward", f"fp32, batch 1, {layers} layers, 400 classes")
    shared = {"folder": settings.folder, "layers": layers, "threads": settings.threads}
    weights = _path(settings.folder, "weights")
    macs = settings.call("bench.networks:write_weights", path=weights, layers=layers, cases=list(cases))
    peers = write_peers(part, settings, layers, list(cases))
    factories = {_OURS: ("bench.forward:ours", {**shared, "engine": "auto"})}
    factories[_INFERENCE] = ("bench.forward:ours", {**shared, "engine": "inference"})
    factories[_DYGRAPH] = ("bench.forward:ours", {**shared, "engine": "paddle"})
    factories.update({name: (f"bench.forward:{_PEERS[name][0]}", shared) for name in peers})
    size = 512 if settings.quick else 2048
    for name, module in _PRODUCTS.items():
        if installed(module):
            product = {"module": module, "size": size, "threads": settings.threads}
            factories[_product(name)] = ("bench.forward:product", product)
    with settings.crew(factories) as contenders:
        for (case, times), count in zip(cases.items(), macs):
            timed = interleave(contenders, settings.rounds, case, times, failures=part.failures)
            _note(part, f"{case[0]} x {case[1]} x {case[1]}", timed, 2 * count, 2 * size**3)
    return part


def write_peers(part, settings, layers, cases):
    """Write the network for the peers that are installed; returns their names."""
    left = []
    for name, (_, modules) in _PEERS.items():
        missing = [module for module in modules if not installed(module)]
        if missing:
            part.notes.append(f"{name} is left out: {' and '.join(missing)} not installed")
        else:
            left.append(name)
    weights = _path(settings.folder, "weights")
    try:
        if "PyTorch" in left:
            path = _path(settings.folder, "torch")
            settings.call("bench.networks:write_torch", path=path, weights=weights, layers=layers)
    except Failed as error:
        left.remove("PyTorch")
        part.failures.append(f"the network for PyTorch: {error}")
    try:
        if {"ONNX Runtime", "OpenVINO"} & {*left}:
            paths = [_path(settings.folder, "onnx", case) for case in cases]
            settings.call("bench.networks:write_onnx", paths=paths, weights=weights, layers=layers, cases=cases)
    except Failed as error:
        left = [name for name in left if name == "PyTorch"]
        part.failures.append(f"the network as ONNX: {error}")
    return left


def _path(folder, kind, case=None):
    if kind == "onnx":
        return os.path.join(folder, f"network-{case[0]}-{case[1]}.onnx")
    return os.path.join(folder, {"weights": "weights.pdparams", "torch": "weights.pt"}[kind])


def _product(name):
    return f"matrix product by {name}"


def _note(part, group, timed, flops, product_flops):
    """Rows, aims and checks of one size."""
    products = {name: one.shared_by(_AT_ONCE) for name, one in timed.items() if name in map(_product, _PRODUCTS)}
    engines = {name: one for name, one in timed.items() if name not in products}
    part.add(group, engines, base=_OURS)
    part.add(f"{group}: 2 x {round((product_flops / 2) ** (1 / 3))}^3 operations", products)
    for name, one in engines.items():
        if _OURS in engines and name != _OURS:
            expected = np.array(engines[_OURS].facts["logits"])
            difference = float(np.abs(np.array(one.facts["logits"]) - expected).max())
            limit = TOLERANCE * max(1.0, float(np.abs(expected).max()))
            part.check(f"{group}: logits of ours and {name}", difference, limit)
    if _OURS not in engines:
        return
    part.notes.append(f"{group}: ours runs {engines[_OURS].facts['engine']}")
    peers = [name for name in engines if name in _PEERS]
    if peers:
        best = min(peers, key=lambda name: engines[name].median)
        text = f"{group}: ours / best of {', '.join(peers)} ({best})"
        part.aim_ratio(text, engines[_OURS], engines[best], AIM)
    if products:
        best = min(products, key=lambda name: products[name].median)
        rate = product_flops / statistics.median(products[best].seconds) / 1e9
        value = ratio(engines[_OURS], products[best], product_flops / flops)
        text = f"{group}: ours / {flops / 1e9:.1f} G operations at {rate:.0f} G a second ({best})"
        part.aim(text, value, ARITHMETIC_AIM)


def ours(folder, layers, threads, engine):
    """Factory: backends.engines.make_engine; facts are logits and the engine's name."""
    networks.start()
    os.environ["STNET_WEIGHTS_HOME"] = folder

    from backends.engines import make_engine

    made = {}

    def run(case):
        if case not in made:
            model = networks.load_model(layers, *case, weights=_path(folder, "weights"))
            made[case] = make_engine(engine, model, model.config.section("infer")), networks.clips(1, *case)
        compute, clips = made[case]
        return compute.name, compute(clips)

    return Work(run, lambda found: {"engine": found[0], "logits": found[1][0].tolist()})


def _peer(prepare):
    """Work of a peer; prepare(case) returns a function from the normalised clip to logits."""
    made = {}

    def run(case):
        if case not in made:
            made[case] = prepare(case), networks.normalised(networks.clips(1, *case))
        compute, clips = made[case]
        return compute(clips)

    return Work(run, lambda logits: {"logits": np.asarray(logits)[0].tolist()})


def onnxruntime(folder, layers, threads):
    """Factory: ONNX Runtime with its own choice of optimisations."""
    import onnxruntime

    def prepare(case):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(_path(folder, "onnx", case), options, ["CPUExecutionProvider"])
        return lambda clips: session.run(None, {"clips": clips})[0]

    return _peer(prepare)


def openvino(folder, layers, threads):
    """Factory: OpenVINO, told to keep float32 and to care for the time of one clip."""
    import openvino

    def prepare(case):
        hints = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
        }
        model = openvino.Core().compile_model(_path(folder, "onnx", case), "CPU", hints)
        return lambda clips: model(clips)[0]

    return _peer(prepare)


def torch(folder, layers, threads):
    """Factory: PyTorch, eager."""
    import torch

    network = networks.load_torch(_path(folder, "torch"), layers, threads).eval()

    def compute(clips):
        with torch.inference_mode():
            return network(torch.from_numpy(clips)).numpy()

    return _peer(lambda case: compute)


def product(module, size, threads):
    """Factory: some products of square float32 matrices by NumPy, Paddle or PyTorch."""
    made = np.random.RandomState(0).rand(2, size, size).astype(np.float32)
    multiply = np.matmul
    if module == "paddle":
        networks.start()
        import paddle

        made, multiply = [paddle.to_tensor(one) for one in made], paddle.matmul
    if module == "torch":
        import torch

        torch.set_num_threads(threads)
        made, multiply = [torch.from_numpy(one) for one in made], torch.mm

    def run(_):
        for _ in range(_AT_ONCE):
            multiply(*made)

    return Work(run)
