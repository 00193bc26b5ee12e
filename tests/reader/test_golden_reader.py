"""The reader's arrays are those of the original, bit for bit."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import paddle
import pytest

from engine.batch import Normalizer
from reader.decode import read_pickle, read_video
from reader.sampling import sample_frames
from reader.transforms import make_clip, to_super_images

GOLDEN = Path(__file__).parents[1] / "golden"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def rows(name):
    return json.loads((GOLDEN / f"reader_{name}.json").read_text())


def row_id(row):
    return f"{row['file']}-{row['mode']}-{row['seg_num']}x{row['seglen']}"


def check(folder, row):
    rng = random.Random(row["seed"]) if row["mode"] == "train" else None
    seen = {}

    def pick(num_frames):
        seen["count"] = num_frames
        seen["indices"] = sample_frames(num_frames, row["seg_num"], row["seglen"], row["format"], rng)
        return [i for segment in seen["indices"] for i in segment]

    read = read_pickle if row["format"] == "pkl" else read_video
    frames, places = read(str(folder / row["file"]), pick)[:2]
    assert seen["count"] == row["num_frames"]
    assert seen["indices"] == row["frame_indices"]
    clip = make_clip(frames, places, row["short_size"], row["target_size"], rng)
    assert hashlib.sha256(clip.tobytes()).hexdigest() == row["u8_sha256"]
    batch = paddle.to_tensor(to_super_images(clip, row["seg_num"])[None])
    normalized = np.ascontiguousarray(Normalizer(MEAN, STD)(batch).numpy()[0])
    assert normalized.dtype == np.float32
    assert hashlib.sha256(normalized.tobytes()).hexdigest() == row["f32_sha256"]


@pytest.mark.parity
@pytest.mark.parametrize("row", rows("synthetic"), ids=row_id)
def test_drawn_videos_give_the_originals_arrays(videos, row):
    check(videos, row)


@pytest.mark.parity
@pytest.mark.parametrize("row", rows("real"), ids=row_id)
def test_real_videos_give_the_originals_arrays(real_videos, row):
    check(real_videos, row)
