"""A network that learns to tell motions says which come when in a video that joins them."""

import json
import random

import numpy as np
import pytest
from conftest import write_config
from entries import run, train

from stnet.config import load_config
from stnet.inference.predictor import Predictor
from stnet.models import model_section
from stnet.tools.demo_clips import CLASSES, RATE, SIZE, draw_clip, write_clip, write_set

CLIPS = 200  # of each class
WINDOW, STRIDE = 2.0, 2 / 3  # seconds: what the clips last, and a segment of them
NOTHING = len(CLASSES)  # the class of noise: a network that was never shown any is sure of something in it


def noise(count, seed):
    return np.random.RandomState(seed).randint(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A Predictor of the demo with noise as a seventh class, trained on clips of two seconds."""
    folder = tmp_path_factory.mktemp("demo")
    write_set(str(folder), train=CLIPS, val=2, seed=0)
    with open(folder / "train.list", "a", encoding="utf-8") as file:
        for number in range(CLIPS):
            write_clip(str(folder / f"noise{number}.mp4"), noise(24, 1000 + number))
            file.write(f"noise{number}.mp4 {NOTHING}\n")
    (folder / "labels.json").write_text(json.dumps([*CLASSES, "nothing"]))
    settings = load_config("configs/stnet_demo.yaml", model_section).as_dict()
    settings["MODEL"].update(labels=str(folder / "labels.json"), num_classes=NOTHING + 1)
    settings["TRAIN"].update(filelist=str(folder / "train.list"), epoch=4)
    settings["VALID"]["filelist"] = str(folder / "val.list")
    path = write_config(folder / "demo.yaml", settings)
    assert run(train, "--config", path, "--pretrain=none", "--fix_random_seed=True", "--save_dir", folder / "run") == 0
    return Predictor(folder / "run" / "STNET_final.pdparams", path, device="cpu")


def joined(path, seed):
    """Motions of six seconds with noise of four between them. Returns (start, end, class) of each in seconds."""
    rng, frames, motions, at = random.Random(seed), [], [], 0
    for name in ("left", "", "up", "right", "", "down", ""):
        count = 6 * RATE if name else 4 * RATE
        frames.append(draw_clip(name, rng, count) if name else noise(count, at))
        if name:
            motions.append((at / RATE, (at + count) / RATE, CLASSES.index(name)))
        at += count
    write_clip(str(path), np.concatenate(frames))
    return motions


@pytest.mark.long
def test_motions_are_found_within_a_stride_and_nothing_is_claimed_in_the_noise(learned, tmp_path):
    settings = {"window": WINDOW, "stride": STRIDE, "threshold": 0.6, "shortest": 2.5}
    for seed in range(5):
        motions = joined(tmp_path / "joined.mp4", seed)
        events = learned.timeline(tmp_path / "joined.mp4", tmp_path / "out", **settings)
        exclusive_lock = [event for event in events if event.class_id != NOTHING]
        assert [event.class_id for event in exclusive_lock] == [class_id for _, _, class_id in motions]
        times = [time for event in exclusive_lock for time in event[:2]]
        assert times == pytest.approx([time for motion in motions for time in motion[:2]], abs=STRIDE + 0.01)
