"""The network in float32 on one clip: ours, its peers, and matrix products with as many multiply-adds."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from statistics import median

import numpy as np

from benchmarks.network import installed, load_config, ours, peers, sizes, write_onnx, write_weights
from benchmarks.timer import Prepare, Run, Timer, run

PRODUCTS = 4  # of an iteration


def forward(timer: Timer) -> None:
    """Time single clips, and compare the logits."""
    others, side = peers(), 512 if timer.quick else 2048
    for spec, times in sizes(timer.quick).items():
        flops = 2 * timer.call(write_weights, spec)
        if {"ONNX Runtime", "OpenVINO"} & {*others}:
            timer.call(write_onnx, spec)
        contenders: dict[str, Prepare] = {"ours": partial(ours, spec)}
        contenders |= {f"ours, --engine={name}": partial(ours, spec, name) for name in ("inference", "paddle")}
        contenders |= {name: partial(contender, spec, timer.threads) for name, contender in others.items()}
        libraries = [name for name in ("numpy", "paddle", "torch") if installed(name)]
        contenders |= {f"matrix product by {name}": partial(product, name, side, timer.threads) for name in libraries}

        timed = timer.time(contenders, times=times)
        products = {name: timed.pop(name).per(PRODUCTS) for name in list(timed) if name.startswith("matrix product")}
        timer.table(f"{spec.text}, fp32, batch 1, {spec.layers} layers", timed)
        timer.table(f"{side} x {side} x {side}", products)
        if "ours" not in timed or not products:
            continue

        engine, expected = timed["ours"].result
        print(f"  ours runs {engine}")
        limit = 1e-4 * max(1.0, float(np.abs(expected).max()))
        for name in list(timed)[1:]:
            timer.agree(f"logits of ours - {name}", float(np.abs(timed[name].result[1] - expected).max()), limit)
        for best in sorted({*others} & {*timed}, key=lambda name: median(timed[name].seconds))[:1]:
            timer.ratio(timed, "ours", best, "at most 1")
        best = min(products, key=lambda name: median(products[name].seconds))
        ratio = timed["ours"].ratio(products[best]) * 2 * side**3 / flops
        print(f"  ours / {flops / 1e9:.1f} G operations at the rate of the {best} = {ratio:.3g} (aim: at most 1.25)")


def product(module: str, side: int, threads: int) -> Run:
    """Contender: products of square float32 matrices by NumPy, Paddle or PyTorch."""
    if module == "paddle":
        load_config([])  # sets threads and environment
    library = importlib.import_module(module)
    if module == "torch":
        library.set_num_threads(threads)
    convert = getattr(library, {"numpy": "asarray", "paddle": "to_tensor", "torch": "from_numpy"}[module])
    one, other = map(convert, np.random.RandomState(0).rand(2, side, side).astype(np.float32))
    return lambda: [library.matmul(one, other) for _ in range(PRODUCTS)] and None


if __name__ == "__main__":
    sys.exit(run(forward))
