"""Training that is stopped, killed, or spread over ranks: nothing is lost and nothing is left."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from stress import kill_and_resume
from training_helpers import difference, saved, train_losses

from stnet.training import resume
from stnet.utils import atomic
from stnet.utils.signals import StopRequest

PROJECT = Path(__file__).parents[2]
RANKS = Path(__file__).with_name("on_ranks.py")


def marked(mark):
    """IDs of living processes that carry a mark in their environment."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            environment = Path(f"/proc/{name}/environ").read_bytes()
            state = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if mark.encode() in environment and state != "Z":
            found.append(int(name))
    return found


class Watch(threading.Thread):
    """Remembers all processes that carry a mark: other tests, which run at the same time, leave segments, too."""

    def __init__(self, mark):
        super().__init__(daemon=True)
        self.mark, self.seen, self.ended = mark, set(), threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(0.05):
            self.seen.update(marked(self.mark))

    def segments_of_the_dead(self):
        """Their segments in /dev/shm (paddle_PID_...)."""
        names = [name for name in os.listdir("/dev/shm") if name.startswith("paddle_")]
        pids = {name: int(name.split("_")[1]) for name in names}
        return [name for name in names if pids[name] in self.seen and not os.path.exists(f"/proc/{pids[name]}")]


@pytest.fixture(autouse=True)
def no_run_outlives_its_test():
    yield
    while Run.started:
        run = Run.started.pop()
        for pid in run.descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.process.kill()
        run.process.wait()
        run.watch.ended.set()
        run.log.close()


class Run:
    """train.py in a process of its own, all of whose descendants carry a mark in their environment."""

    started = []

    def __init__(self, clip_set, folder, *flags, launch=(), run_sh=False, options=None, **environment):
        self.mark, self.folder = uuid.uuid4().hex, folder
        self.watch = Watch(self.mark)
        words = [sys.executable, *launch, str(PROJECT / "train.py"), f"--config={clip_set / 'tiny.yaml'}"]
        if run_sh:
            words = ["bash", str(PROJECT / "run.sh"), "train", "STNET", str(clip_set / "tiny.yaml")]
            environment.update(PYTHON=sys.executable, use_gpu="False", save_dir=str(folder))
        words += [f"--save_dir={folder}", "--pretrain=none", "--log_interval=1", "--fix_random_seed=True", *flags]
        self.log = open(folder.with_suffix(".log"), "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            words, env={**os.environ, "STNET_TEST_MARK": self.mark, **environment}, stdout=self.log,
            stderr=subprocess.STDOUT, start_new_session=True, **(options or {}),
        )  # fmt: skip
        self.started.append(self)

    def said(self):
        self.log.flush()
        return Path(self.log.name).read_text()

    def wait_for(self, text, seconds=90):
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def descendants(self):
        """Living processes with the mark, but for the first."""
        return [pid for pid in marked(self.mark) if pid != self.process.pid]

    def assert_nothing_is_left(self):
        deadline = time.monotonic() + 20
        while self.descendants() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.descendants() == []
        assert len(self.watch.seen) > 0
        assert self.watch.segments_of_the_dead() == []
        assert [p.name for p in self.folder.iterdir() if atomic.TEMPORARY in p.name] == []


LONG = ["--epoch=2000", "--valid_interval=0"]


def test_a_signal_ends_a_dry_run_in_one_line(clip_set, tmp_path):
    sizes = [word for size in ("short_size", "target_size") for word in ("-o", f"TRAIN.{size}=224")]
    run = Run(clip_set, tmp_path / "out", "--dry_run", "-o", "MODEL.num_layers=50", "-o", "MODEL.seg_num=25", *sizes)
    run.wait_for("valid list:")
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(60) == 143
    assert "Traceback" not in run.said()
    assert run.said().splitlines()[-1] == "stopped by SIGTERM"
    run.assert_nothing_is_left()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_in_order_and_it_goes_on_where_it_was(clip_set, tmp_path, number, code):
    folder = tmp_path / "out"
    run = Run(clip_set, folder, *LONG, "-o", "TRAIN.num_reader_threads=2", "-o", "TRAIN.keep=1")
    run.wait_for("epoch 1 step 1/3")
    run.process.send_signal(number)
    assert run.process.wait(60) == code
    assert run.said().splitlines()[-1].endswith(" --resume=auto")
    run.assert_nothing_is_left()
    steps = len(train_losses(folder))
    assert saved(folder) == [f"STNET_step{steps}"] or saved(folder)[0].startswith("STNET_epoch")
    assert "Traceback" not in run.said()
    progress = json.loads((folder / f"{saved(folder)[-1]}.json").read_text())["progress"]
    assert progress["step"] == steps


def test_a_closed_terminal_ends_the_run_with_a_checkpoint(clip_set, tmp_path):
    folder = tmp_path / "out"
    master, terminal = pty.openpty()
    options = {"preexec_fn": lambda: fcntl.ioctl(terminal, termios.TIOCSCTTY, 0), "pass_fds": [terminal]}
    run = Run(clip_set, folder, *LONG, options=options)
    os.close(terminal)
    run.wait_for("epoch 1 step 1/3")
    os.close(master)  # the system's SIGHUP
    with contextlib.suppress(ProcessLookupError):
        run.process.send_signal(signal.SIGHUP)  # the shell's
    assert run.process.wait(60) == 129, run.said()
    run.assert_nothing_is_left()
    assert "Traceback" not in run.said()
    assert newest_step(folder) == len(train_losses(folder))


def test_a_hangup_that_was_ignored_at_the_start_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.1)
            assert stop.number == 0
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def newest_step(folder):
    base = resume.newest(str(folder), "STNET")
    return json.loads(Path(f"{base}.json").read_text())["progress"]["step"]


def test_a_second_signal_ends_the_run_at_once(clip_set, tmp_path):
    run = Run(clip_set, tmp_path / "out", *LONG, "-o", "TRAIN.batch_size=10", "-o", "TRAIN.short_size=224", "-o",
              "TRAIN.target_size=224", "-o", "MODEL.num_layers=50", "-o", "MODEL.seg_num=7")  # fmt: skip
    run.wait_for("starting from random values")
    time.sleep(2)  # within the first step, which takes many seconds
    run.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(60) == 143
    run.assert_nothing_is_left()
    assert saved(tmp_path / "out") == []


def test_a_normal_end_and_an_exception_leave_nothing(clip_set, tmp_path):
    run = Run(clip_set, tmp_path / "a", "--epoch=1", "-o", "TRAIN.num_reader_threads=2")
    assert run.process.wait(90) == 0, run.said()
    run.assert_nothing_is_left()
    run = Run(clip_set, tmp_path / "b", "--learning_rate=1e30", "-o", "TRAIN.num_reader_threads=2")
    assert run.process.wait(90) == 1
    assert "the loss of step" in run.said()
    run.assert_nothing_is_left()


def test_a_killed_worker_ends_the_run_with_one_line_and_leaves_nothing(clip_set, tmp_path):
    run = Run(clip_set, tmp_path / "out", *LONG, "-o", "TRAIN.num_reader_threads=2", "-o", "TRAIN.batch_size=1")
    run.wait_for("epoch 1 step 1/10")
    deadline = time.monotonic() + 30
    while run.process.poll() is None and time.monotonic() < deadline:
        children = [pid for pid in run.descendants() if parent_of(pid) == run.process.pid]
        for pid in children[:1]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)
    assert run.process.wait(60) == 1, run.said()
    assert "error: a reading process was killed" in run.said()
    assert "Traceback" not in run.said()
    run.assert_nothing_is_left()


def parent_of(pid):
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_killed_by_sigkill_goes_on_with_the_very_losses(tmp_path, number):
    config = kill_and_resume.prepare(tmp_path, clips=2)
    watch = Watch(mark := uuid.uuid4().hex)
    with open(tmp_path / "log", "w") as log:
        kill_and_resume.run(kill_and_resume.command(config, tmp_path / "whole", resume=False), log)
        words = kill_and_resume.command(config, tmp_path / "out")
        if number:
            assert kill_and_resume.kill_in_a_call(words, 9, log)
        else:
            variables = {**os.environ, "STNET_TEST_MARK": mark}
            process = subprocess.Popen([sys.executable, *words], env=variables, stdout=log, stderr=subprocess.STDOUT)
            while len(train_losses(tmp_path / "out")) < 4:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
            process.wait()
            time.sleep(1)
            assert len(watch.seen) > 1  # its workers, too
            assert watch.segments_of_the_dead() == []
        kill_and_resume.run(words, log)
    watch.ended.set()
    expected = kill_and_resume.losses(tmp_path / "whole")
    assert len(expected) == 6
    assert kill_and_resume.losses(tmp_path / "out") == expected
    assert not [name for name in os.listdir(tmp_path / "out") if atomic.TEMPORARY in name]


# Ranks ------------------------------------------------------------------------------------------------------------


def on_ranks(ranks, folder, clip_set):
    folder.mkdir()
    valid = "".join(f"{clip_set}/val {i}.mp4 {i % 4}\n" for i in range(6))
    (folder / "val.list").write_text(f"none.mp4 3\n{valid}", encoding="utf-8")
    train = "".join(f"{clip_set}/train {i}.mp4 {i % 4}\n" for i in range(10))
    (folder / "train.list").write_text(f"none.mp4 3\n{train}none either.mp4 1\n", encoding="utf-8")
    launch = ["-m", "paddle.distributed.launch", f"--nproc_per_node={ranks}", f"--log_dir={folder}/log"]
    command = [sys.executable, *(launch if ranks > 1 else []), str(RANKS), str(clip_set / "tiny.yaml"), str(folder)]
    one_thread = {**os.environ, "STNET_THREADS": "1"}  # sums of several threads round in another way
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return np.load(folder / "weights.npz"), json.loads((folder / "scores.json").read_text())


def saved_evaluation(folder):
    return {path.name: path.read_bytes() for path in (folder / "evaluation").iterdir()}


def test_two_ranks_train_and_score_as_one(clip_set, tmp_path):
    one, scores_of_one = on_ranks(1, tmp_path / "one", clip_set)
    two, scores_of_two = on_ranks(2, tmp_path / "two", clip_set)
    files = saved_evaluation(tmp_path / "one")
    assert files == saved_evaluation(tmp_path / "two")
    _, *rows, last = files["predictions.csv"].decode("utf-8").splitlines()
    assert len(rows) == 6
    assert last == "none.mp4,,,,,,no such file,,,,,,"
    (read,), (read_by_0, read_by_1) = scores_of_one.pop("read"), scores_of_two.pop("read")
    assert [a + b for a, b in zip(read_by_0, read_by_1)] == read
    assert min(read) < 4  # some clips could not be read
    assert read_by_0 != read_by_1
    assert difference(one, two) < 1e-9
    statistics_moved, weights_moved = json.loads((tmp_path / "two" / "moved.json").read_text())
    assert statistics_moved == 0 < weights_moved
    assert scores_of_one == scores_of_two
    assert scores_of_one["valid"]["count"] == scores_of_one["test"]["count"] == 6
    assert scores_of_one["valid"]["loss"] != scores_of_one["test"]["loss"]


@pytest.mark.slow
def test_eval_by_run_sh_on_two_ranks_leaves_the_files_of_one(clip_set, tmp_path):
    lines = [f"{clip_set}/val {i}.mp4 {i % 4}\n" for i in range(5)]
    (tmp_path / "val.list").write_text("".join(lines) + "none.mp4 3\n", encoding="utf-8")  # alone in the last batch
    command = ["bash", str(PROJECT / "run.sh"), "train", "STNET", str(clip_set / "tiny.yaml"), "--pretrain=none"]
    made = {**os.environ, "PYTHON": sys.executable, "use_gpu": "False", "STNET_THREADS": "1"}
    made["save_dir"] = str(tmp_path / "trained")
    subprocess.run([*command, "--epoch=1", "--valid_interval=0"], env=made, capture_output=True, check=True)
    command = [*command[:2], "eval", *command[3:5], f"--weights={tmp_path}/trained/STNET_final.pdparams"]
    command += ["-o", f"TEST.filelist={tmp_path}/val.list", "-o", "TEST.max_bad_ratio=0.5", "--batch_size=1"]
    command += ["--reject=0.5", "--log_interval=1", "--save_dir"]
    files = []
    for nproc in ("1", "2"):
        made.update(nproc=nproc, save_dir="")
        words = [*command, str(tmp_path / nproc)]
        done = subprocess.run(words, cwd=tmp_path, env=made, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "clips that could not be read: 1 of 6" in done.stderr
        progress = {"1": "eval 5/6 clips, ", "2": "eval 3/3 clips of this process, "}[nproc]
        assert progress in done.stderr
        names = ["eval_results.json", "predictions.csv", "confusion.csv", "calibration.json"]
        written = [*(tmp_path / nproc / name for name in names), tmp_path / "trained" / "STNET_final.reject.json"]
        files.append([path.read_bytes() for path in written])
    assert files[0] == files[1]
    assert (tmp_path / "2" / "log").is_dir()
    assert not (tmp_path / "results").exists()
    assert json.loads(files[0][0])["count"] == 5


@pytest.mark.slow
def test_several_ranks_by_run_sh_write_once_refuse_a_used_folder_and_resume(clip_set, tmp_path):
    made = {**os.environ, "PYTHON": sys.executable, "use_gpu": "False", "nproc": "2", "save_dir": str(tmp_path / "a b")}
    command = ["bash", str(PROJECT / "run.sh"), "train", "STNET", str(clip_set / "tiny.yaml"), "--log_interval=1"]
    command += ["--pretrain=none", "--epoch=1"]
    done = subprocess.run(command, env=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert saved(tmp_path / "a b") == ["STNET_best", "STNET_epoch0", "STNET_final"]
    assert len(train_losses(tmp_path / "a b")) == 3
    done = subprocess.run(command, env=made, capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 1
    assert "STNET_epoch0, STNET_final, train_log.jsonl; set --resume=auto to go on with it" in done.stdout + done.stderr
    done = subprocess.run([*command[:-1], "--epoch=2", "--resume=auto"], env=made, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(train_losses(tmp_path / "a b")) == 6


@pytest.mark.slow
def test_a_rank_without_a_readable_clip_keeps_step_with_the_others(clip_set, tmp_path):
    lines = [f"{clip_set}/train {i}.mp4 {i % 4}\n" for i in range(6)]
    (tmp_path / "x.list").write_text("none.mp4 0\n" + "".join(lines) + "none either.mp4 1\n")
    made = {**os.environ, "PYTHON": sys.executable, "use_gpu": "False", "nproc": "2", "save_dir": str(tmp_path / "out")}
    command = ["bash", str(PROJECT / "run.sh"), "train", "STNET", str(clip_set / "tiny.yaml"), "--log_interval=1"]
    command += ["--pretrain=none", "--epoch=2", "--batch_size=2", "--valid_interval=0", "-o", "TRAIN.max_bad_ratio=0.5"]
    done = subprocess.run(
        [*command, "-o", f"TRAIN.filelist={tmp_path}/x.list"],
        env=made, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    # Every step is taken; one whose clips are all bad, as the order may have it, has no loss to log.
    assert json.loads((tmp_path / "out" / "STNET_final.json").read_text())["progress"]["step"] == 8
    assert 6 <= len(train_losses(tmp_path / "out")) <= 8


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["run.sh", "launcher"])
def test_ranks_whose_starter_is_killed_save_and_end(clip_set, tmp_path, killed):
    folder = tmp_path / "out"
    run = Run(clip_set, folder, *LONG, run_sh=True, nproc="2")
    deadline = time.monotonic() + 90
    while len(train_losses(folder)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    (launcher,) = [pid for pid in run.descendants() if parent_of(pid) == run.process.pid]
    os.kill(run.process.pid if killed == "run.sh" else launcher, signal.SIGKILL)
    run.process.wait(60)
    deadline = time.monotonic() + 60
    while run.descendants() and time.monotonic() < deadline:
        time.sleep(0.1)
    run.assert_nothing_is_left()
    assert newest_step(folder) == len(train_losses(folder))


HANGUP = pytest.param(signal.SIGHUP, 129, marks=pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), HANGUP])
def test_a_signal_to_run_sh_lets_several_ranks_save(clip_set, tmp_path, number, code):
    made = {**os.environ, "PYTHON": sys.executable, "use_gpu": "False", "nproc": "2", "save_dir": str(tmp_path / "out")}
    command = ["bash", str(PROJECT / "run.sh"), "train", "STNET", str(clip_set / "tiny.yaml"), "--log_interval=1"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen([*command, "--pretrain=none", *LONG], env=made, stdout=log, stderr=log,
                                   start_new_session=True)  # fmt: skip
        deadline = time.monotonic() + 90
        while len(train_losses(tmp_path / "out")) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(90) == code, (tmp_path / "log").read_text()
    steps = len(train_losses(tmp_path / "out"))
    base = resume.newest(str(tmp_path / "out"), "STNET")
    assert json.loads(Path(f"{base}.json").read_text())["progress"]["step"] == steps


@pytest.mark.slow
def test_a_dead_rank_ends_the_others(clip_set, tmp_path):
    folder = tmp_path / "out"
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node=2", f"--log_dir={tmp_path}/log"]
    run = Run(clip_set, folder, *LONG, launch=launch)
    deadline = time.monotonic() + 90  # not while the checkpoint after step 3 is written: SIGKILL leaves half of it
    while len(train_losses(folder)) < 4 and time.monotonic() < deadline:
        time.sleep(0.1)
    ranks = [pid for pid in run.descendants() if parent_of(pid) == run.process.pid]
    os.kill(max(ranks), signal.SIGKILL)
    assert run.process.wait(120) != 0
    run.assert_nothing_is_left()
