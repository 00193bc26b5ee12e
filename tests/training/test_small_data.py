"""Small and uneven data: frozen layers, cached features, class weights, smoothing, schedules, early stopping."""

import json
import math
import os
import shutil

import numpy as np
import paddle
import pytest
from conftest import tiny_settings, write_config
from entries import failing, finetune, run, train
from training_helpers import difference, make_trainer, weights

from stnet.config import TrainSection, load_config
from stnet.models import get_model, model_section
from stnet.models.model import class_weights, learning_rate
from stnet.training.feature_cache import FeatureLoader, FeatureStore, prepare
from stnet.training.trainer import Trainer
from stnet.utils.errors import UserError

FROZEN = ("TRAIN.freeze=backbone", "TRAIN.learning_rate=0.05")
PLACES = {"stem": "bn1.", "stage1": "layer1.", "stage2": "layer2.", "stage3": "layer3.", "backbone": "layer4."}


def run_of(clip_set, folder, *overrides, cache=None):
    """A trainer of the head that has run with two views of each clip; on features of the clips in `cache`."""
    folder.mkdir()
    settings = [*FROZEN, "TRAIN.augmented_views=2", *overrides]
    trainer = make_trainer(clip_set, folder, *settings, validate=True)
    if cache:
        paddle.seed(7)
        model = get_model("STNET", trainer.model.config, "train")
        loaders = FeatureLoader(trainer.loader, str(cache), 2), FeatureLoader(trainer.valid_loader, str(cache))
        trainer = Trainer(model, trainer.stepper.normalize, *loaders, (100, 200), str(folder), seed=3, log_interval=1)
        prepare(model, *loaders, engine="paddle")
    trainer.fit()
    return trainer


def copy_of(clip_set, folder):
    """A clip set whose files may be changed."""
    shutil.copytree(clip_set, folder)
    write_config(folder / "tiny.yaml", tiny_settings(folder))
    return folder


# Frozen layers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
def test_layers_up_to_a_place_stay_with_their_statistics_and_the_others_learn(clip_set, tmp_path, place):
    trainer = make_trainer(clip_set, tmp_path, f"TRAIN.freeze={place}", "TRAIN.epoch=1")
    before = weights(trainer)
    trainer.fit()
    after = weights(trainer)
    same = {name for name in before if np.array_equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(trainer.model.frozen(place))}
    assert frozen <= same
    assert any(name.startswith(PLACES[place]) for name in frozen)
    assert "fc.weight" not in same and "xception.bn._mean" not in same
    names = {key.partition("/")[0] for key in trainer.state()["optimizer"] if "/" in key}
    assert names and not names & frozen


def test_an_unknown_place_is_refused_and_the_known_ones_are_named(clip_set, tmp_path):
    with pytest.raises(UserError, match="TRAIN.freeze layer9: STNET has no such place; known: none, stem, stage1"):
        make_trainer(clip_set, tmp_path, "TRAIN.freeze=layer9")


# Features -------------------------------------------------------------------------------------------------------------


def test_training_on_features_gives_the_weights_of_training_on_clips(clip_set, tmp_path):
    overrides = ["TRAIN.epoch=3", "TRAIN.label_smoothing=0.1", "TRAIN.optimizer=adamw", "TRAIN.learning_rate=0.001"]
    clips = run_of(clip_set, tmp_path / "clips", *overrides)
    features = run_of(clip_set, tmp_path / "features", *overrides, cache=tmp_path / "cache")
    assert difference(weights(clips), weights(features)) < 1e-6
    start = weights(make_trainer(clip_set, tmp_path / "start"))
    assert difference(start, weights(clips)) > 1e-3
    assert features.progress == clips.progress


def test_features_are_computed_once_and_anew_for_a_clip_that_changed(clip_set, tmp_path, monkeypatch):
    own = copy_of(clip_set, tmp_path / "own")
    run_of(own, tmp_path / "a", "TRAIN.epoch=1", cache=tmp_path / "cache")
    read = []
    original = FeatureLoader._row
    monkeypatch.setattr(FeatureLoader, "_row", lambda self, *row: read.append(row[1]) or original(self, *row))
    run_of(own, tmp_path / "b", "TRAIN.epoch=1", cache=tmp_path / "cache")
    assert read == []
    shutil.copy(own / "train 3.mp4", own / "train 5.mp4")
    run_of(own, tmp_path / "c", "TRAIN.epoch=1", cache=tmp_path / "cache")
    assert read == [5, 5]  # in both views


def test_features_of_older_settings_are_removed_and_nothing_else(clip_set, tmp_path):
    cache = tmp_path / "cache"
    for number in range(6):
        (cache / f"{number:016x}").mkdir(parents=True)
        os.utime(cache / f"{number:016x}", (number, number))
    (cache / "mine").mkdir()
    run_of(clip_set, tmp_path / "a", "TRAIN.epoch=1", cache=cache)
    kept = {path.name for path in cache.iterdir()}
    assert {f"{number:016x}" for number in (3, 4, 5)} | {"mine"} < kept and len(kept) == 5


def test_a_damaged_file_of_features_is_computed_again(clip_set, tmp_path, caplog):
    first = run_of(clip_set, tmp_path / "a", "TRAIN.epoch=1", cache=tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("*.npz"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        path.write_bytes(bytes(content))
    again = run_of(clip_set, tmp_path / "b", "TRAIN.epoch=1", cache=tmp_path / "cache")
    assert "is damaged" in caplog.text
    assert difference(weights(first), weights(again)) == 0


def test_an_unreadable_clip_is_left_out_of_the_features_as_of_training(clip_set, tmp_path):
    own = copy_of(clip_set, tmp_path / "own")
    (own / "train 2.mp4").write_bytes(b"no video")
    clips = run_of(own, tmp_path / "clips", "TRAIN.epoch=2")
    features = run_of(own, tmp_path / "features", "TRAIN.epoch=2", cache=tmp_path / "cache")
    assert list(features.loader.bad.reasons) == [2]
    assert difference(weights(clips), weights(features)) < 1e-6


def test_features_that_do_not_fit_on_the_disk_are_refused_before_they_are_written(clip_set, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 300 << 20))
    monkeypatch.setattr("stnet.training.feature_cache._RESERVE", 300 << 20)
    with pytest.raises(UserError, match="features of 20 clips need 0 MB, the disk has 300 MB free"):
        run_of(clip_set, tmp_path / "a", cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npz"))


def test_files_of_features_have_the_columns_of_predict(clip_set, tmp_path):
    trainer = run_of(clip_set, tmp_path / "a", "TRAIN.epoch=1", cache=tmp_path / "cache")
    path = next((tmp_path / "cache").rglob("*.npz"))
    with np.load(path) as arrays:
        assert {"paths", "labels", "segment_features", "clip_features"} <= set(arrays)
        segments, clips = arrays["segment_features"], arrays["clip_features"]
    assert segments.shape[1:] == (2, 512) and clips.shape == (len(segments), 256)
    store = FeatureStore(str(path.parent))
    store.scan()
    features, labels = store.read(trainer.loader.keys[1][:3])
    assert features.shape == (3, 2, 512) and labels.tolist() == [0, 1, 2]


def test_a_feature_cache_wants_a_frozen_backbone(clip_set, capsys):
    flags = ["--config", clip_set / "tiny.yaml", "-o", "TRAIN.feature_cache=features", "--pretrain=none"]
    failing("train", "TRAIN.feature_cache keeps features of a frozen backbone; set TRAIN.freeze", capsys, *flags)


# Loss, schedule, optimizer --------------------------------------------------------------------------------------------


def model_of(clip_set, *overrides):
    return get_model("STNET", load_config(clip_set / "tiny.yaml", model_section, overrides), "train")


def test_the_loss_weighs_classes_and_smooths_labels_over_the_clips(clip_set):
    model = model_of(clip_set, "TRAIN.label_smoothing=0.2")
    model.class_weights = [0.5, 2.0, 0.0, 1.0]
    logits, labels = np.random.RandomState(0).randn(5, 4).astype("float32"), np.array([0, 1, 1, 3, 0])
    log = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = np.eye(4)[labels] * 0.8 + 0.05
    expected = (-(targets * log).sum(axis=1) * np.array([0.5, 2, 2, 1, 0.5])).mean()
    assert float(model.loss(paddle.to_tensor(logits), paddle.to_tensor(labels))) == pytest.approx(expected, rel=1e-6)


def test_class_weights_make_every_class_count_the_same():
    weights_of = class_weights([0] * 20 + [1] * 4 + [3], 4)
    assert weights_of == [25 / 60, 25 / 12, 0, 25 / 3]
    assert sum(weights_of[label] for label in [0] * 20 + [1] * 4 + [3]) == pytest.approx(25)
    with pytest.raises(UserError, match="has them inside the files"):
        class_weights([-1, -1], 4)


def test_a_cosine_goes_from_the_base_rate_to_0_after_the_warm_up():
    train_section = TrainSection(learning_rate=0.4, schedule="cosine", warmup_steps=2)
    rates = [learning_rate(step, train_section, (1, 2), 10) for step in (0, 1, 2, 6, 9, 10, 11)]
    expected = [0.2, 0.4, 0.4, 0.2, 0.4 * (1 + math.cos(math.pi * 7 / 8)) / 2, 0, 0]
    assert rates == pytest.approx(expected, abs=1e-12)


def test_adamw_decays_weights_but_neither_biases_nor_batch_norm(clip_set):
    model = model_of(clip_set, "TRAIN.optimizer=adamw", "TRAIN.learning_rate=0.1", "TRAIN.l2_weight_decay=0.5")
    optimizer, _ = model.optimizer((10, 20))
    before = {name: p.numpy().copy() for name, p in model.network.named_parameters()}
    logits = model.network(paddle.zeros([1, 2, 6, 32, 32]))
    (logits * 0).sum().backward()
    optimizer.step()
    after = {name: p.numpy() for name, p in model.network.named_parameters()}
    np.testing.assert_allclose(after["layer1.0.conv1.weight"], before["layer1.0.conv1.weight"] * 0.95, rtol=1e-5)
    for name in ("fc.bias", "bn1.weight", "temporal1.conv.bias"):
        assert np.array_equal(after[name], before[name])


@pytest.mark.parametrize(
    "settings",
    [
        ("TRAIN.optimizer=adamw", "TRAIN.schedule=cosine", "TRAIN.learning_rate=0.001"),
        ("TRAIN.freeze=stage3", "TRAIN.label_smoothing=0.1", "TRAIN.class_balance=loss"),
    ],
)
def test_a_resumed_run_takes_the_steps_of_one_that_was_not_interrupted(clip_set, tmp_path, settings):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = make_trainer(clip_set, tmp_path / "whole", *settings)
    whole.fit()
    first = make_trainer(clip_set, tmp_path / "parts", *settings, "TRAIN.save_interval=2")
    first.after_step = lambda last, then=first.after_step: (then(last), _end(first.progress.step))
    with pytest.raises(KeyboardInterrupt):
        first.fit()
    second = make_trainer(clip_set, tmp_path / "parts", *settings)
    second.resume(str(tmp_path / "parts" / "STNET_step2"))
    second.fit()
    assert difference(weights(whole), weights(second)) == 0


def _end(step):
    if step == 2:
        raise KeyboardInterrupt


def test_training_ends_after_so_many_validations_without_a_better_one(clip_set, tmp_path, caplog, monkeypatch):
    scores = iter([0.5, 0.6, 0.6, 0.4, 0.9])
    rows = {"TOP5_ACC": 1.0, "loss": 1.0, "count": 6}
    monkeypatch.setattr("stnet.training.trainer.evaluate", lambda *_: {"TOP1_ACC": next(scores), **rows})
    trainer = make_trainer(clip_set, tmp_path, "TRAIN.epoch=9", "TRAIN.patience=2", validate=True)
    trainer.report = lambda was_trained: None
    trainer.fit()
    assert trainer.progress.epoch == 4
    assert "no better top-1 than 0.6000 in 2 validations: training ends after 4 epochs" in caplog.text
    resumed = make_trainer(clip_set, tmp_path, "TRAIN.epoch=9", "TRAIN.patience=2", validate=True)
    resumed.resume(str(tmp_path / "STNET_epoch3"), may_be_done=True)
    resumed.fit()
    assert resumed.progress.epoch == 4


# One command ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_videos(clip_set, tmp_path):
    """Two classes of seven and five clips, one of them broken, one with a Chinese name."""
    folder = tmp_path / "videos"
    for number in range(10):
        target = folder / f"class {number % 2}" / f"clip {number}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip_set / f"train {number}.mp4", target)
    (folder / "class 0" / "broken.mp4").write_bytes(b"no video")
    shutil.copy(clip_set / "val 5.mp4", folder / "class 0" / "中文.mp4")
    return folder


def finetune_flags(clip_set, videos, folder):
    small = ["TRAIN.freeze=backbone", "TRAIN.augmented_views=2", "TRAIN.epoch=3", "TRAIN.pretrain=none"]
    overrides = [word for setting in small for word in ("-o", setting)]
    return ["--config", clip_set / "tiny.yaml", f"--videos={videos}", f"--save_dir={folder}", *overrides]


def test_one_command_goes_from_a_folder_of_videos_to_a_report(clip_set, own_videos, tmp_path, capsys):
    folder = tmp_path / "out"
    assert run(finetune, *finetune_flags(clip_set, own_videos, folder), "--full", "--full_epoch=1") == 0
    assert "TOP1_ACC" in capsys.readouterr().out
    results = json.loads((folder / "results" / "eval_results.json").read_text())
    assert results["count"] == 2 and (folder / "results" / "report.html").exists()
    assert json.loads((folder / "STNET_best.json").read_text())["labels"] == ["class 0", "class 1"]
    assert "broken" not in (folder / "data" / "train.clean.list").read_text()
    assert (folder / "full" / "results" / "report.html").exists()


def test_the_same_command_goes_on_and_keeps_the_division(clip_set, own_videos, tmp_path, capsys):
    folder = tmp_path / "out"
    flags = finetune_flags(clip_set, own_videos, folder)
    assert run(finetune, *flags) == 0
    final = paddle.load(str(folder / "STNET_final.pdparams"), return_numpy=True)
    for name in ("STNET_epoch2", "STNET_final"):
        for suffix in ("pdparams", "pdopt", "json"):
            os.remove(folder / f"{name}.{suffix}")
    assert run(finetune, *flags) == 0
    again = paddle.load(str(folder / "STNET_final.pdparams"), return_numpy=True)
    assert all(np.array_equal(again[name], value) for name, value in final.items())
    failing("finetune", "holds lists that were made with --ratio=0.8; set --overwrite", capsys, *flags, "--ratio=0.5")
    assert run(finetune, *flags, "--ratio=0.5", "--overwrite") == 0


def test_train_alone_keeps_features_too(clip_set, tmp_path):
    flags = ["--config", clip_set / "tiny.yaml", f"--save_dir={tmp_path / 'run'}", "--pretrain=none"]
    settings = ["TRAIN.freeze=backbone", "TRAIN.augmented_views=1", f"TRAIN.feature_cache={tmp_path / 'features'}"]
    assert run(train, *flags, *(word for setting in settings for word in ("-o", setting))) == 0
    assert list((tmp_path / "features").rglob("*.npz"))
