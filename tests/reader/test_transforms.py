import random
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image

from stnet.reader import transforms
from stnet.reader.resize import _ERROR, sums_of
from stnet.reader.transforms import CROPS, ClipBuilder, crop_corner, resize, scaled_size, to_super_images


def random_frames(seed, count, height, width):
    return np.random.RandomState(seed).randint(0, 256, (count, height, width, 3)).astype(np.uint8)


def make_clip(frames, places, *settings, **more):
    builder = ClipBuilder(len(frames), *settings, **more)
    for row, frame in enumerate(frames):
        builder.put(row, frame)
    return builder.clip(places)


def two_passes(frame, size):
    """The whole frame by Pillow alone, one axis after the other."""
    height, width = frame.shape[:2]
    height_first = size[1] < height and height - size[1] > 2 * (width - size[0])
    between = (width, size[1]) if height_first else (size[0], height)
    image = Image.fromarray(frame).resize(between, Image.BILINEAR)
    return np.asarray(image.resize(size, Image.BILINEAR))


def plain_clip(frames, places, short_size, target_size, rng):
    """make_clip said in the plainest way: scale all, then cut, then mirror."""
    size = scaled_size(frames.shape[2], frames.shape[1], short_size)
    left, top = crop_corner(size, target_size, rng)
    scaled = np.stack([frame if size == frame.shape[1::-1] else two_passes(frame, size) for frame in frames])
    crops = scaled[:, top : top + target_size, left : left + target_size]
    return (crops[:, :, ::-1] if rng and rng.random() < 0.5 else crops)[places]


@pytest.mark.parametrize(
    ("size", "scaled"),
    [
        ((340, 256), (340, 256)),
        ((256, 999), (256, 999)),
        ((320, 240), (341, 256)),
        ((240, 320), (256, 341)),
        ((100, 100), (341, 256)),
        ((256, 256), (256, 256)),
        ((1920, 1080), (341, 256)),
    ],
)
def test_scaling_goes_to_4_by_3_and_leaves_fitting_frames_alone(size, scaled):
    assert scaled_size(*size, 256) == scaled


def test_the_centre_crop_rounds_halves_to_even_as_the_original():
    assert crop_corner((341, 256), 224) == (58, 16)  # 58.5 -> 58
    assert crop_corner((343, 256), 224) == (60, 16)  # 59.5 -> 60


def test_the_crops_at_the_start_and_the_end_lie_along_the_longer_side():
    assert [crop_corner((341, 256), 224, crop=crop) for crop in CROPS[3]] == [(0, 16), (58, 16), (117, 16)]
    assert [crop_corner((256, 341), 224, crop=crop) for crop in CROPS[3]] == [(16, 0), (16, 58), (16, 117)]
    assert [crop_corner((256, 256), 224, crop=crop) for crop in CROPS[3]] == [(0, 16), (16, 16), (32, 16)]


@pytest.mark.parametrize("size", [(60, 40), (40, 60), (17, 90), (100, 20), (30, 30)])
def test_resize_is_pillows_up_to_the_order_of_axes(size):
    frame = np.random.RandomState(0).randint(0, 256, (48, 36, 3), np.uint8)
    ours = resize(frame, size)
    pillow = np.asarray(Image.fromarray(frame).resize(size, Image.BILINEAR))
    assert ours.shape == pillow.shape == (size[1], size[0], 3)
    assert abs(ours.astype(int) - pillow).max() <= 1


def test_resize_takes_the_axis_that_shrinks_most_first():
    frame = np.random.RandomState(0).randint(0, 256, (426, 240, 3), np.uint8)
    by_hand = Image.fromarray(frame).resize((240, 341), Image.BILINEAR).resize((256, 341), Image.BILINEAR)
    assert np.array_equal(resize(frame, (256, 341)), np.asarray(by_hand))


def test_clips_of_any_size_are_what_pillows_two_passes_make():
    for seed in range(150):
        rng = random.Random(seed)
        short_size = rng.randint(1, 48)
        target_size = rng.randint(1, short_size)
        frames = random_frames(seed, rng.randint(1, 3), rng.randint(1, 60), rng.randint(1, 60))
        if min(frames.shape[1:3]) < short_size and rng.random() < 0.2:
            short_size = min(frames.shape[1:3])
            target_size = min(target_size, short_size)
        places = [rng.randrange(len(frames)) for _ in range(4)] if seed % 2 else range(len(frames))
        draws = [random.Random(seed) if seed % 3 else None for _ in range(2)]
        clip = make_clip(frames, places, short_size, target_size, draws[0])
        plain = plain_clip(frames, places, short_size, target_size, draws[1])
        assert np.array_equal(clip, plain), (seed, frames.shape, short_size, target_size)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (330, 250), (426, 240), (240, 426), (426, 320), (340, 256)])
def test_clips_of_usual_sizes_are_what_pillows_two_passes_make(size):
    frames = random_frames(0, 27, size[1], size[0])  # more than are enlarged together
    for target_size, seed in ((256, None), (224, 1), (224, 2)):
        draws = [seed and random.Random(seed) for _ in range(2)]
        clip = make_clip(frames, range(27), 256, target_size, draws[0])
        assert np.array_equal(clip, plain_clip(frames, range(27), 256, target_size, draws[1]))


@pytest.mark.parametrize(
    "size", [(640, 360), (480, 640), (854, 480), (1280, 720), (720, 1280), (1920, 1080), (341, 300)]
)
def test_clips_that_shrink_are_what_pillows_two_passes_make(size):
    frames = random_frames(0, 7, size[1], size[0])  # of 1280 x 720 more than are shrunk together
    frames[1] = frames[1] // 128 * 255  # two values: many sums lie half-way between two bytes
    frames[2] = 255
    for target_size, seed in ((256, None), (224, 1), (224, 2)):
        draws = [seed and random.Random(seed) for _ in range(2)]
        clip = make_clip(frames, range(7), 256, target_size, draws[0])
        assert np.array_equal(clip, plain_clip(frames, range(7), 256, target_size, draws[1]))


def test_frames_that_shrink_to_next_to_nothing_are_what_pillow_makes_of_them():
    frame = np.zeros((1, 1000, 60000, 3), np.uint8)
    frame[:, :, :20000] = 3
    assert np.array_equal(make_clip(frame, [0], 4, 4), plain_clip(frame, [0], 4, 4, None))


def test_sums_that_float32_cannot_tell_are_added_in_whole_numbers(monkeypatch):
    frames = random_frames(0, 2, 90, 120)
    monkeypatch.setattr("stnet.reader.resize._ERROR", 2.0**-3)  # so doubtful are most of them now
    assert np.array_equal(make_clip(frames, [0, 1], 48, 48), plain_clip(frames, [0, 1], 48, 48, None))


@pytest.mark.parametrize("seed", range(40))
def test_float32_is_never_wrong_by_more_than_is_allowed_for(seed):
    rng = random.Random(seed)
    scaled = rng.randint(1, 60)
    sums = sums_of(rng.randint(scaled, 1500), scaled)
    lines = np.random.RandomState(seed).randint(
        0, 256, (max(one.first + len(one.weights) for one in sums), 50), np.uint8
    )
    for first, weights, shares in sums:
        mean = np.zeros((1, 50), np.float32)
        for line, share in zip(lines[first:], shares):
            cv2.accumulateWeighted(line[None], mean, share)
        exact = weights @ lines[first : first + len(weights)].astype(np.int64) / sum(weights)
        assert abs(mean[0] - exact).max() < len(weights) * _ERROR / 2


def test_without_weights_that_give_pillows_bits_pillow_enlarges(monkeypatch):
    frames = random_frames(0, 2, 30, 40)
    monkeypatch.setattr(transforms, "blends_of", lambda length, scaled: None)
    assert np.array_equal(make_clip(frames, [0, 1], 36, 36), plain_clip(frames, [0, 1], 36, 36, None))


def test_threads_do_not_disturb_each_other():
    frames = [random_frames(seed, 3, *((120, 160) if seed % 2 else (150, 200))) for seed in range(4)]  # grow, shrink
    expected = [plain_clip(one, range(3), 128, 128, None) for one in frames]
    with ThreadPoolExecutor(4) as threads:
        clips = list(threads.map(lambda i: make_clip(frames[i % 4], range(3), 128, 128), range(40)))
    assert all(np.array_equal(clip, expected[i % 4]) for i, clip in enumerate(clips))


def test_a_box_of_a_resized_frame_is_cut_out_of_the_whole():
    for seed in range(100):
        rng = random.Random(seed)
        frame = random_frames(seed, 1, rng.randint(1, 90), rng.randint(1, 90))[0]
        size = rng.randint(1, 90), rng.randint(1, 90)
        left, top = rng.randrange(size[0]), rng.randrange(size[1])
        right, bottom = rng.randint(left + 1, size[0]), rng.randint(top + 1, size[1])
        box = resize(frame, size, (left, top, right, bottom))
        assert np.array_equal(box, two_passes(frame, size)[top:bottom, left:right])


@pytest.mark.parametrize("size", [(20, 30), (64, 64), (40, 40)])
def test_a_crop_larger_than_the_frame_is_refused(size):
    with pytest.raises(ValueError, match="no square of 50 pixels fits"):
        make_clip(random_frames(0, 1, *size), [0], 40, 50)


def test_super_images_of_a_clip_are_no_copy():
    clip = make_clip(random_frames(0, 4, 8, 8), range(4), 8, 8)
    assert np.shares_memory(to_super_images(clip, 2), clip)


def test_flip_ratio_zero_never_mirrors_and_one_always_does():
    frames = np.random.RandomState(0).randint(0, 256, (2, 8, 8, 3), np.uint8)
    for seed in range(20):
        plain = make_clip(frames, [0, 1, 0], 8, 8, random.Random(seed), flip_ratio=0)
        mirrored = make_clip(frames, [0, 1, 0], 8, 8, random.Random(seed), flip_ratio=1)
        assert np.array_equal(plain, frames[[0, 1, 0]])
        assert np.array_equal(mirrored, frames[[0, 1, 0]][:, :, ::-1])


def test_a_super_image_stacks_the_frames_of_a_segment_on_the_channel_axis():
    clip = np.random.RandomState(0).randint(0, 256, (6, 4, 5, 3), np.uint8)
    supers = to_super_images(clip, 2)
    assert supers.shape == (2, 9, 4, 5)
    for segment in range(2):
        for frame in range(3):
            for colour in range(3):
                assert np.array_equal(supers[segment, 3 * frame + colour], clip[3 * segment + frame, :, :, colour])
