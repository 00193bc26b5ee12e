"""The commands that the documents tell users to type, and a checkout in which to type them."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

import yaml

from stnet import __version__
from stnet.tools.demo_clips import write_set

PROJECT = Path(__file__).parents[1]
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((PROJECT / "docs").glob("*.md")))]
ONE_PAGE = ["docs/glossary.md", *(f"data/dataset/{path.name}" for path in sorted(PROJECT.glob("data/dataset/*.md")))]
CHINESE = {"README.md": "README_cn.md"}  # and the pages that are translated
CHINESE |= {f"docs/{path.name}": f"docs/zh/{path.name}" for path in sorted((PROJECT / "docs" / "zh").glob("*.md"))}
SETS_UP = re.compile(r"^bash run\.sh (demo|test)\b.*", re.M)  # left out: CI runs the tests, and another test the demo
_FENCE = re.compile(
    r"(?:^ *<!-- needs: (?P<needs>.+?) -->\n)?^ *```(?P<language>\w*)\n(?P<text>.*?)^ *```$", re.M | re.S
)


class ClipPanel(NamedTuple):
    """What stands between two fences."""

    language: str  # "bash", "python", or "" for what is not typed
    text: str
    needs: str  # what no test machine has, by the comment before the block


def read(page):
    """A document's text."""
    return (PROJECT / page).read_text(encoding="utf-8")


def up_to_date(page):
    """Whether a Chinese page says that it is of this version; README_cn.md always is."""
    return page == "README_cn.md" or f"\n对应版本：{__version__}\n" in read(page)


def blocks(page):
    """The fenced blocks of a document."""
    found = _FENCE.finditer(read(page))
    return [ClipPanel(match["language"], textwrap.dedent(match["text"]), match["needs"] or "") for match in found]


def typed(page):
    """The blocks that a user types, without those that are marked and without repetitions."""
    return list(dict.fromkeys(block for block in blocks(page) if block.language and not block.needs))


def without_comments(text):
    """Commands without what the shell, or Python, leaves out."""
    return re.sub(r" *(^|\s)#.*", "", text)


# The checkout ---------------------------------------------------------------------------------------------------------


def write_released_weights(folder):
    """Random values in the form of the released files, where a download would put them.

    The residual branches add nothing, so that logits stay small without the statistics of a real training run.
    """
    import paddle
    from paddle.vision.models import resnet50

    from stnet.config import load_config
    from stnet.models import get_model, model_section

    paddle.seed(0)
    config = load_config(PROJECT / "configs" / "stnet.yaml", model_section)
    folder.mkdir(parents=True)
    for name, network in (
        ("STNET_final.pdparams", get_model("STNET", config).network),
        ("ResNet50_pretrained", resnet50()),
    ):
        values = {key: value.numpy() for key, value in network.state_dict().items()}
        for key in values:
            values[key] *= not key.endswith("bn3.weight")
        paddle.save(values, str(folder / name))


def copy_project(folder):
    """The project's own files, small configurations, and a .venv that stands for the environment of the tests."""
    for name in ("stnet", "models", "reader", "tools", "benchmarks", "configs", "tests/stress"):
        shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*PROJECT.glob("*.py"), PROJECT / "run.sh", PROJECT / "data" / "dataset" / "kinetics_labels.json"):
        _copy(path, folder / path.relative_to(PROJECT))
    for name in ("stnet.yaml", "stnet_ucf101.yaml"):
        _shrink(folder / "configs" / name)
    scripts = folder / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (scripts / "python").chmod(0o755)
    (scripts / "activate").write_text(f'PATH="{scripts}:$PATH"\n')
    for extras in ("", "onnx", "parquet", "serve", "test", "test-onnx"):
        (folder / ".venv" / f".installed-{extras}").touch()


def _shrink(path):
    """Small clips and batches, one epoch, one worker; all else, such as the lists' paths and the depth, stays."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section in ("TRAIN", "VALID", "TEST"):
        config[section].update(short_size=32, target_size=32, batch_size=2, num_reader_threads=1)
    config["MODEL"].update({} if "101" not in path.name else {"num_classes": 4})  # of the drawn clips
    config["TRAIN"].update(epoch=1, use_gpu=False, total_videos=0)
    config["TEST"].update(seg_num=2)
    config["INFER"].update(seg_num=2, num_reader_threads=1)  # the documents name its size, 256
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def put_data(folder, drawn):
    """Drawn clips and what belongs to them under every name that the documents use.

    Args:
        folder: the checkout.
        drawn: folder of tools.demo_clips.write_set with six clips of each class.
    """
    classes = ("left", "right", "up", "down")
    clips = {label: sorted((drawn / "clips").glob(f"train_{label}_*.mp4")) for label in classes}
    for label, paths in clips.items():
        for number, path in enumerate(paths):
            _copy(path, folder / "videos" / label / path.name)
            _copy(path, folder / "hmdb51" / label / path.name)
            _copy(path, folder / "UCF-101" / label / f"v_{label}_g{number + 1:02d}_c01.mp4")
        cut = folder / "videos" / label / paths[-1].name
        cut.write_bytes(cut.read_bytes()[:300])
    for name in ("a.mp4", "clip.mp4"):
        _copy(clips["up"][0], folder / name)
    _write_lists(folder, clips)
    _write_splits(folder, clips)


def _copy(path, target):
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)


def _write_lists(folder, clips):
    """data/dataset/kinetics, where configs/stnet.yaml looks: one clip of each class; and a CSV of paths and labels."""
    firsts = [paths[0] for paths in clips.values()]
    lists = folder / "data" / "dataset" / "kinetics"
    lists.mkdir()
    for part in ("train", "val", "test"):
        (lists / f"{part}.list").write_text("".join(f"{path} {label}\n" for label, path in enumerate(firsts)))
    (lists / "infer.list").write_text("".join(f"{path}\n" for path in firsts))
    rows = [f"{path},{label}\n" for label, paths in clips.items() for path in paths]
    (folder / "clips.csv").write_text("".join(rows))


def _write_splits(folder, clips):
    """The official files of Kinetics, UCF101 and HMDB51, for the drawn clips: the fourth and fifth are held out."""
    for file, numbers in (("train", (0, 1, 2)), ("validate", (3,)), ("test", (4,))):
        rows = [f"{label},{paths[i].stem},0,10,{file}\n" for label, paths in clips.items() for i in numbers]
        (folder / f"{file}.csv").write_text("label,youtube_id,time_start,time_end,split\n" + "".join(rows))
    ucf, hmdb = folder / "ucfTrainTestlist", folder / "testTrainMulti_7030_splits"
    ucf.mkdir(), hmdb.mkdir()
    (ucf / "classInd.txt").write_text("".join(f"{i} {label}\n" for i, label in enumerate(clips, 1)))
    for file, numbers in (("trainlist01.txt", (1, 2, 3)), ("testlist01.txt", (4, 5))):
        lines = [f"{label}/v_{label}_g{i:02d}_c01.avi" for label in clips for i in numbers]
        numbered = [f"{line} {list(clips).index(line.split('/')[0]) + 1}" for line in lines]
        (ucf / file).write_text("\n".join(numbered if file.startswith("train") else lines) + "\n")
    for label, paths in clips.items():
        rows = [f"{path.stem}.avi {2 if i in (3, 4) else 1} \n" for i, path in enumerate(paths)]
        (hmdb / f"{label}_test_split1.txt").write_text("".join(rows))


def put_checkpoint(folder, weights):
    """What a training run leaves, for documents that begin after it."""
    (folder / "checkpoints").mkdir()
    os.link(weights, folder / "checkpoints" / "STNET_final.pdparams")


def draw(folder):
    """Six clips of each class."""
    write_set(str(folder), train=6, val=0, seed=0)
    return folder


# Typing ---------------------------------------------------------------------------------------------------------------


class Typed(NamedTuple):
    """What came of a block."""

    failed: list  # the commands whose exit code was not 0
    said: str


def environment_of(checkout, home):
    """Variables of a terminal in which the environment is active.

    Those of run.sh say what a test needs: the CPU, the same run each time, and no export for eval and predict.
    """
    made = {name: value for name, value in os.environ.items() if not name.startswith("STNET_")}
    made |= {"HOME": str(home), "PATH": f"{checkout}/.venv/bin:{made['PATH']}", "STNET_WEIGHTS_URL": "none"}
    return made | {"use_gpu": "False", "engine": "paddle", "fix_random_seed": "True"}


@contextlib.contextmanager
def served(block, checkout, home):
    """Run a block that starts a server, as if typed into a terminal of its own; Ctrl-C ends it."""
    said = checkout / "server.txt"
    with open(said, "w", encoding="utf-8") as file:
        server = subprocess.Popen(
            ["bash", "-c", f"set -e\n{block.text}"], cwd=checkout, env=environment_of(checkout, home),
            stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    try:
        while " answers at http://127.0.0.1:8080/\n" not in said.read_text(encoding="utf-8"):
            assert server.poll() is None, said.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGINT)
        server.wait()
    assert "Traceback" not in said.read_text(encoding="utf-8")


def type_block(block, checkout, home):
    """Run a block in the checkout, as if typed into a terminal."""
    with tempfile.TemporaryDirectory() as elsewhere:
        failures, script = Path(elsewhere, "failures"), Path(elsewhere, "script")
        failures.touch()
        if block.language == "python":
            script.write_text(block.text, encoding="utf-8")
            command = f"python - <{shlex.quote(str(script))}"
        else:
            command = SETS_UP.sub("", block.text)
        noting = f"exec 9>>{shlex.quote(str(failures))}; trap 'echo \"$BASH_COMMAND\" >&9' ERR"
        done = subprocess.run(
            ["bash", "-c", f"{noting}\n{command}"],
            cwd=checkout, env=environment_of(checkout, home), capture_output=True, text=True, errors="replace",
            check=False,
        )  # fmt: skip
        return Typed(failures.read_text().splitlines(), done.stdout + done.stderr)
