"""predict into a table, killed and gone on with: each video comes once, and the table is that of a run left alone."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def start(folder, weights, output, *flags):
    words = [
        sys.executable,
        PROJECT / "predict.py",
        folder,
        "--weights",
        weights,
        "--output",
        output,
        "--save_dir",
        "out",
    ]
    words += ["--engine=paddle", "--use_gpu=False", "--batch_size=4", "-o", "INFER.num_reader_threads=1", *flags]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    return subprocess.Popen(list(map(str, words)), cwd=folder.parent, **quiet)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_a_stopped_run_ends_with_the_command_that_goes_on(clip_set, trained, root, number, code):
    folder, table = root / "videos", root / "r.csv"
    folder.mkdir()
    for i in range(60):
        os.link(clip_set / f"val {i % 4}.mp4", folder / f"{i:04d}.mp4")
    words = [
        sys.executable,
        PROJECT / "predict.py",
        folder,
        "--weights",
        trained / "STNET_final.pdparams",
        "--overwrite",
    ]
    words += ["--output", table, "--save_dir", root / "out", "--engine=paddle", "--use_gpu=False", "--batch_size=1"]
    run = subprocess.Popen(list(map(str, words)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while rows(table) < 4 and run.poll() is None:
        time.sleep(0.002)
    run.send_signal(number)
    said = run.communicate()[1]
    assert (run.returncode, "Traceback" in said) == (code, False)
    last, name = said.splitlines()[-1], signal.Signals(number).name
    assert last.startswith(f"stopped by {name}; to go on: python ")
    assert 4 <= rows(table) < 61
    command = [sys.executable, *shlex.split(last.partition("to go on: ")[2])[1:]]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert rows(table) == 61
    assert len(set(table.read_text().splitlines())) == 61


def rows(path):
    """Whole lines so far."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("videos", [24, pytest.param(1000, marks=pytest.mark.long)])
def test_a_killed_run_goes_on_and_has_each_video_once(clip_set, trained, root, videos):
    folder, weights = root / "videos", trained / "STNET_final.pdparams"
    folder.mkdir()
    for number in range(videos):
        shutil.copy(clip_set / f"val {number % 4}.mp4", folder / f"{number:04d}.mp4")
    (folder / "0007.mp4").write_bytes(b"no video")
    alone, killed = root / "alone.jsonl", root / "killed.jsonl"
    assert start(folder, weights, alone).wait() == 3
    for stop in (videos // 6, videos // 2, videos - 12):
        run = start(folder, weights, killed, "--resume")
        while rows(killed) < stop and run.poll() is None:
            time.sleep(0.002)
        os.killpg(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    assert 0 < rows(killed) < videos
    assert start(folder, weights, killed, "--resume").wait() == 3
    lines = killed.read_text().splitlines()
    assert [Path(json.loads(line)["input_path"]).name for line in lines] == [f"{i:04d}.mp4" for i in range(videos)]
    assert [json.loads(line).keys() for line in lines] == [
        json.loads(line).keys() for line in alone.read_text().splitlines()
    ]
    for one, other in zip(map(json.loads, lines), map(json.loads, alone.read_text().splitlines())):
        assert one["class_ids"] == other["class_ids"]
        assert one["scores"] == pytest.approx(other["scores"], abs=1e-6)  # batches are cut at other places
