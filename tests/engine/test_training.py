"""Training that is stopped, killed, short of disk, or spread over ranks: nothing is lost and nothing is left."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import paddle
import pytest

from core.config import load_config
from core.errors import UserError
from engine import checkpoint, files
from engine.batch import Normalizer
from engine.ema import Ema
from engine.journal import Journal, read_journal
from engine.trainer import Trainer
from models import get_model, model_section
from reader.loader import build_loader
from tools import kill_and_resume

PROJECT = Path(__file__).parents[2]
RANKS = Path(__file__).with_name("on_ranks.py")


def make_trainer(clip_set, folder, *overrides, evaluation_bn=False, validate=False):
    """A Trainer on the tiny clip set, every weight and draw from a fixed seed."""
    paddle.seed(7)
    config = load_config(clip_set / "tiny.yaml", model_section, overrides)
    model = get_model("STNET", config, "train")
    loader = build_loader(config, "train", seed=3)
    valid = build_loader(config, "valid") if validate else None
    normalize = Normalizer(config.MODEL.image_mean, config.MODEL.image_std)
    trainer = Trainer(model, normalize, loader, valid, (100, 200), str(folder), seed=3, log_interval=1)
    if evaluation_bn:
        model.network.eval()
        model.network.train = lambda: None
    return trainer


def weights(trainer):
    return {name: value.numpy().copy() for name, value in trainer.network.state_dict().items()}


def difference(a, b):
    """Largest difference of two sets of weights, relative to the largest weight of each tensor."""
    return max(abs(a[n] - b[n]).max() / max(abs(a[n]).max(), 1e-3) for n in a)


def train_losses(folder):
    return [row["loss"] for row in read_journal(f"{folder}/train_log.jsonl") if row["kind"] == "train"]


# Options ----------------------------------------------------------------------------------------------------------


def test_four_batches_of_two_are_one_of_eight(clip_set, tmp_path):
    common = ["TRAIN.epoch=1", "TRAIN.flip_ratio=0", "TRAIN.learning_rate=0.001"]
    one = make_trainer(clip_set, tmp_path / "a", *common, "TRAIN.batch_size=8", evaluation_bn=True)
    four = make_trainer(clip_set, tmp_path / "b", *common, "TRAIN.batch_size=2", "TRAIN.accumulate_steps=4",
                        evaluation_bn=True)  # fmt: skip
    assert difference(weights(one), weights(four)) == 0
    for trainer in (one, four):
        group = list(trainer.loader.epoch(0))[: trainer.options.accumulate_steps]
        assert sum(len(batch.indices) for batch in group) == 8
        before = weights(trainer)
        trainer.train_step(group)
        assert difference(weights(trainer), before) > 1e-4
    assert difference(weights(one), weights(four)) < 1e-5


def test_accumulation_takes_fewer_steps_and_the_rest_of_the_epoch_too(clip_set, tmp_path):
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=1", "TRAIN.accumulate_steps=2")
    tmp_path.mkdir(exist_ok=True)
    trainer.fit()  # 10 clips, batches of 4: three batches, two steps
    assert trainer.step == 2
    assert len(train_losses(tmp_path)) == 2


def test_batches_without_a_readable_clip_change_nothing_and_do_not_stop_training(clip_set, tmp_path):
    (tmp_path / "x.list").write_text(f"{clip_set}/train 0.mp4 0\nnone.mp4 1\nnone either.mp4 2\n")
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=2", "TRAIN.batch_size=1", "TRAIN.max_bad_ratio=1",
                           f"TRAIN.filelist={tmp_path}/x.list", "TRAIN.save_interval=1")  # fmt: skip
    trainer.fit()
    assert trainer.step == 6
    assert len(train_losses(tmp_path)) == 2
    assert sorted(trainer.loader.bad.reasons) == [1, 2]


def test_warm_up_and_clipping(clip_set, tmp_path):
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.warmup_steps=4", "TRAIN.clip_norm=0.1", "TRAIN.momentum=0",
                           "TRAIN.l2_weight_decay=0")  # fmt: skip
    rates, moved = [], []
    for batch in trainer.loader.epoch(0):
        rates.append(trainer.optimizer.get_lr())
        before = {n: p.numpy().copy() for n, p in trainer.network.named_parameters() if not p.stop_gradient}
        trainer.train_step([batch])
        after = {n: p.numpy() for n, p in trainer.network.named_parameters() if not p.stop_gradient}
        moved.append(np.sqrt(sum(((after[n] - before[n]).astype("float64") ** 2).sum() for n in before)))
    assert rates == pytest.approx([0, 0.0025, 0.005])
    assert moved[0] == 0
    assert moved[1:] == pytest.approx([0.0025 * 0.1, 0.005 * 0.1], rel=0.02)


def test_ema_by_hand():
    network = paddle.nn.Linear(1, 1)
    network.weight.set_value(np.array([[1.0]], "float32"))
    ema = Ema(network, 0.5)
    for value in (2.0, 4.0):
        network.weight.set_value(np.array([[value]], "float32"))
        ema.update()
    by_hand = 1.0
    for i, value in enumerate((2.0, 4.0), start=1):
        decay = min(0.5, (1 + i) / (10 + i))
        by_hand = by_hand * decay + value * (1 - decay)
    with ema.applied():
        assert network.weight.item() == pytest.approx(by_hand)
    assert network.weight.item() == 4.0


def test_amp_off_is_the_default_and_yaml_off_is_understood(clip_set):
    assert load_config(clip_set / "tiny.yaml", model_section).TRAIN.amp == "off"
    assert load_config(clip_set / "tiny.yaml", model_section, ["TRAIN.amp=off"]).TRAIN.amp == "off"
    assert load_config(clip_set / "tiny.yaml", model_section, ["TRAIN.amp=O1"]).TRAIN.amp == "O1"


GPU = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0


@pytest.mark.skipif(not GPU, reason="mixed precision needs a GPU with a fitting Paddle build")
@pytest.mark.parametrize("options", [("O1", "float16"), ("O1", "bfloat16"), ("O2", "float16"), ("O2", "bfloat16")])
def test_mixed_precision_on_a_gpu_stays_near_full_precision(clip_set, tmp_path, options):
    paddle.set_device("gpu")
    try:
        losses = []
        for amp in (["TRAIN.amp=off"], [f"TRAIN.amp={options[0]}", f"TRAIN.amp_dtype={options[1]}"]):
            folder = tmp_path / amp[0]
            folder.mkdir()
            make_trainer(clip_set, folder, "TRAIN.epoch=1", *amp).fit()
            losses.append(train_losses(folder))
        assert losses[1] == pytest.approx(losses[0], rel=0.1)
    finally:
        paddle.set_device("cpu")


# Checkpoints ------------------------------------------------------------------------------------------------------


def saved(folder):
    return sorted(path.stem for path in folder.glob("*.json"))


def test_the_last_keep_checkpoints_stay_besides_best_and_final(clip_set, tmp_path):
    make_trainer(clip_set, tmp_path, "TRAIN.epoch=4", "TRAIN.save_interval=1", "TRAIN.keep=2", validate=True).fit()
    assert saved(tmp_path) == ["STNET_best", "STNET_epoch3", "STNET_final", "STNET_step12"]
    assert len(list(tmp_path.glob("*.pdparams"))) == len(list(tmp_path.glob("*.pdopt"))) == 4


def test_without_keep_every_epoch_stays_and_steps_do_not(clip_set, tmp_path):
    make_trainer(clip_set, tmp_path, "TRAIN.epoch=3", "TRAIN.save_interval=1").fit()
    assert saved(tmp_path) == ["STNET_epoch0", "STNET_epoch1", "STNET_epoch2", "STNET_final"]


def test_resuming_within_an_epoch_with_ema_takes_the_same_steps(clip_set, tmp_path):
    options = ["TRAIN.ema_decay=0.9", "TRAIN.save_interval=1", "TRAIN.keep=9", "TRAIN.warmup_steps=3"]
    whole = make_trainer(clip_set, tmp_path, *options)
    whole.fit()
    expected = train_losses(tmp_path)
    assert len(expected) == 6
    for start in ("step2", "step4", "epoch0"):
        again = make_trainer(clip_set, tmp_path, *options)
        again.resume(str(tmp_path / f"STNET_{start}.pdparams"))
        done = again.step
        again.fit()
        assert train_losses(tmp_path) == expected
        assert again.step == 6 > done
        assert difference(weights(whole), weights(again)) == 0
        averages = {n: abs(v.numpy() - whole.ema.averages[n].numpy()).max() for n, v in again.ema.averages.items()}
        assert max(averages.values()) == 0


def test_auto_ends_a_run_that_was_killed_after_its_last_epoch(clip_set, tmp_path):
    make_trainer(clip_set, tmp_path, "TRAIN.epoch=1").fit()
    checkpoint.remove(str(tmp_path / "STNET_final"))
    again = make_trainer(clip_set, tmp_path, "TRAIN.epoch=1")
    assert again.resume("auto")
    again.fit()
    assert saved(tmp_path) == ["STNET_epoch0", "STNET_final"]
    assert len(train_losses(tmp_path)) == 3


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_auto_takes_the_newest_checkpoint_that_is_whole(clip_set, tmp_path):
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=3")
    assert not trainer.resume("auto")
    trainer.fit()
    assert checkpoint.newest(str(tmp_path), "STNET").endswith("STNET_epoch2")
    damage(tmp_path / "STNET_epoch2.pdopt")
    assert checkpoint.newest(str(tmp_path), "STNET").endswith("STNET_epoch1")
    (tmp_path / "STNET_epoch1.pdparams").unlink()
    assert checkpoint.newest(str(tmp_path), "STNET").endswith("STNET_epoch0")
    again = make_trainer(clip_set, tmp_path, "TRAIN.epoch=3")
    assert again.resume("auto")
    assert (again.epoch, again.step) == (1, 3)
    about = tmp_path / "STNET_epoch0.json"
    about.write_text(about.read_text()[:-9])
    assert checkpoint.newest(str(tmp_path), "STNET") is None


def test_a_damaged_checkpoint_named_by_hand_is_refused_and_changes_nothing(clip_set, tmp_path):
    make_trainer(clip_set, tmp_path, "TRAIN.epoch=1").fit()
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=2")
    before = weights(trainer)
    damage(tmp_path / "STNET_final.pdparams")
    with pytest.raises(UserError, match="are not those that .*STNET_final.json describes"):
        trainer.resume(str(tmp_path / "STNET_final.pdparams"))
    (tmp_path / "STNET_epoch0.pdopt").write_bytes(b"\x80\x04junk")
    with pytest.raises(UserError, match="STNET_epoch0.pdopt cannot be read"):
        trainer.resume(str(tmp_path / "STNET_epoch0"))
    assert difference(weights(trainer), before) == 0


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5])
def test_a_full_disk_leaves_the_previous_checkpoint_usable(clip_set, tmp_path, monkeypatch, call):
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=1")
    trainer.fit()
    calls, fsync = [], os.fsync

    def full(handle):
        calls.append(handle)
        if len(calls) == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return fsync(handle)

    monkeypatch.setattr(files.os, "fsync", full)
    trainer.step += 1
    with pytest.raises(UserError, match="cannot write .*STNET_step4.*No space left on device"):
        trainer.save("step4")
    monkeypatch.undo()
    assert checkpoint.newest(str(tmp_path), "STNET").endswith("STNET_epoch0")
    assert not [p for p in tmp_path.iterdir() if files.TEMPORARY in p.name]


def test_the_journal_drops_what_a_killed_run_wrote_too_much(tmp_path):
    journal = Journal(str(tmp_path))
    for step in (1, 2, 3):
        journal.write("train", step, loss=1.0)
    journal.close()
    with open(tmp_path / "train_log.jsonl", "a") as file:
        file.write('{"kind": "tra')
    Journal(str(tmp_path), step=2).close()
    assert [row["step"] for row in read_journal(tmp_path / "train_log.jsonl")] == [1, 2]


def test_visualdl_gets_the_scalars_where_it_is_installed(tmp_path):
    pytest.importorskip("visualdl")
    journal = Journal(str(tmp_path))
    journal.write("train", 1, loss=0.5)
    journal.close()
    (record,) = (tmp_path / "visualdl").iterdir()
    assert b"train/loss" in record.read_bytes()


# Processes --------------------------------------------------------------------------------------------------------


def segments():
    """Paddle's segments in /dev/shm (paddle_PID_...), but for those of living processes, which may be another's."""
    names = [name for name in os.listdir("/dev/shm") if name.startswith("paddle_")]
    return {name for name in names if not os.path.exists(f"/proc/{name.split('_')[1]}")}


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
        run.log.close()


class Run:
    """train.py in a process of its own, all of whose descendants carry a mark in their environment."""

    started = []

    def __init__(self, clip_set, folder, *flags, launch=(), **environment):
        self.mark, self.folder = uuid.uuid4().hex, folder
        self.shm = segments()
        words = [sys.executable, *launch, str(PROJECT / "train.py"), f"--config={clip_set / 'tiny.yaml'}"]
        words += [f"--save_dir={folder}", "--pretrain=none", "--log_interval=1", "--fix_random_seed=True", *flags]
        self.log = open(folder.with_suffix(".log"), "w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            words, env={**os.environ, "STNET_TEST_MARK": self.mark, **environment}, stdout=self.log,
            stderr=subprocess.STDOUT, start_new_session=True,
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
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                environment = Path(f"/proc/{name}/environ").read_bytes()
                state = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if self.mark.encode() in environment and state != "Z" and int(name) != self.process.pid:
                found.append(int(name))
        return found

    def assert_nothing_is_left(self):
        deadline = time.monotonic() + 20
        while self.descendants() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.descendants() == []
        assert segments() - self.shm == set()
        assert [p.name for p in self.folder.iterdir() if files.TEMPORARY in p.name] == []


LONG = ["--epoch=2000", "--valid_interval=0"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_in_order_and_it_goes_on_where_it_was(clip_set, tmp_path, number, code):
    folder = tmp_path / "out"
    run = Run(clip_set, folder, *LONG, "-o", "TRAIN.num_reader_threads=2", "-o", "TRAIN.keep=1")
    run.wait_for("epoch 1 step 1/3")
    run.process.send_signal(number)
    assert run.process.wait(60) == code
    run.assert_nothing_is_left()
    steps = len(train_losses(folder))
    assert saved(folder) == [f"STNET_step{steps}"] or saved(folder)[0].startswith("STNET_epoch")
    assert "Traceback" not in run.said()
    progress = json.loads((folder / f"{saved(folder)[-1]}.json").read_text())["progress"]
    assert progress["step"] == steps


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


@pytest.mark.parametrize("number", [0, 1])
def test_a_run_killed_by_sigkill_goes_on_with_the_very_losses(tmp_path, number):
    config = kill_and_resume.prepare(tmp_path, clips=2)
    shm = segments()
    with open(tmp_path / "log", "w") as log:
        kill_and_resume.run(kill_and_resume.command(config, tmp_path / "whole", resume=False), log)
        words = kill_and_resume.command(config, tmp_path / "out")
        if number:
            assert kill_and_resume.kill_in_a_call(words, 9, log)
        else:
            process = subprocess.Popen([sys.executable, *words], stdout=log, stderr=subprocess.STDOUT)
            while len(train_losses(tmp_path / "out")) < 4:
                assert process.poll() is None
                time.sleep(0.01)
            process.kill()
            process.wait()
            time.sleep(1)
            assert segments() - shm == set()
        kill_and_resume.run(words, log)
    expected = kill_and_resume.losses(tmp_path / "whole")
    assert len(expected) == 6
    assert kill_and_resume.losses(tmp_path / "out") == expected
    assert not [name for name in os.listdir(tmp_path / "out") if files.TEMPORARY in name]


# Ranks ------------------------------------------------------------------------------------------------------------


def on_ranks(ranks, folder, clip_set):
    folder.mkdir()
    launch = ["-m", "paddle.distributed.launch", f"--nproc_per_node={ranks}", f"--log_dir={folder}/log"]
    command = [sys.executable, *(launch if ranks > 1 else []), str(RANKS), str(clip_set / "tiny.yaml"), str(folder)]
    one_thread = {**os.environ, "STNET_THREADS": "1"}  # sums of several threads round in another way
    done = subprocess.run(command, env=one_thread, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return np.load(folder / "weights.npz"), json.loads((folder / "scores.json").read_text())


def test_two_ranks_train_and_score_as_one(clip_set, tmp_path):
    one, scores_of_one = on_ranks(1, tmp_path / "one", clip_set)
    two, scores_of_two = on_ranks(2, tmp_path / "two", clip_set)
    assert difference(one, two) < 1e-9
    assert scores_of_one == scores_of_two
    assert scores_of_one["count"] == 6


def test_several_ranks_by_run_sh_write_once_and_resume(clip_set, tmp_path):
    made = {**os.environ, "PYTHON": sys.executable, "use_gpu": "False", "nproc": "2", "save_dir": str(tmp_path / "a b")}
    command = ["bash", str(PROJECT / "run.sh"), "train", "STNET", str(clip_set / "tiny.yaml"), "--log_interval=1"]
    command += ["--pretrain=none", "--epoch=1"]
    done = subprocess.run(command, env=made, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert saved(tmp_path / "a b") == ["STNET_best", "STNET_epoch0", "STNET_final"]
    assert len(train_losses(tmp_path / "a b")) == 3
    done = subprocess.run([*command[:-1], "--epoch=2", "--resume=auto"], env=made, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(train_losses(tmp_path / "a b")) == 6


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
    assert len(train_losses(tmp_path / "out")) == 8


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
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
    base = checkpoint.newest(str(tmp_path / "out"), "STNET")
    assert json.loads(Path(f"{base}.json").read_text())["progress"]["step"] == steps


def test_a_dead_rank_ends_the_others(clip_set, tmp_path):
    folder = tmp_path / "out"
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node=2", f"--log_dir={tmp_path}/log"]
    run = Run(clip_set, folder, *LONG, launch=launch)
    deadline = time.monotonic() + 90
    while len(train_losses(folder)) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    ranks = [pid for pid in run.descendants() if parent_of(pid) == run.process.pid]
    os.kill(max(ranks), signal.SIGKILL)
    assert run.process.wait(120) != 0
    run.assert_nothing_is_left()
