import random

import numpy as np
import pytest

from benchmarks.network import normalise
from benchmarks.peers import original_reader
from stnet.config import ReaderSection, TrainSection
from stnet.reader.dataset import VideoListDataset
from stnet.reader.lists import Clip

VIDEOS = ["wide_h264.mp4", "tall_h264.mp4", "mpeg4.avi", "three_frames.mp4", "twenty_frames.mp4"]


@pytest.mark.parametrize("video", VIDEOS)
@pytest.mark.parametrize(("mode", "seg_num", "short"), [("train", 3, 48), ("test", 4, 256), ("train", 2, 256)])
def test_the_originals_way_gives_our_bits(videos, video, mode, seg_num, short):
    section = (TrainSection if mode == "train" else ReaderSection)(
        seg_num=seg_num, seglen=5, short_size=short, target_size=40
    )
    path = str(videos / video)
    ours, _ = VideoListDataset([Clip(path, 0)], section, augment=mode == "train", seed=7).read(0, epoch=2)
    theirs = original_reader.read_clip(path, section, random.Random("7/2/0") if mode == "train" else None)
    assert theirs.dtype == np.float32
    assert np.array_equal(normalise(ours), theirs)


def test_our_numpy_normalisation_has_the_bits_of_the_networks_side():
    import paddle

    from stnet.models.normalizer import Normalizer

    clips = np.random.RandomState(0).randint(0, 256, (1, 2, 15, 8, 8)).astype(np.uint8)
    expected = Normalizer([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(paddle.to_tensor(clips)).numpy()
    assert np.array_equal(normalise(clips[0]), expected[0])
