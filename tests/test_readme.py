"""What the README tells users to type, typed."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.demo_clips import write_set

PROJECT = Path(__file__).parents[1]
SECTIONS = {"README.md": "## Your own videos", "README_cn.md": "## 自己的视频"}


def walk(readme):
    """(the commands of the fine-tuning walk, the values it gives for a machine without a GPU and without downloads)."""
    section = (PROJECT / readme).read_text(encoding="utf-8").split(SECTIONS[readme])[1].split("\n## ")[0]
    (commands,) = re.findall("```bash\n(.*?)```", section, re.S)
    (small,) = re.findall("`(config=.* start=none)`", section)
    return commands, small


def test_both_languages_tell_the_same_walk():
    assert walk("README.md") == walk("README_cn.md")


@pytest.fixture
def checkout(tmp_path):
    """A copy of the project with a folder of videos, a class a folder: six clips, one of which is cut short, each."""
    folder = tmp_path / "my checkout"
    code = ["backends", "configs", "core", "data", "engine", "metrics", "models", "reader", "stnet", "tools", "weights"]
    for name in code:
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*PROJECT.glob("*.py"), PROJECT / "run.sh"]:
        shutil.copy(path, folder)
    write_set(str(tmp_path / "drawn"), train=6, val=0, seed=0)
    for label in ("left", "right", "up", "down"):
        (folder / "videos" / label).mkdir(parents=True)
        for path in (tmp_path / "drawn" / "clips").glob(f"train_{label}_*.mp4"):
            shutil.move(path, folder / "videos" / label)
        cut = folder / "videos" / label / f"train_{label}_005.mp4"
        cut.write_bytes(cut.read_bytes()[:300])
    return folder


def test_the_fine_tuning_walk_works_as_typed(checkout, tmp_path):
    commands, small = walk("README.md")
    setup, values, rest = commands.split("\n", 2)
    assert setup == "bash run.sh setup && . .venv/bin/activate"  # what the tests run in is set up
    assert values.startswith("config=./configs/stnet_ucf101.yaml start=")
    (tmp_path / "home").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / "bin" / "python").chmod(0o755)
    made = {name: value for name, value in os.environ.items() if not name.startswith("STNET_")}
    made |= {"HOME": str(tmp_path / "home"), "PATH": f"{tmp_path}/bin:{made['PATH']}", "PYTHON": "python"}
    done = subprocess.run(
        ["bash", "-c", f"{small}\n{rest}"], cwd=checkout, env=made, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Traceback" not in said
    lists = {name: (checkout / "mine" / f"{name}.list").read_text() for name in ("train.clean", "val.clean")}
    assert {name: text.count("\n") for name, text in lists.items()} == {"train.clean": 16, "val.clean": 4}
    assert "_005.mp4" not in "".join(lists.values())
    assert re.search(r"train list: 16 clips, 0 of 16 looked at cannot be read", said)
    assert re.search(r"valid list: 4 clips, 0 of 4 looked at cannot be read", said)
    assert "training takes about" in said
    results = json.loads((checkout / "results" / "eval_results.json").read_text(encoding="utf-8"))
    assert (results["count"], results["skipped"]) == (4, [])
