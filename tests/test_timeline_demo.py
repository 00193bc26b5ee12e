"""A network that learns to tell motions says which come when in a video that joins them."""

import random

import numpy as np
import pytest
from conftest import write_config
from entries import run, train

from core.config import load_config
from engine.timeline_run import Settings, load_parts, make_timeline
from models import model_section
from tools.demo_clips import CLASSES, RATE, SIZE, draw_clip, write_clip, write_set

WINDOW, STRIDE = 2.0, 2 / 3  # seconds: what the clips last, and a segment of them


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """(configuration, weights) of the demo, trained on clips of two seconds."""
    folder = tmp_path_factory.mktemp("demo")
    write_set(str(folder), train=240, val=2, seed=0)
    settings = load_config("configs/stnet_demo.yaml", model_section).as_dict()
    settings["MODEL"]["labels"] = str(folder / "labels.json")
    settings["TRAIN"].update(filelist=str(folder / "train.list"), epoch=3)
    settings["VALID"]["filelist"] = str(folder / "val.list")
    path = write_config(folder / "demo.yaml", settings)
    assert run(train, "--config", path, "--pretrain=none", "--fix_random_seed=True", "--save_dir", folder / "run") == 0
    return load_config(str(path), model_section), str(folder / "run" / "STNET_final.pdparams")


def joined(path, seed):
    """Motions of six seconds with noise of four between them. Returns (start, end, class) of each in seconds."""
    rng, noise = random.Random(seed), np.random.RandomState(seed)
    frames, motions, at = [], [], 0
    for name in ("left", "", "up", "right", "", "down", ""):
        count = 6 * RATE if name else 4 * RATE
        blank = noise.randint(0, 256, (count, SIZE, SIZE, 3)).astype(np.uint8)
        frames.append(draw_clip(name, rng, count) if name else blank)
        if name:
            motions.append((at / RATE, (at + count) / RATE, CLASSES.index(name)))
        at += count
    write_clip(str(path), np.concatenate(frames))
    return motions


@pytest.mark.long
def test_motions_are_found_within_a_stride_and_nothing_is_claimed_in_the_noise(learned, tmp_path):
    config, weights = learned
    parts = load_parts(config, weights, "auto", CLASSES)
    settings = Settings(window=WINDOW, stride=STRIDE, shortest=2.5)
    for seed in range(5):
        motions = joined(tmp_path / "joined.mp4", seed)
        events = make_timeline(parts, str(tmp_path / "joined.mp4"), config, CLASSES, str(tmp_path / "out"), settings)
        assert [event.class_id for event in events] == [class_id for _, _, class_id in motions]
        for event, (start, end, _) in zip(events, motions):
            assert (event.start, event.end) == (
                pytest.approx(start, abs=STRIDE + 0.01),
                pytest.approx(end, abs=STRIDE + 0.01),
            )
