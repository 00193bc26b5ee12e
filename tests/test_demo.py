import random

import numpy as np
import pytest

from stnet.reader.decode import read_video
from stnet.tools import demo_clips


@pytest.mark.parametrize("pair", [0, 2, 4])
def test_the_two_classes_of_a_pair_show_the_very_same_frames(pair):
    one, other = (demo_clips.draw_clip(demo_clips.CLASSES[pair + i], random.Random(5)) for i in (0, 1))
    assert np.array_equal(one, other[::-1])
    assert not np.array_equal(one, other)


def test_clips_differ_from_seed_to_seed_and_lists_are_complete(tmp_path):
    demo_clips.write_set(str(tmp_path), train=2, val=1, seed=0)
    assert len((tmp_path / "train.list").read_text().splitlines()) == 12
    assert len((tmp_path / "val.list").read_text().splitlines()) == 6
    clips = [read_video(str(path), lambda n: list(range(n)))[0] for path in sorted(tmp_path.glob("clips/train_left*"))]
    assert [clip.shape for clip in clips] == [(24, 48, 48, 3)] * 2
    assert not np.array_equal(*clips)


def test_motion_goes_where_the_class_says():
    def bright_column(frame):
        weight = np.clip(frame.astype(float).min(axis=2) - 120, 0, None)
        return (weight.sum(axis=0) * np.exp(2j * np.pi * np.arange(48) / 48)).sum()  # circular mean

    for name, sign in (("left", -1), ("right", 1)):
        turns = []
        for seed in range(10):
            clip = demo_clips.draw_clip(name, random.Random(seed))
            steps = [np.angle(bright_column(b) / bright_column(a)) for a, b in zip(clip, clip[1:])]
            turns.append(np.median(steps))
        assert sum(np.sign(turn) == sign for turn in turns) >= 9
