"""Files of earlier versions (see README.md beside this file) are loaded, resumed and used."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from conftest import write_config
from entries import eval_entry, predict, run, train

from stnet.config import load_config
from stnet.models import model_section
from stnet.tools import demo_report, run_deployed
from stnet.tools.dataset import __main__ as dataset
from stnet.training.log import read_journal
from stnet.utils.errors import UserError
from stnet.utils.schema import SCHEMA
from stnet.weights.download import released
from stnet.weights.formats import read_weights

HERE = Path(__file__).parent
VERSIONS = sorted(path.name for path in HERE.iterdir() if path.name[0].isdigit())


@pytest.fixture(scope="module", params=VERSIONS)
def kept(request, tmp_path_factory):
    """A copy of a version's files, the archives unpacked."""
    folder = tmp_path_factory.mktemp("kept") / "tests" / "compat" / request.param
    shutil.copytree(HERE / request.param, folder)
    (folder.parents[1] / "videos").symlink_to(HERE.parent / "videos")
    for archive in folder.glob("*/*.tar.xz"):
        with tarfile.open(archive) as opened:
            opened.extractall(archive.parent)
        archive.unlink()
    return folder


@pytest.fixture(autouse=True)
def within(kept, monkeypatch):
    """Paths in the files are relative to their folder."""
    monkeypatch.chdir(kept)


def results(folder, name):
    return json.loads(Path(folder, "results", name).read_text(encoding="utf-8"))


def test_every_key_of_the_config_is_taken_or_noted(kept, tmp_path):
    before = results(kept, "eval_results.json")["config"]
    config = load_config(write_config(tmp_path / "saved.yaml", before), model_section)
    now = config.as_dict()
    noted = {note.split()[0] for note in config.notes}
    for name, section in before.items():
        for key, value in section.items():
            assert f"{name}.{key}" in noted or now[name][key] == value
    assert load_config(Path("config.yaml"), model_section).as_dict() == now


@pytest.mark.parametrize(("checkpoint", "step"), [("STNET_epoch0.pdparams", 3), ("auto", 4)])
def test_a_run_is_resumed_at_the_loss_that_came_next(kept, tmp_path, checkpoint, step):
    expected = {row["step"]: row for row in read_journal("checkpoints/train_log.jsonl") if row["kind"] == "train"}
    folder = tmp_path / "checkpoints"
    shutil.copytree("checkpoints", folder)
    resume = checkpoint if checkpoint == "auto" else folder / checkpoint
    flags = ["--config=config.yaml", "--save_dir", folder, "--resume", resume, "--log_interval=1", "--valid_interval=0"]
    assert run(train, *flags, "-o", "TRAIN.save_interval=0") == 0
    rows = [row for row in read_journal(folder / "train_log.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[step - 1] != expected[step]  # taken now, not kept from before
    assert rows[step - 1]["loss"] == pytest.approx(expected[step]["loss"], rel=1e-3)
    assert rows[step - 1]["lr"] == pytest.approx(expected[step - 1]["lr"])  # that version logged the next step's
    progress = json.loads((folder / "STNET_final.json").read_text(encoding="utf-8"))["progress"]
    assert (progress["epoch"], progress["step"], progress["seed"]) == (2, 4, 0)


def test_a_checkpoint_scores_and_classifies_as_it_did(kept, tmp_path):
    flags = ["--config=config.yaml", "--engine=paddle", "--save_dir", tmp_path / "results"]
    flags += ["--weights=checkpoints/STNET_epoch0.pdparams"]
    assert run(eval_entry, *flags) == 0
    assert run(predict, *flags) == 0
    before, now = results(kept, "eval_results.json"), results(tmp_path, "eval_results.json")
    assert (now["TOP1_ACC"], now["TOP5_ACC"], now["count"]) == (before["TOP1_ACC"], before["TOP5_ACC"], before["count"])
    assert now["loss"] == pytest.approx(before["loss"], rel=1e-4)
    predicted, again = results(kept, "predict_results.json"), results(tmp_path, "predict_results.json")
    assert now["schema"] == again["schema"] == SCHEMA
    for was, found in zip(predicted["results"], again["results"]):
        assert found["path"] == was["path"]
        assert [p["label"] for p in found["predictions"]] == [p["label"] for p in was["predictions"]]
        assert probabilities(found) == pytest.approx(probabilities(was), abs=1e-4)


def probabilities(result):
    return [p["probability"] for p in result["predictions"]]


@pytest.mark.parametrize("folder", ["deployed", "deployed_onnx"])
def test_an_export_is_used(kept, folder, capsys):
    if folder.endswith("onnx"):
        pytest.importorskip("onnxruntime")
    was = results(kept, "predict_results.json")["results"][0]
    assert run_deployed.main([folder, was["path"], "--topk=2"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [label for _, label in lines] == [p["label"] for p in was["predictions"]]
    assert [float(p) for p, _ in lines] == pytest.approx(probabilities(was), abs=1e-4)


def test_results_are_read(kept):
    was = results(kept, "predict_results.json")["results"][0]["predictions"][0]
    lines = demo_report.report(str(kept), 1)
    assert f"mpeg4.avi: predicted {was['label']} with probability {was['probability']:.3f}" in lines
    assert "held-out accuracy: top-1 0.2500" in lines


def test_a_folder_of_check_is_checked_again(tmp_path):
    shutil.copytree("checked", tmp_path / "checked")
    words = ["check", "--list=val.list", "--config=config.yaml", "--mode=test", f"--out={tmp_path}/checked"]
    assert dataset.main(words) == 0
    before, now = (json.loads(Path(folder, "checked", "report.json").read_text()) for folder in (".", tmp_path))
    assert {key: now[key] for key in ("clips", "fine", "bad", "problems")} == {
        key: before[key] for key in ("clips", "fine", "bad", "problems")
    }
    assert now["notes"].items() >= before["notes"].items()  # later versions note more
    assert Path(tmp_path, "checked", "val.clean.list").read_text() == Path("checked", "val.clean.list").read_text()


@pytest.mark.parametrize(("name", "inside"), [("tiny.pdparams", ""), ("Tiny_pretrained", "conv1_weights")])
def test_a_download_is_found_and_checked_by_its_record(tmp_path, monkeypatch, name, inside):
    shutil.copytree("weights", tmp_path / "weights")
    monkeypatch.setenv("STNET_WEIGHTS_HOME", str(tmp_path / "weights"))
    path = Path(released(name))
    assert [tensor.size for tensor in read_weights(path).tensors.values()] == [24, 3]
    damaged = path / inside if inside else path
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="the content is not what .*sha256 records"):
        read_weights(path)


@pytest.fixture
def newer(kept):
    """What versions from 0.2.0 on write."""
    if kept.name == "0.1.0":
        pytest.skip("0.1.0 did not write it")


WEIGHTS = ["--config=config.yaml", "--weights=checkpoints/STNET_epoch0.pdparams", "--engine=paddle"]


@pytest.mark.usefixtures("newer")
def test_a_table_of_results_is_resumed(tmp_path):
    shutil.copytree("results", tmp_path / "results")
    table = tmp_path / "results" / "results.jsonl"
    rows = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(rows[:2]), encoding="utf-8")
    assert run(predict, *WEIGHTS, f"--output={table}", "--resume", f"--save_dir={tmp_path}") == 0
    again = table.read_text(encoding="utf-8").splitlines(keepends=True)
    assert again[:2] == rows[:2]
    for was, now in zip(map(json.loads, rows), map(json.loads, again)):
        assert (now["input_path"], now["class_ids"]) == (was["input_path"], was["class_ids"])
        assert now["scores"] == pytest.approx(was["scores"], abs=1e-4)


@pytest.mark.usefixtures("newer")
def test_features_are_those_of_before(tmp_path):
    assert run(predict, *WEIGHTS, f"--features={tmp_path}/features.npz", f"--save_dir={tmp_path}") == 0
    with np.load("results/features.npz") as was, np.load(tmp_path / "features.npz") as now:
        for name in ("segment_features", "clip_features"):
            assert now[name] == pytest.approx(was[name], abs=1e-4)


@pytest.mark.usefixtures("newer")
def test_an_int8_export_is_used(kept, capsys):
    pytest.importorskip("onnxruntime")
    was = results(kept, "predict_results.json")["results"][0]
    assert run_deployed.main(["deployed_int8", was["path"], "--topk=2"]) == 0
    told = capsys.readouterr()
    assert "does not prove" in told.err
    lines = [line.split() for line in told.out.splitlines()[1:]]
    assert [label for _, label in lines] == [p["label"] for p in was["predictions"]]
    assert [float(p) for p, _ in lines] == pytest.approx(probabilities(was), abs=0.02)


@pytest.mark.usefixtures("newer")
def test_a_proof_of_before_is_read_or_made_anew(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    shutil.copytree("proof", tmp_path / "precision")
    monkeypatch.setenv("STNET_WEIGHTS_HOME", str(tmp_path))
    assert run(predict, *WEIGHTS[:2], f"--save_dir={tmp_path}", "--precision=int8") == 1
    assert "--calibrate" in capsys.readouterr().err
    assert run(predict, *WEIGHTS[:2], f"--save_dir={tmp_path}", "--precision=auto") == 0
