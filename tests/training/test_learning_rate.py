"""The learning rate of each step, and the log's lines, where a run is resumed, too."""

import signal
from pathlib import Path

import paddle
import pytest
from entries import run, train
from training_helpers import make_trainer, weights

from stnet.config import load_config
from stnet.models import model_section
from stnet.models.model import Model, decay_steps, learning_rate
from stnet.models.normalizer import Normalizer
from stnet.reader.loader import Batch
from stnet.training.log import read_journal
from stnet.training.step import Stepper
from stnet.utils.progress import Clock
from stnet.utils.signals import Stopped

CONFIG = Path(__file__).parents[2] / "configs" / "stnet.yaml"
SAME = ("step", "epoch", "lr", "loss", "top1", "top5")  # of a line, however often the run was interrupted


def lines(folder):
    return [tuple(row[key] for key in SAME) for row in read_journal(folder / "train_log.jsonl")]


def test_without_warm_up_the_rates_are_the_originals_to_the_last_bit():
    config, falls = load_config(CONFIG, model_section), decay_steps(60, 224684, 128)
    original = paddle.optimizer.lr.PiecewiseDecay(list(falls), [0.01 * 0.1**i for i in range(3)])
    for step in (0, 1, 35119, 35120, 70239, 70240, 105360):
        original.step(step)
        assert learning_rate(step, config.TRAIN, falls) == original()


def test_warm_up_begins_above_0_and_moves_no_fall_and_the_log_has_the_rate_that_was_used(clip_set, tmp_path):
    flags = ["--config", clip_set / "tiny.yaml", "--save_dir", tmp_path, "--pretrain=none", "--valid_interval=0"]
    flags += ["--log_interval=1", "--epoch=3", "-o", "TRAIN.batch_size=5", "-o", "TRAIN.total_videos=5"]
    assert run(train, *flags, "-o", "TRAIN.warmup_steps=2") == 0  # two steps an epoch
    rates = [row["lr"] for row in read_journal(tmp_path / "train_log.jsonl")]
    assert rates == pytest.approx([5e-3, 1e-2, 1e-3, 1e-3, 1e-4, 1e-4])


def test_a_resumed_run_takes_the_rate_of_its_own_configuration(clip_set, tmp_path):
    first = make_trainer(clip_set, tmp_path)
    batches = list(first.loader.epoch(0))
    first.train_step(batches[:1])
    first.save("step1")
    for option, expected in (("TRAIN.learning_rate=0", 0), ("TRAIN.warmup_steps=4", 0.0025)):
        again = make_trainer(clip_set, tmp_path, option)
        again.resume(str(tmp_path / "STNET_step1"))
        before = weights(again)
        again.train_step(batches[1:2])
        after = weights(again)
        trained = [name for name, p in again.model.network.named_parameters() if not p.stop_gradient]
        moved = max(abs(after[name] - before[name]).max() for name in trained)
        assert again.rate == pytest.approx(expected)
        assert (moved > 0) == (expected > 0), moved


def test_a_run_resumed_with_another_batch_size_is_at_the_same_place_of_its_schedule(clip_set, tmp_path):
    options = ["TRAIN.epoch=9", "TRAIN.warmup_steps=20"]
    first = make_trainer(clip_set, tmp_path, "TRAIN.batch_size=5", *options)
    first.progress.epoch, first.progress.step = 1, 2
    first.save("epoch0")
    again = make_trainer(clip_set, tmp_path, "TRAIN.batch_size=2", *options)
    again.resume(str(tmp_path / "STNET_epoch0"))  # an epoch is five steps now
    assert again.progress.step == 2
    assert again.stepper.optimizer.get_lr() == pytest.approx(0.01 * 6 / 20)


class OwnSchedule(Model):
    """As a plugin may bring it: schedules of Paddle in one another, and another optimizer."""

    def build_network(self):
        return paddle.nn.Sequential(paddle.nn.Flatten(), paddle.nn.Linear(6, 4))

    def optimizer(self, steps):
        falls = paddle.optimizer.lr.PiecewiseDecay(list(steps), [1.0, 0.1, 0.01])
        scheduler = paddle.optimizer.lr.LinearWarmup(falls, 3, 0.0, 1.0)
        return paddle.optimizer.Adam(scheduler, parameters=self.network.parameters()), scheduler


def test_a_schedule_of_a_plugin_goes_on_where_it_was(tiny_config):
    batch = Batch(paddle.zeros([2, 1, 6, 1, 1], "uint8"), paddle.to_tensor([0, 1]), [0, 1])

    def make_stepper():
        model = OwnSchedule(tiny_config, "train")
        return Stepper(model, Normalizer([0.5] * 3, [0.5] * 3), (2, 4), [1, 6, 1, 1])

    def take(stepper, steps):
        rates = []
        for _ in range(steps):
            rates.append(stepper.optimizer.get_lr())
            stepper.step([batch])
        return rates

    whole = make_stepper()
    rates = take(whole, 4)
    state = whole.state()
    rates += take(whole, 5)
    assert rates == pytest.approx([0, 1 / 3, 2 / 3, 1, 1, 0.1, 0.1, 0.01, 0.01])
    again = make_stepper()
    again.load(state, 4)
    assert take(again, 5) == rates[4:]


# Lines of the log -------------------------------------------------------------------------------------------------


def test_a_resumed_run_writes_the_lines_of_one_that_was_never_interrupted(clip_set, tmp_path):
    def trainer(start=""):
        made = make_trainer(clip_set, tmp_path, "TRAIN.batch_size=2", "TRAIN.save_interval=3", "TRAIN.keep=9")
        made.log_interval = 4
        if start:
            made.resume(str(tmp_path / start))
        return made

    trainer().fit()
    whole = lines(tmp_path)
    assert [line[0] for line in whole] == [4, 5, 8, 10]
    for start in ("STNET_step3", "STNET_step9"):
        trainer(start).fit()
        assert lines(tmp_path) == whole


def test_a_stopped_run_goes_on_in_its_log_interval(clip_set, tmp_path):
    def trainer(folder):
        folder.mkdir(exist_ok=True)
        made = make_trainer(clip_set, folder, "TRAIN.batch_size=2", "TRAIN.epoch=1")
        made.log_interval = 4
        return made

    trainer(tmp_path / "whole").fit()
    stopped = trainer(tmp_path / "stopped")
    epoch = stopped.loader.epoch

    def batches_and_a_signal(*place):
        for number, batch in enumerate(epoch(*place), start=1):
            if number == 3:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    stopped.loader.epoch = batches_and_a_signal
    with pytest.raises(Stopped):
        stopped.fit()
    again = trainer(tmp_path / "stopped")
    again.resume(str(tmp_path / "stopped" / "STNET_step3"))
    again.fit()
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")


def test_clips_of_an_interrupted_run_do_not_count_for_the_speed_of_this_one():
    clock = Clock(step=2, clips=4)
    for step, clips in ((3, 6), (4, 2)):
        rate, _, seconds = clock.read(step, clips, steps_left=1)
        assert rate * seconds == pytest.approx(2)
