"""Every script runs, at tiny sizes. No time is asserted."""

import re
import subprocess
import sys

import pytest
from PIL import Image

from benchmarks.__main__ import ON_REQUEST, SCRIPTS, surroundings
from benchmarks.network import PEERS, installed
from benchmarks.precision import AIMS, draw, formats_here
from benchmarks.timer import ROOT, Times

HALF = ("forward", "train_step", "pipeline")  # about, of the time
SHARES = ([name for name in (*SCRIPTS, *ON_REQUEST) if name not in HALF], HALF)


@pytest.fixture(scope="module")
def printed():
    """What each script prints with --quick; both shares of them run at once."""
    runs = [
        subprocess.Popen(
            [sys.executable, "-m", "benchmarks", *names, "--quick", "--rounds", "1"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for names in SHARES
    ]
    said = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], said
    blocks = [block for out, _ in said for block in out.split("\n== ")[1:]]
    return {block.partition(":")[0]: block for block in blocks}


def names(text, title=""):
    """Names of the contenders in the tables whose title begins so."""
    tables = [table for table in text.split("\n\n")[1:] if table.startswith(title)]
    rows = re.compile(r"^  (.{58}) *[\d.]+ m?s +[\d.]+ m?s +[\d.]+$", re.MULTILINE)
    return {row.strip() for table in tables for row in rows.findall(table)}


@pytest.mark.slow
def test_every_script_runs_and_nobody_fails(printed):
    assert set(printed) == {*SCRIPTS, *ON_REQUEST}
    assert not [text for text in printed.values() if "FAILED" in text]


@pytest.mark.slow
def test_reader_is_compared_with_decord_and_the_original(printed):
    text = printed["reader"]
    assert names(text) == {"ours", "ours, normalised by NumPy", "decord alone", "original's way"}
    assert text.count("median") == 4 + 6  # sizes, and kinds of files
    assert text.count("have other bits: 0 (must be at most 0)") == 4
    assert [text.count(f"(aim: {aim})") for aim in ("at most 1.05", "at least 1.8", "at least 6.0", "at most 1.5")] == [
        2, 2, 2, 2,
    ]  # fmt: skip
    assert "MB (aim: at most 50)" in text


@pytest.mark.slow
def test_frames_that_shrink_are_compared_with_decoding_and_the_original(printed):
    text = printed["shrinking"]
    assert names(text) == {"ours", "PyAV, decoding all and nothing else", "decord alone", "original's way"}
    assert text.count("have other bits: 0 (must be at most 0)") == 4
    assert text.count("aim: at most 1.6") == 2


@pytest.mark.slow
def test_forward_and_train_step_agree_with_whoever_is_installed(printed):
    forward, there = printed["forward"], {name for name, (_, modules) in PEERS.items() if installed(*modules)}
    expected = {"ours", "ours, --engine=inference", "ours, --engine=paddle"} | there
    assert names(forward, "2 x 48") == expected
    assert forward.count("logits of ours - ") == len(expected) - 1
    for name in set(PEERS) - there:
        assert f"{name} is left out: " in forward
    assert "operations at the rate of" in forward
    assert names(printed["train_step"]) == {"ours"} | ({"PyTorch"} & there)


@pytest.mark.slow
def test_every_precision_of_this_machine_is_compared_with_float32_and_with_peers(printed):
    text, here = printed["precision"], formats_here()
    assert {f"ours, {name}" for name in ("fp32", *here)} <= names(text)
    assert all(text.count(f"at most {AIMS[name]})") == 1 for name in here)
    assert text.count("(aim: at most 1)") == len(here)
    assert text.count("logits differ by") == len(names(text))


@pytest.mark.slow
def test_pipeline_and_startup_run_the_programs(printed):
    assert names(printed["pipeline"]) == {"evaluation", "decoding alone", "network alone"}
    assert "evaluation / at best = " in printed["pipeline"]
    assert "predict.py, one clip, main process" in printed["pipeline"]
    assert "predict.py --help" in printed["startup"]


@pytest.mark.slow
def test_scaling_has_an_efficiency_for_each_row(printed):
    assert {"1 workers", "1 ranks"} <= names(printed["scaling"])
    assert printed["scaling"].count("clips a second, efficiency") == len(names(printed["scaling"]))


@pytest.mark.slow
def test_timeline_is_compared_with_one_window_after_the_other(printed):
    assert names(printed["timeline"]) == {"timeline", "window by window"}
    assert printed["timeline"].count("logits of the first window of both") == 3
    assert all(f"at least {aim}" in printed["timeline"] for aim in ("6.13", "2.47", "1.73"))


@pytest.mark.slow
def test_check_is_compared_with_decord_alone(printed):
    assert names(printed["check"]) == {"check", "decord alone, all cores", "decord alone, one process"}
    assert "decord alone, all cores / check = " in printed["check"]


def test_the_picture_shows_each_size(tmp_path):
    timed = {"OpenVINO, fp32": Times([2.0], [2.0]), "ours, int8": Times([1.0], [1.0])}
    draw({"7 x 224 x 224": timed, "25 x 256 x 256": timed}, tmp_path / "bars.png")
    with Image.open(tmp_path / "bars.png") as picture:
        assert picture.width > 800 and len(picture.convert("RGB").getcolors(1 << 20)) > 3


@pytest.mark.parametrize(("words", "code"), [([], 0), (["forwards"], 2)])
def test_the_scripts_are_listed(words, code):
    command = [sys.executable, "-m", "benchmarks", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "reader shrinking forward" in done.stdout


def test_machine_and_versions_are_said():
    said = surroundings()
    assert " cores, " in said and " GB, load " in said
    assert all(f"{name} " in said for name in ("python", "numpy", "pillow"))
