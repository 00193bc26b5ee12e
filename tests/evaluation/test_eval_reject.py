"""eval --reject: the threshold that it fits, keeps beside the weights, and shows."""

import json
import logging
import os
import shutil

import numpy as np
import pytest
from entries import eval_entry, failing, run
from test_report import tables

from stnet.evaluation.files import calibration
from stnet.evaluation.report import scores_of
from stnet.evaluation.results import Evaluation
from stnet.metrics import METRICS
from stnet.metrics.calibration import fit_temperature
from stnet.metrics.rejection import scaled_confidence
from stnet.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH
from stnet.utils.files import sha256_of
from stnet.weights import checkpoint


@pytest.fixture
def weights(trained, tmp_path):
    """A copy of trained weights that a test may keep a threshold beside."""
    for suffix in ("pdparams", "json"):
        shutil.copy(trained / f"STNET_final.{suffix}", tmp_path / f"STNET_final.{suffix}")
    return tmp_path / "STNET_final.pdparams"


def evaluated(clip_set, weights, folder, *flags):
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--engine=paddle", f"--save_dir={folder}"]
    assert run(eval_entry, *words, *flags) == 0
    return json.loads((folder / "eval_results.json").read_text())


def test_eval_keeps_the_threshold_that_lets_the_share_stay(clip_set, weights, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    found = evaluated(clip_set, weights, tmp_path / "out", "--reject=0.5")
    kept = json.loads((tmp_path / "STNET_final.reject.json").read_text())
    assert kept == {
        "schema": 1,
        "temperature": found["reject"]["temperature"],
        "threshold": found["reject"]["threshold"],
        "share": 0.5,
        "clips": 6,
        "list": str(clip_set / "val.list"),
        "sha256": sha256_of(weights),
    }
    assert found["reject"]["kept"] == pytest.approx(0.5)
    assert 0.25 < kept["threshold"] < 1
    assert f"the threshold is kept in {tmp_path}/STNET_final.reject.json" in caplog.text
    assert "--reject --video_path=a.mp4" in caplog.text
    told = json.loads((tmp_path / "out" / "calibration.json").read_text())["reject"]
    assert {**told, "curve": []} == {**found["reject"], "curve": []}
    assert told["curve"][-1]["kept"] == 1
    assert told["curve"][-1]["accuracy"] == pytest.approx(found["TOP1_ACC"])


def test_reject_alone_keeps_95_percent_and_without_it_nothing_is_new(clip_set, weights, tmp_path):
    before = sorted(os.listdir(tmp_path))
    found = evaluated(clip_set, weights, tmp_path / "plain")
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "plain"])
    assert "reject" not in found
    assert "reject" not in json.loads((tmp_path / "plain" / "calibration.json").read_text())
    assert "coverage" not in (tmp_path / "plain" / "report.html").read_text()
    assert evaluated(clip_set, weights, tmp_path / "alone", "--reject")["reject"]["share"] == 0.95
    assert "Accuracy by coverage" in (tmp_path / "alone" / "report.html").read_text()
    for name in ("predictions.csv", "per_class.csv", "confusion.csv"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    assert tables(tmp_path / "plain" / "report.html") == tables(tmp_path / "alone" / "report.html")


def test_where_nothing_can_be_written_beside_the_weights_the_results_have_the_numbers(
    clip_set, weights, tmp_path, caplog
):
    (tmp_path / "STNET_final.reject.json").mkdir()  # root may write into any folder
    found = evaluated(clip_set, weights, tmp_path / "out", "--reject")
    assert 0 < found["reject"]["threshold"] < 1
    assert "the threshold is in the results alone: cannot write" in caplog.text


def test_a_threshold_fitted_on_the_list_of_training_is_warned_of(clip_set, weights, tmp_path, caplog):
    own = ["-o", f"TEST.filelist={clip_set / 'train.list'}"]
    evaluated(clip_set, weights, tmp_path / "out", "--reject", *own)
    assert "the threshold is fitted on" in caplog.text
    caplog.clear()
    evaluated(clip_set, weights, tmp_path / "out", "--reject")
    assert "the threshold is fitted on" not in caplog.text


@pytest.mark.parametrize("share", ["0", "1.5", "nan", "half"])
def test_a_share_that_is_none_is_refused(share, capsys):
    with pytest.raises(SystemExit):
        run(eval_entry, f"--reject={share}")
    assert "--reject" in capsys.readouterr().err


def test_a_score_named_reject_is_refused_where_that_key_is_taken(clip_set, weights, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS._entries))  # others do not see the plugin's
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from stnet import METRICS\nfrom stnet.metrics import TopK\n"
        "@METRICS.register('TAKES_REJECT')\nclass Taken(TopK):\n"
        "    def result(self):\n        return {'reject': 1.0}\n"
    )
    words = ["--config", clip_set / "tiny.yaml", "--weights", weights, "--engine=paddle", f"--save_dir={tmp_path}"]
    words += ["--plugin", plugin, "-o", "MODEL.metrics=[TAKES_REJECT]"]
    failing("eval", "Taken gives a score of a reserved name: reject", capsys, *words, "--reject")
    assert run(eval_entry, *words) == 0


LOGITS = np.random.RandomState(0).randn(40, 3).astype(np.float32) * 2
LABELS = np.where(np.arange(40) % 3, LOGITS.argmax(axis=1), 0)


def evaluation_of(logits, labels, share):
    return Evaluation([str(i) for i in range(len(labels))], labels, logits, list("abc"), [], share)


def test_the_threshold_is_of_the_scaled_probabilities_of_finite_clips():
    logits = LOGITS.copy()
    logits[5] = np.nan
    fitted = evaluation_of(logits, LABELS, 0.9).fitted_rejection
    finite = np.delete(np.arange(40), 5)
    assert fitted.rejection.temperature == fit_temperature(LOGITS[finite], LABELS[finite]) != 1
    confidence = scaled_confidence(LOGITS[finite], fitted.rejection.temperature)
    assert fitted.clips == 39
    assert fitted.rejection.threshold == sorted(confidence, reverse=True)[35]  # 36 of 39 are the least 0.9
    assert fitted.kept == 36 / 39
    right = LOGITS[finite].argmax(axis=1) == LABELS[finite]
    assert fitted.accuracy == right[confidence >= fitted.rejection.threshold].mean()


def test_without_finite_clips_there_is_no_threshold_and_one_clip_is_its_own():
    assert evaluation_of(np.full((2, 3), np.nan, np.float32), np.array([0, 1]), 0.95).fitted_rejection is None
    one = evaluation_of(np.log(np.array([[0.7, 0.2, 0.1]], np.float32)), np.array([1]), 0.95).fitted_rejection
    assert one.rejection.temperature == 1
    assert one.rejection.threshold == pytest.approx(0.7)
    assert (one.kept, one.accuracy) == (1, 0)


def test_clips_that_are_all_right_keep_temperature_1():
    """The coldest temperature would make all their probabilities 1, and those of unknown clips, too."""
    logits = np.eye(3, dtype=np.float32)[[0, 1, 2]] * [[2], [3], [4]]
    fitted = evaluation_of(logits.astype(np.float32), np.array([0, 1, 2]), 1).fitted_rejection
    assert fitted.rejection.temperature == 1
    assert fitted.rejection.threshold == pytest.approx(np.exp(2) / (np.exp(2) + 2))


def test_the_chart_marks_the_chosen_threshold():
    evaluation = evaluation_of(LOGITS, LABELS, 0.8)
    chart = scores_of(evaluation).coverage_chart
    fitted = evaluation.fitted_rejection
    ((x, y, says),) = chart.lines[0].dots
    assert x == pytest.approx(LEFT + fitted.kept * (WIDTH - LEFT - RIGHT), abs=0.01)
    lowest = np.floor(10 * fitted.curve.accuracy.min()) / 10
    share = (fitted.accuracy - lowest) / (1 - lowest)
    assert y == pytest.approx(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), abs=0.01)
    assert (
        says
        == chart.note
        == f"threshold {fitted.rejection.threshold:.4g}: 80.0% of the clips stay, "
        + (f"{100 * fitted.accuracy:.1f}% of them right")
    )
    assert scores_of(evaluation_of(LOGITS, LABELS, None)).coverage_chart is None


def test_calibration_has_the_curve_over_thresholds():
    curve = calibration(evaluation_of(LOGITS, LABELS, 0.8))["reject"]["curve"]
    assert len(curve) == 40
    assert [row["kept"] for row in curve] == pytest.approx([(i + 1) / 40 for i in range(40)])
    assert [row["threshold"] for row in curve] == sorted((row["threshold"] for row in curve), reverse=True)


def test_a_checkpoint_goes_with_its_threshold(tmp_path):
    for name in ("N_epoch0.pdparams", "N_epoch0.reject.json"):
        (tmp_path / name).write_text("{}")
    checkpoint.move(str(tmp_path / "N_epoch0"), str(tmp_path / "aside" / "N_epoch0"))
    assert sorted(os.listdir(tmp_path / "aside")) == ["N_epoch0.pdparams", "N_epoch0.reject.json"]
    assert os.listdir(tmp_path) == ["aside"]
    checkpoint.remove(str(tmp_path / "aside" / "N_epoch0"))
    assert os.listdir(tmp_path / "aside") == []
