"""StNet as users have it: a checkout, `pip install -e .`, a wheel; each in an environment of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_floors import ENTRIES

PROJECT = Path(__file__).parents[1]
KINDS = ["checkout", "editable", "wheel"]


def checked(*words, **options):
    """Standard output of a program that must succeed."""
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def copy_what_is_packed(folder):
    """A copy of the project's files that a wheel is made of."""
    for name in ["stnet", "models", "reader", "tools", "configs", "data"]:
        shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ["setup.py", "pyproject.toml", "README.md", "LICENSE", *(f"{name}.py" for name in ENTRIES)]:
        shutil.copy(PROJECT / name, folder)
    left_over = folder / "build" / "lib" / "core" / "errors.py"  # as building version 0.1.0 here would have left it
    left_over.parent.mkdir(parents=True)
    left_over.touch()
    return folder


def build(kind, checkout, folder):
    """What pip builds for `pip install .` (wheel) and for `pip install -e .` (editable)."""
    code = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
    checked(sys.executable, "-c", code, cwd=checkout)
    (path,) = folder.glob("*.whl")
    return path


def install(kind, checkout, folder):
    """(Python that has StNet, words that run its command, variables): an environment that sees this one's packages.

    Args:
        kind: one of KINDS.
        checkout: of copy_what_is_packed.
        folder: an empty one.
    """
    environment = folder / "environment"
    checked(sys.executable, "-m", "venv", "--without-pip", environment)
    python, variables = environment / "bin" / "python", {**os.environ}
    variables.pop("PYTHONPATH", None)
    if kind == "checkout":
        command, variables["PYTHONPATH"] = [python, "-m", "stnet"], str(checkout)
    else:
        path = build(kind, checkout, folder)
        checked(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", path)
        command = [environment / "bin" / "stnet"]
    (packages,) = environment.glob("lib/python*/site-packages")
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "others.pth").write_text("\n".join(others), encoding="utf-8")
    return python, command, variables


def environment_of(folder, *packages):
    """The Python of a new environment that holds these packages and no others; skips where pip cannot have them."""
    checked(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    words = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"pip cannot install {' '.join(packages)}: {done.stderr.strip().splitlines()[-1]}")
    return python
