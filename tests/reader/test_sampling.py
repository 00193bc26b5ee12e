import random

import pytest

from stnet.reader.sampling import sample_frames, spread


def test_centres_differ_between_mp4_and_pkl():
    assert [s[0] for s in sample_frames(100, 4, 5, "mp4")] == [12, 37, 62, 87]
    assert [s[0] for s in sample_frames(100, 4, 5, "pkl")] == [10, 35, 60, 85]


def test_a_segment_shorter_than_seglen_starts_at_its_first_frame():
    assert sample_frames(9, 3, 5) == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7], [6, 7, 8, 0, 1]]


def test_a_clip_shorter_than_seg_num_wraps():
    assert sample_frames(2, 3, 3) == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("num_frames", [1, 4, 20, 21, 35, 300])
def test_every_index_exists_and_segments_are_consecutive(num_frames):
    for rng in (None, random.Random(num_frames)):
        segments = sample_frames(num_frames, 7, 5, rng=rng)
        assert [len(s) for s in segments] == [5] * 7
        assert all(0 <= i < num_frames for s in segments for i in s)
        assert all((b - a) % num_frames == 1 % num_frames for s in segments for a, b in zip(s, s[1:]))


def test_training_draws_stay_in_their_segment_and_reach_both_ends():
    rng = random.Random(0)
    firsts = [sample_frames(80, 4, 5, rng=rng)[2][0] for _ in range(500)]
    assert (min(firsts), max(firsts)) == (40, 55)


def test_several_clips_are_spread_evenly_over_the_room_of_each_segment():
    starts = [[s[0] for s in sample_frames(100, 4, 5, clip=clip, num_clips=4)] for clip in range(4)]
    assert starts == [[0, 25, 50, 75], [7, 32, 57, 82], [13, 38, 63, 88], [20, 45, 70, 95]]  # 20 * clip / 3, rounded
    assert [spread(1, clip, 3) for clip in range(3)] == [0, 1, 1]  # 0.5 goes up
    assert [spread(0, clip, 3) for clip in range(3)] == [0, 0, 0]


def test_several_clips_are_the_same_in_every_format():
    for clip in range(3):
        assert sample_frames(100, 4, 5, "pkl", clip=clip, num_clips=3) == sample_frames(
            100, 4, 5, clip=clip, num_clips=3
        )


def test_several_clips_of_a_short_video_are_all_the_one():
    for frames in (2, 9):
        assert sample_frames(frames, 3, 5, clip=2, num_clips=3) == sample_frames(frames, 3, 5)
