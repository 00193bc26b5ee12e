"""What someone else adds by registration alone, in files that --plugin names, goes through every action."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from conftest import write_config, write_video
from installations import checked

from engine.journal import read_journal
from tools import run_deployed

TOYS = Path(__file__).parent / "toys"
PLUGINS = [f"--plugin={path}" for path in sorted(TOYS.glob("*.py"))]
ENGINE, WEIGHTS = "numpy", "--weights=checkpoints/COLOUR_final.pdparams"
READING = {"short_size": 32, "target_size": 32, "num_reader_threads": 1, "batch_size": 2, "filelist": "clips.list"}
SETTINGS = {
    "MODEL": {"name": "colour", "width": 4, "num_classes": 3, "seg_num": 2, "seglen": 2, "topk": 3, "labels": ""},
    "TRAIN": {**READING, "epoch": 2, "use_gpu": False},
    "VALID": READING,
    "TEST": READING,
    "INFER": READING,
}
in_a_checkout = pytest.mark.parametrize("installed", ["checkout"], indirect=True)


class Run(NamedTuple):
    """A folder with three clips, a configuration and the checkpoints of two epochs, and the command that made them."""

    folder: Path
    command: list
    variables: dict

    def act(self, action, *flags):
        """Run `stnet ACTION` with the plugins; returns its log."""
        flags = ["--config=toy.yaml", *PLUGINS, "--use_gpu=False", *flags]
        return checked(*self.command, action, *flags, cwd=self.folder, env=self.variables)

    def results(self, name):
        return json.loads((self.folder / "results" / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def trained_toy(installed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    for i in range(3):
        write_video(folder / f"{i}.mp4", seed=i)
    (folder / "clips.list").write_text("".join(f"{i}.mp4 {i}\n" for i in range(3)))
    write_config(folder / "toy.yaml", SETTINGS)
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
    assert len(trained_toy.results("predict_results.json")["results"]) == 3


@pytest.mark.parametrize("file_format", ["paddle", "onnx"])
def test_toys_are_exported(trained_toy, file_format):
    if file_format == "onnx" and not (find_spec("onnxruntime") and find_spec("paddle2onnx")):
        pytest.skip("onnxruntime or paddle2onnx is not installed")
    trained_toy.act("inference", WEIGHTS, f"--format={file_format}", f"--save_dir={file_format}")
    folder = trained_toy.folder / file_format
    description = yaml.safe_load((folder / "deploy.yaml").read_text(encoding="utf-8"))
    assert (description["model"]["width"], description["input"]["shape"][:3]) == (4, ["batch", "seg_num", 6])
    assert "num_layers" not in description["model"]
    predicted = trained_toy.results("predict_results.json")["results"][0]["predictions"]
    clip = run_deployed.read_clip(str(trained_toy.folder / "0.mp4"), description)
    probabilities = run_deployed.load(str(folder), description)(clip[None])[0]
    assert [probabilities[row["class"]] for row in predicted] == pytest.approx(
        [row["probability"] for row in predicted], abs=1e-5
    )


@in_a_checkout
def test_a_toy_run_goes_on_and_is_what_another_starts_from(trained_toy):
    said = trained_toy.act("train", "--save_dir=checkpoints", "--resume=auto", "--epoch=3", "--valid_interval=0")
    assert "2 epochs and 4 steps done" in said
    flags = ["--save_dir=other", "--pretrain=checkpoints/COLOUR_final.pdparams", "--epoch=1", "--valid_interval=0"]
    said = trained_toy.act("train", *flags, "-o", "MODEL.num_classes=5")
    assert "is for 3 classes: classes.weight, classes.bias start anew" in said
    assert "starting from the COLOUR in checkpoints/COLOUR_final.pdparams" in said
