"""What someone else adds by registration alone, in files that --plugin names, goes through every action."""

import json
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from conftest import write_config

from stnet import cli
from stnet.inference.predictor import Predictor
from stnet.metrics import METRICS
from stnet.reader.formats import FORMATS
from stnet.tools import run_deployed
from stnet.training.log import read_journal

TOYS = Path(__file__).parent / "toys"
PLUGINS = [f"--plugin={path}" for path in sorted(TOYS.glob("*.py"))]
ENGINE, WEIGHTS = "numpy", "--weights=checkpoints/COLOUR_final.pdparams"
READING = {"short_size": 32, "target_size": 32, "num_reader_threads": 1, "batch_size": 2, "filelist": "clips.list"}
SETTINGS = {
    "MODEL": {
        "name": "colour", "width": 4, "num_classes": 3, "seg_num": 2, "seglen": 2, "topk": 3, "labels": "",
        "format": "npy", "metrics": ["CLASS_MEAN"],
    },
    "TRAIN": {**READING, "epoch": 2, "use_gpu": False},
    "VALID": READING,
    "TEST": READING,
    "INFER": READING,
}  # fmt: skip
in_a_checkout = pytest.mark.parametrize("installed", ["checkout"], indirect=True)


class Run(NamedTuple):
    """A folder with three clips, a configuration and the checkpoints of two epochs, and the command that made them."""

    folder: Path
    command: list
    variables: dict

    def act(self, *words, code=0):
        """Run `stnet ACTION [COMMAND] [FLAGS]` with the plugins; returns all that it says."""
        action = [word for word in words if not word.startswith("-")] if words[0] == "data" else words[:1]
        device = [] if words[0] == "data" else ["--use_gpu=False"]
        flags = ["--config=toy.yaml", *PLUGINS, *device, *words[len(action) :]]
        command = list(map(str, [*self.command, *action, *flags]))
        done = subprocess.run(command, cwd=self.folder, env=self.variables, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def results(self, name):
        return json.loads((self.folder / "results" / name).read_text(encoding="utf-8"))


def write_arrays(folder):
    """Three clips of the format npy, their list and the configuration."""
    for i in range(3):
        np.save(folder / f"{i}.npy", np.random.RandomState(i).randint(0, 256, (9, 40, 48, 3), np.uint8))
    (folder / "clips.list").write_text("".join(f"{i}.npy {i}\n" for i in range(3)))
    write_config(folder / "toy.yaml", SETTINGS)


@pytest.fixture(scope="module")
def trained_toy(installed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    write_arrays(folder)
    run = Run(folder, *installed[1:])
    run.act("train", "--save_dir=checkpoints")
    said = run.act("predict", WEIGHTS, f"--engine={ENGINE}")
    assert f"engine: {ENGINE}" in said
    return run


def test_toys_train_and_are_scored_and_classify(trained_toy):
    trained_toy.act("eval", WEIGHTS, f"--engine={ENGINE}")
    scores = trained_toy.results("eval_results.json")
    validated = [
        row for row in read_journal(trained_toy.folder / "checkpoints/train_log.jsonl") if row["kind"] == "valid"
    ]
    assert (len(validated), scores["count"]) == (2, 3)
    assert scores["loss"] == pytest.approx(validated[-1]["loss"], rel=1e-5)
    assert scores["CLASS_MEAN_ACC"] == validated[-1]["CLASS_MEAN_ACC"] == scores["TOP1_ACC"]  # a clip a class
    predictions = trained_toy.results("predict_results.json")["results"]
    assert [result["path"] for result in predictions] == ["0.npy", "1.npy", "2.npy"]


@pytest.mark.parametrize("file_format", ["paddle", "onnx"])
def test_toys_are_exported(trained_toy, file_format, monkeypatch, capsys):
    if file_format == "onnx" and not (find_spec("onnxruntime") and find_spec("paddle2onnx")):
        pytest.skip("onnxruntime or paddle2onnx is not installed")
    trained_toy.act("inference", WEIGHTS, f"--format={file_format}", f"--save_dir={file_format}")
    folder = trained_toy.folder / file_format
    description = yaml.safe_load((folder / "deploy.yaml").read_text(encoding="utf-8"))
    assert (description["model"]["width"], description["input"]["shape"][:3]) == (4, ["batch", "seg_num", 6])
    assert "num_layers" not in description["model"]
    assert description["sampling"]["format"] == "npy"
    assert "starts at i * average + (average - seglen) // 2, at i * average if" in description["sampling"]["meaning"]
    for table in (FORMATS, METRICS):  # this process gets the format, too, for this test
        monkeypatch.setattr(table, "_entries", dict(table._entries))
    monkeypatch.setattr(cli, "_plugins", set())
    cli.load_plugin(str(TOYS / "reading.py"))
    predicted = trained_toy.results("predict_results.json")["results"][0]["predictions"]
    (result,) = Predictor(folder, device="cpu", topk=3).predict(trained_toy.folder / "0.npy")
    assert result.class_ids == [row["class"] for row in predicted]
    assert result.scores == pytest.approx([row["probability"] for row in predicted], abs=1e-5)
    assert run_deployed.main([str(folder), "0.npy"]) == 1
    assert capsys.readouterr().err == "error: the model is for clips of the format npy, not for videos\n"
    said = trained_toy.act("inference", WEIGHTS, "--format=paddlex", "--save_dir=paddlex", code=1)
    assert said.endswith("error: PaddleX reads videos, and samples them as mp4: not as the format npy\n")


@in_a_checkout
def test_a_toy_run_goes_on_and_is_what_another_starts_from(trained_toy):
    said = trained_toy.act("train", "--save_dir=checkpoints", "--resume=auto", "--epoch=3", "--valid_interval=0")
    assert "2 epochs and 4 steps done" in said
    flags = ["--save_dir=other", "--pretrain=checkpoints/COLOUR_final.pdparams", "--epoch=1", "--valid_interval=0"]
    said = trained_toy.act("train", *flags, "-o", "MODEL.num_classes=5")
    assert "is for 3 classes: classes.weight, classes.bias start anew" in said
    assert "starting from the COLOUR in checkpoints/COLOUR_final.pdparams" in said


@in_a_checkout
def test_a_clip_that_the_format_refuses_is_a_bad_one(trained_toy):
    (trained_toy.folder / "torn.npy").write_bytes((trained_toy.folder / "0.npy").read_bytes()[:5000])
    (trained_toy.folder / "torn.list").write_text("0.npy 0\ntorn.npy 1\n")
    said = trained_toy.act("eval", WEIGHTS, "-o", "TEST.filelist=torn.list", "-o", "TEST.max_bad_ratio=0.5")
    assert "skipped torn.npy: " in said  # what NumPy's ValueError says
    assert trained_toy.results("eval_results.json")["count"] == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("MODEL.format=avi", "unknown clip format 'avi'; known: frames, mp4, npy, pkl"),
        ("MODEL.metrics=[F1]", "unknown metric 'F1'; known: CLASS_MEAN, TOPK"),
    ],
)
@in_a_checkout
def test_what_nothing_registers_is_one_line_that_lists_the_known(trained_toy, override, message):
    said = trained_toy.act("eval", WEIGHTS, "-o", override, code=1)
    assert said.splitlines()[-1] == f"error: {message}"


@in_a_checkout
def test_the_data_tools_take_a_clip_format_from_outside(trained_toy, tmp_path):
    write_arrays(tmp_path)
    (tmp_path / "torn.npy").write_bytes((tmp_path / "0.npy").read_bytes()[:5000])
    shutil.copy(tmp_path / "2.npy", tmp_path / "again.npy")
    with open(tmp_path / "clips.list", "a", encoding="utf-8") as file:
        file.write("torn.npy 1\nagain.npy 2\n")
    run = trained_toy._replace(folder=tmp_path)
    run.act("data", "check", "--list=clips.list", "--mode=test", "--workers=1", code=1)
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["fine"], report["problems"]["undecodable"], report["problems"]["duplicate"]) == (3, 1, 1)
