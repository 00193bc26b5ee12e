"""Shared fixtures. Paddle's surroundings are set up before it is imported, as the entries do."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from stnet import runtime

if "PYTEST_XDIST_WORKER" in os.environ:  # several of these share the cores
    cores = len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores)))
runtime.prepare()

TESTS = Path(__file__).parent
REAL = TESTS.parent.parent / "shared" / "videos" / "real"
sys.path.insert(0, str(TESTS / "golden"))


os.environ["STNET_WEIGHTS_URL"] = "none"  # no test asks the real server


def printable(value):
    """The same with characters escaped that are half of one, as of file names that are not UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return type(value)(map(printable, value)) if isinstance(value, (list, tuple)) else value


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable():
    """pytest-xdist sends reports as UTF-8."""
    return printable((yield))


@pytest.fixture(scope="session", autouse=True)
def cpu(tmp_path_factory):
    os.environ["STNET_WEIGHTS_HOME"] = str(tmp_path_factory.mktemp("weights"))  # exports go there, too
    runtime.start(use_gpu=False)


@pytest.fixture(scope="session")
def videos():
    """Folder of the videos drawn for this project."""
    return TESTS / "videos"


@pytest.fixture(scope="session")
def real_videos():
    """Folder of other projects' test clips, where it exists."""
    if not REAL.is_dir():
        pytest.skip("the real test clips are not part of the repository")
    return REAL


def tiny_settings(folder):
    """Configuration of the smallest StNet worth running, reading lists in `folder`."""
    reading = {"short_size": 32, "target_size": 32, "num_reader_threads": 1, "batch_size": 4}
    return {
        "MODEL": {
            "name": "STNET",
            "num_classes": 4,
            "num_layers": 18,
            "seg_num": 2,
            "seglen": 2,
            "topk": 2,
            "labels": str(folder / "labels.json"),
        },
        "TRAIN": {**reading, "epoch": 2, "use_gpu": False, "filelist": str(folder / "train.list")},
        "VALID": {**reading, "filelist": str(folder / "val.list")},
        "TEST": {**reading, "filelist": str(folder / "val.list"), "seg_num": 3},
        "INFER": {**reading, "filelist": str(folder / "infer.list")},
    }


def write_config(path, settings):
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def write_video(path, frames=12, size=(40, 30), seed=0):
    """A video of moving noise, whatever the path's name."""
    from stnet.tools.demo_clips import write_clip

    noise = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), np.uint8)
    made = path.parent / "being_written.mp4"
    write_clip(str(made), np.stack([np.roll(noise, i, axis=1) for i in range(frames)]))
    os.replace(made, path)
    return path


@pytest.fixture(scope="session")
def clip_set(tmp_path_factory):
    """Folder with lists of 10 training and 6 validation clips of 4 classes; its name holds a space and a 视."""
    folder = tmp_path_factory.mktemp("clips") / "my 视频"
    folder.mkdir()
    for split, count in (("train", 10), ("val", 6)):
        lines = []
        for i in range(count):
            write_video(folder / f"{split} {i}.mp4", seed=i)
            lines.append(f"{split} {i}.mp4 {i % 4}\n")
        (folder / f"{split}.list").write_text("# clips\n\n" + "".join(lines), encoding="utf-8")
    (folder / "infer.list").write_text("val 0.mp4\nval 1.mp4 1\n", encoding="utf-8")
    (folder / "labels.json").write_text('["a", "b", "c", "d"]', encoding="utf-8")
    write_config(folder / "tiny.yaml", tiny_settings(folder))
    return folder


@pytest.fixture(scope="session")
def trained(clip_set, tmp_path_factory):
    """Folder with the checkpoints of two epochs on the tiny set."""
    from entries import run, train

    folder = tmp_path_factory.mktemp("checkpoints")
    flags = [f"--save_dir={folder}", "--pretrain=none", "--fix_random_seed=True", "--log_interval=1"]
    assert run(train, "--config", clip_set / "tiny.yaml", *flags) == 0
    return folder


@pytest.fixture
def root(tmp_path):
    """An empty folder whose name holds a space and characters beyond ASCII."""
    made = tmp_path / "my 视频 é"
    made.mkdir()
    return made


@pytest.fixture
def tiny_config(clip_set):
    """The clip set's configuration, loaded."""
    from stnet.config import load_config
    from stnet.models import model_section

    return load_config(clip_set / "tiny.yaml", model_section)


@pytest.fixture(scope="session")
def packed(tmp_path_factory):
    """A copy of the project's files that a wheel is made of."""
    from installations import copy_what_is_packed

    return copy_what_is_packed(tmp_path_factory.mktemp("copy") / "my checkout")


@pytest.fixture(scope="session", params=["checkout", pytest.param("editable", marks=pytest.mark.slow), "wheel"])
def installed(request, packed, tmp_path_factory):
    """(Python that has StNet, words that run its command, variables) of each way to have it."""
    from installations import install

    return install(request.param, packed, tmp_path_factory.mktemp(request.param))
