"""A clip format and a metric that tests/toys/reading.py brings go through every entry by being registered alone."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import tiny_settings, write_config

PROJECT = Path(__file__).parents[1]
TOY = PROJECT / "tests" / "toys" / "reading.py"
CHECKOUT = {name: [sys.executable, str(PROJECT / f"{name}.py")] for name in ("train", "eval", "predict")}
CHECKOUT["inference"] = [sys.executable, str(PROJECT / "inference_model.py")]


def write_arrays(folder):
    """Lists of arrays, the validation list with a file that is none; the configuration."""
    for split, count in (("train", 4), ("val", 4)):
        for i in range(count):
            random = np.random.RandomState(i)
            np.save(folder / f"{split} {i}.npy", random.randint(0, 256, (9, 40, 48, 3), np.uint8))
        lines = [f"{split} {i}.npy {i}\n" for i in range(count)]
        (folder / f"{split}.list").write_text("".join(lines), encoding="utf-8")
    (folder / "torn.npy").write_bytes((folder / "val 0.npy").read_bytes()[:5000])
    with open(folder / "val.list", "a", encoding="utf-8") as file:
        file.write("torn.npy 1\n")
    (folder / "infer.list").write_text("val 0.npy\nval 1.npy 1\n", encoding="utf-8")
    (folder / "labels.json").write_text('["a", "b", "c", "d"]', encoding="utf-8")
    settings = tiny_settings(folder)
    settings["MODEL"].update(format="npy", metrics=["CLASS_MEAN"])
    settings["TRAIN"]["epoch"] = 1
    for name in ("VALID", "TEST"):
        settings[name]["max_bad_ratio"] = 0.2
    return write_config(folder / "toy.yaml", settings)


def run_toy(command, folder, *flags, plugin=TOY, code=0, **options):
    """Standard output and error of an action that the toy is plugged into."""
    words = [*command, f"--config={folder / 'toy.yaml'}", f"--plugin={plugin}", "--use_gpu=False", *flags]
    done = subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True, check=False, **options)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def check_the_toys(commands, folder, **options):
    """Train, eval, predict and both exports, by the commands of a checkout or of an installed StNet.

    The numbers of CLASS_MEAN_ACC are known without it: each class has one clip in the validation list.
    """
    write_arrays(folder)

    def act(name, *flags):
        return run_toy(commands[name], folder, *flags, **options)

    said = act("train", "--save_dir=out", "--pretrain=none", "--fix_random_seed=True")
    assert "CLASS_MEAN_ACC" in next(line for line in said.splitlines() if "last validation" in line)
    rows = [json.loads(line) for line in (folder / "out" / "train_log.jsonl").read_text().splitlines()]
    (valid,) = [row for row in rows if row["kind"] == "valid"]
    assert valid["CLASS_MEAN_ACC"] == pytest.approx(valid["top1"])
    weights = "--weights=out/STNET_final.pdparams"
    said = act("eval", "--save_dir=results", weights, "--engine=paddle")
    assert "skipped torn.npy: " in said  # what NumPy's ValueError says
    assert "clips that could not be read: 1 of 5" in said
    scores = json.loads((folder / "results" / "eval_results.json").read_text())
    assert (scores["count"], scores["CLASS_MEAN_ACC"]) == (4, pytest.approx(scores["TOP1_ACC"]))
    act("predict", "--save_dir=results", weights, "--engine=paddle", f"--filelist={folder / 'infer.list'}")
    results = json.loads((folder / "results" / "predict_results.json").read_text())["results"]
    assert [result["path"] for result in results] == ["val 0.npy", "val 1.npy"]
    for file_format in ("paddle", "onnx"):
        act("inference", f"--save_dir={file_format}", weights, f"--format={file_format}")
        sampling = yaml.safe_load((folder / file_format / "deploy.yaml").read_text())["sampling"]
        assert sampling["format"] == "npy"
        assert "starts at i * average + (average - seglen) // 2, at i * average if" in sampling["meaning"]


def test_a_clip_format_and_a_metric_from_outside_go_through_every_entry(root):
    pytest.importorskip("paddle2onnx")
    check_the_toys(CHECKOUT, root)


def test_a_format_or_metric_that_nothing_registers_is_one_line_that_lists_the_known(root):
    write_arrays(root)
    said = run_toy(CHECKOUT["eval"], root, "-o", "MODEL.format=avi", code=1)
    assert said.splitlines()[-1] == "error: unknown clip format 'avi'; known: mp4, npy, pkl"
    said = run_toy(CHECKOUT["train"], root, "-o", "MODEL.metrics=[F1]", "--pretrain=none", code=1)
    assert said.splitlines()[-1] == "error: unknown metric 'F1'; known: CLASS_MEAN, TOPK"


def test_the_data_tools_take_a_clip_format_from_outside(root):
    write_arrays(root)
    shutil.copy(root / "val 3.npy", root / "again.npy")
    with open(root / "val.list", "a", encoding="utf-8") as file:
        file.write("again.npy 3\n")
    words = ["-m", "tools.dataset", "check", "--list", root / "val.list", "--mode", "test", "--workers", "1"]
    words += ["--config", root / "toy.yaml", "--plugin", TOY]
    done = subprocess.run([sys.executable, *map(str, words)], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    report = json.loads((root / "report.json").read_text())
    assert (report["fine"], report["problems"]["undecodable"], report["problems"]["duplicate"]) == (4, 1, 1)
