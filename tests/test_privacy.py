"""Nothing speaks to the network unasked, or leaves an ID in a home folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
IMPORTS = """
import sys
from stnet import runtime
runtime.prepare()
runtime.prepare()  # as each Predictor does
import {module}
print(sorted(name for name in sys.modules if name.startswith("openvino_telemetry.")))
"""


def run_in(home, *words):
    """What a program prints that has an empty home folder; it made no connection over IP, where strace can tell."""
    traced = home.parent / "connections"
    strace = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", traced] if can_trace() else []
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "STNET_", "ORT_", "CI"))}
    environment = {**kept, "HOME": str(home), "STNET_WEIGHTS_URL": "none"}
    command = [str(word) for word in (*strace, sys.executable, *words)]
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if strace:
        assert re.findall(r"^.*AF_INET.*$", traced.read_text(), re.MULTILINE) == []
    return done.stdout


def can_trace():
    return bool(shutil.which("strace")) and subprocess.run(["strace", "-qq", "true"], check=False).returncode == 0


def files_in(home):
    return sorted({str(path.relative_to(home).parent) for path in home.rglob("*") if path.is_file()})


@pytest.mark.parametrize("module", ["onnxruntime", "openvino"])
def test_libraries_do_not_tell_their_makers(root, module):
    pytest.importorskip(module)
    assert run_in(root / "home", "-c", IMPORTS.format(module=module)) == "[]\n"
    assert files_in(root / "home") == []


def test_a_variable_that_the_user_has_set_is_left_alone(monkeypatch):
    from stnet import runtime

    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    runtime.disable_telemetry()
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "0"


@pytest.mark.parametrize("engine", ["onnxruntime", pytest.param("inference", marks=pytest.mark.long)])
def test_predict_leaves_exports_alone_in_a_home_folder(clip_set, trained, root, engine):
    if engine == "onnxruntime":
        pytest.importorskip("paddle2onnx")
    words = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "--save_dir", root]
    run_in(root / "home", "predict.py", clip_set / "val 0.mp4", *words, f"--engine={engine}")
    assert {path.split("/exports")[0] for path in files_in(root / "home")} == {".paddle/weights"}


@pytest.mark.long
def test_training_evaluation_and_exports_ask_nobody(clip_set, trained, root):
    words = ["--config", clip_set / "tiny.yaml", "--save_dir", root / "out"]
    weights = ["--weights", trained / "STNET_final.pdparams"]
    run_in(root / "home", "train.py", *words, "--pretrain=none", "--epoch=1")
    run_in(root / "home", "eval.py", *words, *weights)
    run_in(root / "home", "predict.py", *words, *weights, "--timeline", clip_set / "val 0.mp4")
    run_in(root / "home", "inference_model.py", *words, *weights)
    places = {path.split("/")[0] for path in files_in(root / "home")}
    assert places <= {".paddle", ".cache", ".config"}
    assert not (root / "home/.cache/Microsoft").exists()  # .cache and .config hold matplotlib's list of fonts
