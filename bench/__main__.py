"""Measure this project against its peers on this machine.

python -m bench                                    # every part but those on request
python -m bench forward reader --rounds 7 --json bench.json
python -m bench scaling                            # on request: more and more processes, for a machine with many cores
python -m bench check                              # on request: how fast `tools.dataset check` looks at many clips
python -m bench timeline                           # on request: windows of a long video; a quarter of an hour

Ours and its peers take turns, each in a process of its own with the same number of threads; see bench/contender.py.
Peers are no dependencies: what is not installed is left out. For all of them, and ffmpeg, which draws the clips:

pip install imageio-ffmpeg onnxruntime openvino paddle2onnx torch torchvision

It ends with 0 if nobody failed and all results agree, whether or not the aims are met.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from typing import Any, Callable

from bench.network import forward, train_step
from bench.part import Part
from bench.picture import draw
from bench.precision import precision
from bench.programs import pipeline, scaling, startup
from bench.reader import check, reader, shrinking
from bench.timeline import timeline
from stnet import cli, runtime
from stnet.utils.atomic import write_json

ON_REQUEST: tuple[Callable[[Part], None], ...] = (scaling, check, timeline)
PARTS = {
    part.__name__: part for part in (reader, shrinking, forward, precision, train_step, pipeline, startup, *ON_REQUEST)
}
PACKAGES = (
    "paddlepaddle", "paddlepaddle-gpu", "numpy", "decord", "opencv-python", "opencv-python-headless", "pillow",
    "onnxruntime", "openvino", "torch", "paddle2onnx", "av",
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    environment = dict(os.environ)

    def run(argv: Sequence[str] | None) -> int:
        os.environ.clear()  # as it was: contenders set up their surroundings themselves, peers have their own
        os.environ.update(environment)
        os.environ.setdefault("STNET_THREADS", os.environ.get("OMP_NUM_THREADS", ""))
        return measure_parts(parse_args(argv))

    return cli.run(run, argv)


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags."""
    flags = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("parts", nargs="*", type=_part, metavar="PART", help=f"of {', '.join(PARTS)}")
    flags.add_argument("--rounds", type=cli.positive_int, help="of each measurement (default: 5, with --quick 2)")
    flags.add_argument("--json", default="", metavar="FILE", help="write everything there")
    flags.add_argument("--picture", default="", metavar="FILE", help="draw part precision there, as PNG")
    flags.add_argument("--quick", action="store_true", help="tiny sizes: does everything run? The times mean nothing")
    return flags.parse_args(argv)


def _part(text: str) -> str:
    if text not in PARTS:
        raise argparse.ArgumentTypeError(f"expected one of {', '.join(PARTS)}, found {text!r}")
    return text


def measure_parts(args: argparse.Namespace) -> int:
    """Measure, print, and write what was asked for; returns the exit code."""
    report = surroundings()
    report.update(rounds=args.rounds or (2 if args.quick else 5), quick=args.quick, parts={})
    print("{cpu}, {cores} cores, {memory_gb:g} GB memory, {system}, load {load:g}".format(**report["machine"]))
    print(", ".join(f"{name} {version}" for name, version in report["versions"].items()))
    print("{threads} threads, {rounds} rounds, ratios are medians over the rounds".format(**report))
    print("quick: tiny sizes, the times mean nothing\n" if args.quick else "", flush=True)
    good = []
    for name in args.parts or [name for name, measure in PARTS.items() if measure not in ON_REQUEST]:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            part = Part(name, report["rounds"], args.quick, report["threads"], folder)
            with part.going_on(name):
                PARTS[name](part)
        print(*part.lines(), "", sep="\n", flush=True)
        good.append(part.good)
        report["parts"][name] = {**vars(part), "good": part.good}
        if args.json:
            write_json(args.json, report)
    if args.picture and "precision" in report["parts"]:
        draw(report, args.picture)
    return 0 if all(good) else 1


def surroundings() -> dict[str, Any]:
    """The machine and how busy it is, versions of what is installed, and threads."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    models = [line.partition(":")[2].strip() for line in runtime.processor().splitlines() if "model name" in line]
    machine = {
        "cpu": next(iter(models), platform.machine()),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
    }
    return {"machine": machine, "versions": versions, "threads": runtime.threads()}


if __name__ == "__main__":
    sys.exit(main())
