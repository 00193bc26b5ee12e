"""stnet.quantize.report: what the figures of two engines prove, and which record is believed."""

import numpy as np
import pytest

from stnet import runtime
from stnet.quantize.report import AgreementStats, Bounds, ValidationReport, this_processor

VERSIONS = {"onnxruntime": "1.32.0"}


def figures(**changes):
    values = {
        "clips": 200,
        "equal": 198,
        "largest": 0.1,
        "mean": 0.01,
        "labelled": 100,
        "right_fp32": 90,
        "right": 89,
    }
    return {**values, **changes}


def speed(**changes):
    return {"fp32": "ONNX Runtime", "batch": 3, "seconds_fp32": 0.4, "seconds": 0.1, **changes}


def record(**changes):
    values = {
        "precision": "int8",
        "processor": this_processor()._asdict(),
        "runtimes": VERSIONS,
        "sha256": "0" * 64,
        "calibration": {"clips": 64, "sha256": "1" * 64},
        "in_float32": [],
        "searched": False,
        "figures": figures(),
        "speed": speed(),
    }
    return {**values, **changes}


def test_the_figures_count_classes_and_measure_probabilities():
    expected = np.log(np.float32([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1]]))
    found = np.log(np.float32([[0.6, 0.4], [0.6, 0.4], [0.9, 0.1]]))
    made = AgreementStats.of(expected, found, [0, 1, None])
    assert (made.clips, made.equal, made.labelled, made.right_fp32, made.right) == (3, 2, 2, 2, 1)
    assert made.largest == pytest.approx(0.2, abs=1e-6)
    assert made.mean == pytest.approx(0.1, abs=1e-6)


def test_what_is_not_finite_agrees_with_nothing():
    expected = np.float32([[1, 0], [1, 0]])
    made = AgreementStats.of(expected, np.float32([[np.nan, 0], [np.inf, 0]]), [0, 0])
    assert (made.equal, made.right, made.right_fp32, made.largest) == (0, 0, 2, 1)


@pytest.mark.parametrize(
    ("changes", "bounds", "refusal"),
    [
        ({}, Bounds(), ""),
        ({"equal": 197}, Bounds(), "refused: fewer than 99.00% of the clips keep their class"),
        ({"equal": 197}, Bounds(agreement=0.98), ""),
        ({"equal": 200, "largest": 0.62}, Bounds(), "refused: a probability differs by more than 0.2"),
        ({"equal": 200, "largest": 0.62}, Bounds(difference=0.7), ""),
        (
            {"equal": 100, "largest": 0.3},
            Bounds(0.9, 0.1),
            "refused: fewer than 90.00% of the clips keep their class, and a probability differs by more than 0.1",
        ),
        ({"clips": 199, "equal": 199}, Bounds(), "not proven: 199 clips were compared, at least 200 are needed"),
    ],
)
def test_200_clips_are_a_proof_if_classes_and_probabilities_stay(changes, bounds, refusal):
    assert AgreementStats.read(figures(**changes)).refusal(bounds) == refusal


@pytest.mark.parametrize(
    "changes",
    [
        {"equal": 201},
        {"equal": -1},
        {"equal": True},
        {"equal": "198"},
        {"clips": 0, "equal": 0, "labelled": 0, "right": 0, "right_fp32": 0},
        {"largest": float("nan")},
        {"largest": 1.5},
        {"mean": 0.2},
        {"labelled": 201},
        {"right": 101},
        {"passed": True},
    ],
)
def test_figures_that_no_comparison_gives_are_refused(changes):
    with pytest.raises((ValueError, TypeError)):
        AgreementStats.read(figures(**changes))


def test_a_record_is_read_as_it_was_written():
    read = ValidationReport.read(record())
    assert read.to_dict() == record()
    assert read.foreign(VERSIONS) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"processor": {"model": "A"}},
        {"processor": None},
        {"runtimes": None},
        {"in_float32": [1]},
        {"calibration": {"clips": "64", "sha256": ""}},
        {"figures": []},
        {"searched": 1},
        {"speed": speed(seconds=0.0)},
        {"speed": speed(batch=0)},
        {"speed": speed(seconds=None)},
        {"speed": speed(fp32=1)},
    ],
)
def test_a_record_of_another_form_is_refused(changes):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        ValidationReport.read(record(**changes))


def test_a_record_says_how_right_and_how_fast_at_which_batch():
    assert str(ValidationReport.read(record())) == (
        "198 of 200 clips keep their class, probabilities differ by 0.1000 at most, 0.010000 on average; top-1 0.8900, "
        "in float32 0.9000; 4.00 times as fast as float32 by ONNX Runtime, 3 at once"
    )


def test_a_record_of_another_processor_or_version_is_foreign(monkeypatch):
    read = ValidationReport.read(record())
    assert read.foreign({"onnxruntime": "1.0"}) == "other versions (onnxruntime 1.32.0)"
    monkeypatch.setattr(runtime, "processor", lambda: "model name : Another\nflags : sse avx2\n")
    assert read.foreign(VERSIONS).startswith("another processor (")


@pytest.mark.parametrize(
    ("flags", "vnni", "bf16"),
    [("avx2", False, False), ("avx2 avx_vnni", True, False), ("avx512_vnni amx_bf16", True, True)],
)
def test_a_processor_says_what_it_computes_in(flags, vnni, bf16, monkeypatch):
    monkeypatch.setattr(runtime, "processor", lambda: f"model name\t: A\nflags\t\t: sse {flags}\n")
    processor = this_processor()
    assert (processor.model, processor.vnni, processor.bf16) == ("A", vnni, bf16)
