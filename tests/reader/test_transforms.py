import random

import numpy as np
import pytest
from PIL import Image

from reader.transforms import crop_corner, make_clip, resize, scaled_size, to_super_images


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
