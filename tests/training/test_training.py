"""Training in this process: options, checkpoints, a full disk, the journal."""

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import paddle
import pytest
from training_helpers import difference, make_trainer, saved, train_losses, weights

from stnet.cli import advised
from stnet.config import load_config
from stnet.models import model_section
from stnet.reader.loader import Batch, build_loader
from stnet.training import resume
from stnet.training.ema import Ema, make_average
from stnet.training.log import Journal, read_journal
from stnet.utils import atomic
from stnet.utils.errors import UserError
from stnet.weights import checkpoint

PROJECT = Path(__file__).parents[2]

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


def test_accumulated_batches_of_any_sizes_are_one_batch(clip_set, tmp_path):
    options = ["TRAIN.learning_rate=0.001", "TRAIN.momentum=0", "TRAIN.batch_size=6"]
    trainer = make_trainer(clip_set, tmp_path, *options, evaluation_bn=True)
    batch, before = next(trainer.loader.epoch(0)), weights(trainer)
    after = []
    for sizes in ([6], [4, 2], [5, 1], [0, 2, 3, 1]):
        group, end = [], 0
        for size in sizes:
            start, end = end, end + size
            group.append(Batch(batch.clips[start : max(end, 1)], batch.labels[start:end], batch.indices[start:end]))
        trainer.model.network.set_state_dict(before)
        trainer.train_step(group)
        after.append(weights(trainer))
    one, *many = after
    assert max(abs(one[n] - before[n]).max() for n in one) > 1e-3
    assert max(abs(one[n] - parts[n]).max() for parts in many for n in one) < 1e-5


def test_accumulation_takes_fewer_steps_and_the_rest_of_the_epoch_too(clip_set, tmp_path):
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=1", "TRAIN.accumulate_steps=2")
    tmp_path.mkdir(exist_ok=True)
    trainer.fit()  # 10 clips, batches of 4: three batches, two steps
    assert trainer.progress.step == 2
    assert len(train_losses(tmp_path)) == 2


def test_batches_without_a_readable_clip_change_nothing_and_do_not_stop_training(clip_set, tmp_path):
    (tmp_path / "x.list").write_text(f"{clip_set}/train 0.mp4 0\nnone.mp4 1\nnone either.mp4 2\n")
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=2", "TRAIN.batch_size=1", "TRAIN.max_bad_ratio=1",
                           f"TRAIN.filelist={tmp_path}/x.list", "TRAIN.save_interval=1")  # fmt: skip
    trainer.fit()
    assert trainer.progress.step == 6
    assert len(train_losses(tmp_path)) == 2
    assert sorted(trainer.loader.bad.reasons) == [1, 2]


def test_warm_up_and_clipping(clip_set, tmp_path):
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.warmup_steps=4", "TRAIN.clip_norm=0.1", "TRAIN.momentum=0",
                           "TRAIN.l2_weight_decay=0")  # fmt: skip
    rates, moved = [], []
    for batch in trainer.loader.epoch(0):
        rates.append(trainer.stepper.optimizer.get_lr())
        before = {n: p.numpy().copy() for n, p in trainer.model.network.named_parameters() if not p.stop_gradient}
        trainer.train_step([batch])
        after = {n: p.numpy() for n, p in trainer.model.network.named_parameters() if not p.stop_gradient}
        moved.append(np.sqrt(sum(((after[n] - before[n]).astype("float64") ** 2).sum() for n in before)))
    assert rates == pytest.approx([0.0025, 0.005, 0.0075])
    assert moved == pytest.approx([0.0025 * 0.1, 0.005 * 0.1, 0.0075 * 0.1], rel=0.02)


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


def test_an_average_of_decay_0_is_none():
    network = paddle.nn.Linear(1, 1)
    before = network.weight.item()
    none = make_average(network, 0)
    none.start()
    none.update()
    none.load({"updates": 1, "averages": {}})
    with none.applied():
        assert network.weight.item() == before
    assert none.state() is None


def test_a_run_may_begin_or_give_up_averages_where_it_goes_on(clip_set, tmp_path):
    with_averages = make_trainer(clip_set, tmp_path, "TRAIN.ema_decay=0.9")
    with_averages.train_step(list(with_averages.loader.epoch(0))[:1])
    with_averages.save("step1")
    without = make_trainer(clip_set, tmp_path)
    without.resume(str(tmp_path / "STNET_step1"))
    without.save("step1")
    again = make_trainer(clip_set, tmp_path, "TRAIN.ema_decay=0.9")
    again.resume(str(tmp_path / "STNET_step1"))
    again.ema.start()
    trained = dict(again.model.network.named_parameters())
    assert all((value == trained[name]).all() for name, value in again.ema.averages.items())
    assert (again.progress.step, again.ema.updates) == (1, 0)


def test_matplotlib_is_imported_where_something_is_drawn():
    modules = "stnet.training.dry_run, stnet.tools.dataset.__main__, stnet.tools.demo_report"
    code = f"import sys, {modules}; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


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


@pytest.mark.slow
def test_the_last_keep_checkpoints_stay_besides_best_and_final(clip_set, tmp_path):
    make_trainer(clip_set, tmp_path, "TRAIN.epoch=4", "TRAIN.save_interval=1", "TRAIN.keep=2", validate=True).fit()
    assert saved(tmp_path) == ["STNET_best", "STNET_epoch3", "STNET_final", "STNET_step11"]
    assert len(list(tmp_path.glob("*.pdparams"))) == len(list(tmp_path.glob("*.pdopt"))) == 4


def test_keep_0_keeps_every_epoch_but_no_steps_and_the_default_the_last_three(clip_set, tmp_path):
    every_epoch = ["TRAIN.epoch=2", "TRAIN.save_interval=1", "TRAIN.keep=0"]
    for name, options in (("all", every_epoch), ("three", ["TRAIN.epoch=4"])):
        (tmp_path / name).mkdir()
        make_trainer(clip_set, tmp_path / name, "TRAIN.batch_size=8", *options).fit()
    assert saved(tmp_path / "all") == ["STNET_epoch0", "STNET_epoch1", "STNET_final"]
    assert saved(tmp_path / "three") == [*(f"STNET_epoch{n}" for n in (1, 2, 3)), "STNET_final"]


def test_resuming_within_an_epoch_with_ema_takes_the_same_steps(clip_set, tmp_path):
    options = ["TRAIN.ema_decay=0.9", "TRAIN.save_interval=1", "TRAIN.keep=9", "TRAIN.warmup_steps=3"]
    whole = make_trainer(clip_set, tmp_path, *options)
    whole.fit()
    expected = train_losses(tmp_path)
    assert len(expected) == 6
    for start in ("step2", "step4", "epoch0"):
        again = make_trainer(clip_set, tmp_path, *options)
        again.resume(str(tmp_path / f"STNET_{start}.pdparams"))
        done = again.progress.step
        again.fit()
        assert train_losses(tmp_path) == expected
        assert again.progress.step == 6 > done
        assert difference(weights(whole), weights(again)) == 0
        averages = {n: abs(v.numpy() - whole.ema.averages[n].numpy()).max() for n, v in again.ema.averages.items()}
        assert max(averages.values()) == 0


def test_a_checkpoint_of_averages_is_resumed_from_the_weights_that_they_were_made_of(clip_set, tmp_path):
    options = ["TRAIN.epoch=1", "TRAIN.batch_size=8"]
    trained = make_trainer(clip_set, tmp_path, "TRAIN.ema_decay=0.9", *options, validate=True)
    trained.fit()
    for suffix, ema_decay in (("best", 0.9), ("final", 0.9), ("final", 0)):  # 0: the averages are given up
        again = make_trainer(clip_set, tmp_path, f"TRAIN.ema_decay={ema_decay}", "TRAIN.epoch=2")
        again.resume(str(tmp_path / f"STNET_{suffix}"))
        assert difference(weights(trained), weights(again)) == 0
        ours, theirs = (trainer.stepper.state()["optimizer"] for trainer in (trained, again))
        velocities = [name for name in ours if name.endswith("velocity_0")]
        assert len(velocities) > 50
        assert all((ours[name] == theirs[name]).all() for name in velocities)
        if ema_decay:
            saved = paddle.load(str(tmp_path / f"STNET_{suffix}.pdparams"))
            averages = [again.ema.averages[name].numpy() for name in trained.ema.averages]
            assert all((a == b.numpy()).all() for a, b in zip(averages, trained.ema.averages.values()))
            assert all((a == saved[name].numpy()).all() for a, name in zip(averages, trained.ema.averages))
            assert difference(weights(trained), {n: v.numpy() for n, v in saved.items()}) > 1e-3


def test_averages_without_the_weights_as_0_2_0_wrote_them_are_not_resumed(clip_set, tmp_path):
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.ema_decay=0.9")
    trainer.train_step(list(trainer.loader.epoch(0))[:1])
    for suffix in ("final", "step1"):
        trainer.save(suffix)
    path = tmp_path / "STNET_final.pdopt"
    state = pickle.loads(path.read_bytes())
    del state["ema"]["weights"]
    path.write_bytes(pickle.dumps(state))
    with pytest.raises(UserError, match="STNET_final.pdparams holds averages .* without the trained weights") as error:
        trainer.resume(str(tmp_path / "STNET_final.pdparams"))
    assert "; resume from a numbered checkpoint (NAME_epochN), or set --pretrain to this one" in advised(error.value)
    trainer.resume(str(tmp_path / "STNET_step1"))
    assert trainer.progress.step == 1


def test_auto_ends_a_run_that_was_killed_after_its_last_epoch(clip_set, tmp_path):
    make_trainer(clip_set, tmp_path, "TRAIN.epoch=1").fit()
    checkpoint.remove(str(tmp_path / "STNET_final"))
    again = make_trainer(clip_set, tmp_path, "TRAIN.epoch=1")
    again.resume(resume.newest(str(tmp_path), "STNET"), may_be_done=True)
    again.fit()
    assert saved(tmp_path) == ["STNET_epoch0", "STNET_final"]
    assert len(train_losses(tmp_path)) == 3


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_auto_takes_the_newest_checkpoint_that_is_whole(clip_set, tmp_path):
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=3")
    assert resume.newest(str(tmp_path), "STNET") == ""
    trainer.fit()
    assert resume.newest(str(tmp_path), "STNET").endswith("STNET_epoch2")
    damage(tmp_path / "STNET_epoch2.pdopt")
    assert resume.newest(str(tmp_path), "STNET").endswith("STNET_epoch1")
    (tmp_path / "STNET_epoch1.pdparams").unlink()
    assert resume.newest(str(tmp_path), "STNET").endswith("STNET_epoch0")
    again = make_trainer(clip_set, tmp_path, "TRAIN.epoch=3")
    again.resume(resume.newest(str(tmp_path), "STNET"))
    assert (again.progress.epoch, again.progress.step) == (1, 3)
    about = tmp_path / "STNET_epoch0.json"
    about.write_text(about.read_text()[:-9])
    with pytest.raises(UserError, match="no checkpoint in .* is whole .*STNET_epoch0: its .json is damaged"):
        resume.newest(str(tmp_path), "STNET")


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

    monkeypatch.setattr(atomic.os, "fsync", full)
    trainer.progress.step += 1
    with pytest.raises(UserError, match="cannot write .*STNET_step4.*No space left on device"):
        trainer.save("step4")
    monkeypatch.undo()
    assert resume.newest(str(tmp_path), "STNET").endswith("STNET_epoch0")
    assert not [p for p in tmp_path.iterdir() if atomic.TEMPORARY in p.name]


def test_a_rank_without_a_batch_to_validate_joins_the_others(clip_set, tmp_path):
    trainer = make_trainer(clip_set, tmp_path, "VALID.batch_size=16")
    trainer.valid_loader = build_loader(trainer.model.config, "valid", rank=1, ranks=2)
    assert len(trainer.valid_loader) == 0  # the one batch is rank 0's
    assert trainer.loader_to_validate() is trainer.valid_loader


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
