"""Every part runs, at tiny sizes. No time is asserted."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from bench.__main__ import PARTS, parse_args, surroundings
from bench.contender import ROOT
from bench.network import installed
from bench.picture import draw
from bench.precision import AIMS, formats

HALF = ("forward", "train_step", "pipeline")  # about, of the time
SHARES = (tuple(set(PARTS) - set(HALF)), HALF)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What `python -m bench --quick` writes, both shares of the parts at once: (JSON, printed text)."""
    folder = tmp_path_factory.mktemp("bench")
    files = [folder / "one.json", folder / "other.json"]
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "bench", *parts, "--quick", "--rounds", "1", "--json", str(file)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for parts, file in zip(SHARES, files)
    ]
    printed = [run.communicate(timeout=300)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(printed)
    one, other = (json.loads(file.read_text()) for file in files)
    one["parts"].update(other["parts"])
    return one, "\n".join(printed)


def test_every_part_is_measured_and_nobody_fails(found):
    data, _ = found
    assert set(data["parts"]) == set(PARTS)
    assert data["quick"] and data["rounds"] == 1 and data["threads"] >= 1
    assert data["machine"]["cores"] >= 1 and "python" in data["versions"]
    for part in data["parts"].values():
        assert part["failures"] == []
        assert part["good"]
        for row in part["rows"]:
            assert row["median"] == row["seconds"][0] > 0
            assert row["ratio"] is None or row["ratio"] > 0
        assert all(aim["met"] == ((aim["value"] >= aim["aim"]) if aim["least"] else (aim["value"] <= aim["aim"]))
                   for aim in part["aims"])  # fmt: skip


def names(part, group=""):
    return {row["name"] for row in part["rows"] if row["group"].startswith(group)}


def test_reader_is_compared_with_decord_and_the_original(found):
    part = found[0]["parts"]["reader"]
    assert names(part) == {"ours", "ours, normalised by NumPy", "decord alone", "original's way"}
    assert len({row["group"] for row in part["rows"]}) == 4 + 6  # sizes, and kinds of files
    assert [aim["value"] for aim in part["aims"] if aim["must"]] == [0] * 4
    aims = [aim["aim"] for aim in part["aims"] if not aim["must"]]
    assert aims == [1.05, 1.8, 1.05, 6.0, 1.5, 1.8, 1.5, 6.0, 50]


def test_frames_that_shrink_are_compared_with_decoding_and_the_original(found):
    part = found[0]["parts"]["shrinking"]
    assert names(part) == {"ours", "PyAV, decoding all and nothing else", "decord alone", "original's way"}
    assert [aim["value"] for aim in part["aims"] if aim["must"]] == [0] * 4
    assert [aim["aim"] for aim in part["aims"] if not aim["must"]] == [1.6] * 2


def test_forward_and_train_step_agree_with_whoever_is_installed(found):
    data, printed = found
    forward, step = data["parts"]["forward"], data["parts"]["train_step"]
    with_onnx = installed("paddle2onnx")
    peers = {
        "ONNX Runtime": with_onnx and installed("onnxruntime"),
        "OpenVINO": with_onnx and installed("openvino"),
        "PyTorch": installed("torch", "torchvision"),
    }
    there = {name for name, is_there in peers.items() if is_there}
    expected = {"ours", "ours, --engine=inference", "ours, --engine=paddle"} | there
    assert {name for name in names(forward) if "product" not in name} == expected
    assert len([aim for aim in forward["aims"] if aim["must"]]) == len(expected) - 1
    for name in set(peers) - there:
        assert f"{name} is left out: " in printed
    assert any("at most 1.25" in line and "operations" in line for line in printed.splitlines())
    assert names(step) == {"ours"} | ({"PyTorch"} & there)


def test_every_precision_of_this_machine_is_compared_with_float32_and_with_peers(found):
    part, here = found[0]["parts"]["precision"], formats()
    assert {f"ours, {name}" for name in ("fp32", *here)} <= names(part)
    aims = [aim["aim"] for aim in part["aims"]]
    assert aims == [aim for name in here for aim in (AIMS[name], 1.0)]
    assert len([note for note in part["notes"] if "logits differ by" in note]) == len(part["rows"])


def test_the_picture_shows_each_size(found, tmp_path):
    draw(found[0], tmp_path / "bars.png")
    with Image.open(tmp_path / "bars.png") as picture:
        assert picture.width > 400 and len(picture.convert("RGB").getcolors(1 << 20)) > 3


def test_pipeline_and_startup_run_the_programs(found):
    data, printed = found
    pipeline = data["parts"]["pipeline"]
    assert names(pipeline) == {"evaluation", "decoding alone", "network alone"}
    assert [aim["aim"] for aim in pipeline["aims"]] == [1.08, 1.5]
    assert "predict.py, one clip, main process" in printed
    assert "predict.py --help" in names(data["parts"]["startup"])


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        parse_args(["forwards"])
    assert "expected one of reader, shrinking" in capsys.readouterr().err


def test_scaling_has_an_efficiency_for_each_row(found):
    part = found[0]["parts"]["scaling"]
    assert {"reading with 1 workers", "training with 1 ranks"} <= names(part)
    assert sum("clips a second, efficiency" in note for note in part["notes"]) == len(part["rows"])


def test_timeline_is_compared_with_one_window_after_the_other(found):
    part = found[0]["parts"]["timeline"]
    assert names(part) == {"timeline", "window by window"}
    assert [aim["met"] for aim in part["aims"] if aim["must"]] == [True] * 3
    assert [aim["aim"] for aim in part["aims"] if not aim["must"]] == pytest.approx([6.13, 2.47, 1.73], abs=0.01)


def test_check_is_compared_with_decord_alone(found):
    part = found[0]["parts"]["check"]
    assert names(part) == {"check", "decord alone, all cores", "decord alone, one process"}
    assert [aim["text"] for aim in part["aims"]] == ["one clip: decord alone, all cores / check"]


def test_machine_and_versions_are_said():
    report = surroundings()
    assert report["machine"]["cores"] >= 1 and report["machine"]["memory_gb"] > 0 and report["machine"]["cpu"]
    assert {"python", "numpy", "pillow"} <= set(report["versions"])
