"""Compare the speed of this project with its peers on this machine; each script is one benchmark.

python -m benchmarks                              # lists them
python -m benchmarks reader forward --rounds 3    # runs these, one after the other
python -m benchmarks all                          # all but scaling, check and timeline: about 45 minutes on 2 cores
python -m benchmarks.precision --help             # flags of one

A peer that is not installed is left out. To install all, and ffmpeg, which draws the clips:

pip install av imageio-ffmpeg onnxruntime openvino paddle2onnx torch torchvision

The exit code is 0 if all ran and their results agree.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys

from stnet import runtime

SCRIPTS = ("reader", "shrinking", "forward", "precision", "train_step", "pipeline", "startup")
ON_REQUEST = ("scaling", "check", "timeline")
PACKAGES = "paddlepaddle paddlepaddle-gpu numpy decord opencv-python opencv-python-headless pillow onnxruntime openvino"


def main(words: list[str]) -> int:
    """Run the named scripts with the given flags. Returns the highest exit code."""
    asked = [name for word in words for name in (SCRIPTS if word == "all" else [word])]
    names = [name for name in asked if name in (*SCRIPTS, *ON_REQUEST)]
    flags = [word for word in words if word not in (*names, "all")]
    if not names:
        print(f"{__doc__}\n{' '.join((*SCRIPTS, *ON_REQUEST))}")
        return 2 if words and words[0] not in ("-h", "--help") else 0
    print(surroundings(), flush=True)
    return max(subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *flags]) for name in names)


def surroundings() -> str:
    """Machine, its load, and versions of the installed packages."""
    models = [line.partition(":")[2].strip() for line in runtime.processor().splitlines() if "model name" in line]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    words = [*models[:1], f"{os.cpu_count()} cores", f"{memory:.1f} GB", f"load {os.getloadavg()[0]:.2f}"]
    words += [platform.platform(), f"python {platform.python_version()}"]
    for name in (*PACKAGES.split(), "torch", "paddle2onnx", "av"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            words.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
