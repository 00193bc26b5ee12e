"""Timelines in low precision: the stages of a toy of 18 layers, proven by themselves."""

import csv
import re
import shutil

import numpy as np
import pytest
from conftest import write_video
from entries import predict, run

from stnet.inference.predictor import Predictor
from stnet.quantize.report import Precision, this_processor
from stnet.utils.errors import UserError

pytest.importorskip("onnxruntime")
pytest.importorskip("paddle2onnx")
pytest.importorskip("ml_dtypes")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """A cache of this file's own."""
    folder = tmp_path_factory.mktemp("precision")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STNET_WEIGHTS_HOME", str(folder))
        yield folder / "precision"


@pytest.fixture(scope="module")
def clips(clip_set, tmp_path_factory):
    """A list of 216 clips, enough for a proof."""
    folder = tmp_path_factory.mktemp("proofs")
    for i in range(216):
        shutil.copy(clip_set / f"train {i % 10}.mp4", folder / f"{i}.mp4")
    (folder / "proof.list").write_text("".join(f"{i}.mp4 {i % 4}\n" for i in range(216)), encoding="utf-8")
    return str(folder / "proof.list")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A video of several windows."""
    return write_video(tmp_path_factory.mktemp("films") / "film.mp4", frames=60, seed=7)


@pytest.fixture(scope="module")
def asked(clip_set, trained):
    """Predictor(...) of the trained toy."""

    def ask(name, calibrate="", weights="STNET_final.pdparams", **others):
        precision = Precision(name, calibrate, **others)
        return Predictor(trained / weights, clip_set / "tiny.yaml", device="cpu", precision=precision)

    return ask


def windows_of(predictor, film, folder):
    """Probabilities [windows, classes] of a timeline."""
    predictor.timeline(film, folder / "film", window=1, stride=0.5)
    return table(folder / "film.windows.csv")


def table(path):
    with open(path, encoding="utf-8", newline="") as file:
        return np.array([[float(value) for value in row[2:]] for row in list(csv.reader(file))[1:]])


@pytest.fixture(scope="module")
def expected(asked, film, tmp_path_factory):
    """The windows in float32."""
    return windows_of(asked("fp32"), film, tmp_path_factory.mktemp("fp32"))


@pytest.fixture(scope="module")
def int8(asked, clips):
    """The toy in int8, its timelines proven with 200 clips."""
    predictor = asked("int8", clips)
    assert predictor.engines.timeline_report.figures.clips == 200
    return predictor


def test_a_timeline_in_int8_is_near_float32_and_its_proof_is_kept(int8, asked, expected, film, tmp_path):
    assert int8.engines.timeline_stages.name == "ONNX Runtime in int8"
    assert int8.engines.timeline_report.figures.equal >= 198
    assert int8.engines.timeline_report.calibration["clips"] == 16
    found = windows_of(int8, film, tmp_path)
    assert found.shape == expected.shape
    assert len(found) > 2
    assert 0 < np.abs(found - expected).max() <= 0.1
    assert asked("int8").engines.timeline_report == int8.engines.timeline_report


@pytest.mark.slow
def test_a_timeline_in_bf16_is_near_float32(asked, clips, expected, film, tmp_path):
    pytest.importorskip("openvino")
    if not this_processor().bf16:
        pytest.skip("this processor does not compute in bf16")
    bf16 = asked("bf16", clips)
    found = windows_of(bf16, film, tmp_path)
    assert bf16.engines.timeline_stages.name == "OpenVINO in bf16"
    assert 0 < np.abs(found - expected).max() <= 0.02


@pytest.mark.slow
def test_a_proof_of_the_whole_network_is_none_of_a_timeline_and_the_other_way_round(int8, asked, clip_set):
    few = {"weights": "STNET_epoch0.pdparams", "unproven": True}
    assert asked("int8", str(clip_set / "train.list"), **few).report.figures.clips
    assert asked("int8", **few).report
    with pytest.raises(UserError, match="precision int8 has no proof of timelines for these weights"):
        asked("int8", **few).engines.timeline_stages  # noqa: B018
    with pytest.raises(UserError, match="precision int8 has no proof for these weights"):
        asked("int8").engine  # noqa: B018


def test_auto_without_a_proof_is_float32_which_one_line_says(asked, expected, film, tmp_path, caplog):
    caplog.set_level("INFO")
    auto = asked("auto", weights="STNET_epoch0.pdparams")
    assert auto.engines.timeline_report is None
    assert auto.engines.timeline_stages is auto.engines.stages
    (line,) = (line for line in caplog.messages if line.startswith("precision auto"))
    assert "precision auto takes fp32; precision int8 has no proof of timelines" in line


def test_auto_takes_a_proven_precision_if_it_is_faster(int8, asked):
    auto = asked("auto").engines.timeline_report
    if int8.engines.timeline_report.speed.ratio > 1:
        assert auto.speed.ratio >= int8.engines.timeline_report.speed.ratio
    else:
        assert auto is None or auto.speed.ratio > 1


def test_a_file_of_a_part_that_was_changed_is_not_run(int8, asked, home):
    path = next(home.glob("*/part1/int8.onnx"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"x")
    try:
        with pytest.raises(UserError, match="no proof of timelines to believe: the one in .* is damaged"):
            asked("int8").engines.timeline_stages  # noqa: B018
    finally:
        path.write_bytes(content)


def test_reasons_stay_in_float32(int8, clip_set):
    with pytest.raises(UserError, match="reasons are computed in fp32, not in int8"):
        int8.engines.check_explains()


def test_predict_refuses_a_timeline_without_a_proof_and_makes_one_with_clips(
    clip_set, trained, clips, film, expected, int8, tmp_path, capsys
):
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", tmp_path, film, "--timeline", "--window=1"]
    flags += ["--stride=0.5", "--precision=int8"]
    assert run(predict, *flags, "--weights", trained / "STNET_epoch0.pdparams") == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.search("precision int8 has no proof of timelines .*; set --calibrate to a list of 264 clips", error)
    final = ["--weights", trained / "STNET_final.pdparams"]
    assert run(predict, *flags, *final, "--calibrate", clips) == 0
    assert np.abs(table(tmp_path / "film.windows.csv") - expected).max() <= 0.1
