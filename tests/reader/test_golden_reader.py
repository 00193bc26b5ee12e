"""The reader's arrays are those of the original, bit for bit."""

import hashlib
import json
import random
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest

from stnet.config import TrainSection
from stnet.models.normalizer import Normalizer
from stnet.reader.clip import read_clip
from stnet.reader.errors import ClipError
from stnet.reader.transforms import to_super_images

GOLDEN = Path(__file__).parents[1] / "golden"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def rows(name):
    return json.loads((GOLDEN / f"reader_{name}.json").read_text())


def row_id(row):
    return f"{row['file']}-{row['mode']}-{row['seg_num']}x{row['seglen']}"


def check(folder, row, decoder=""):
    rng = random.Random(row["seed"]) if row["mode"] == "train" else None
    sizes = {key: row[key] for key in ("seg_num", "seglen", "short_size", "target_size")}
    clip = read_clip(str(folder / row["file"]), TrainSection(**sizes), row["format"], rng, decoder)
    assert clip.num_frames == row["num_frames"]
    assert clip.segments == row["frame_indices"]
    assert hashlib.sha256(clip.frames.tobytes()).hexdigest() == row["u8_sha256"]
    batch = paddle.to_tensor(to_super_images(clip.frames, row["seg_num"])[None])
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


def videos_of(name):
    return [row for row in rows(name) if row["format"] != "pkl"]


@pytest.mark.parity
@pytest.mark.parametrize("decoder", ["decord", "pyav", "opencv"])
def test_each_decoder_gives_the_originals_arrays_or_says_that_it_cannot(videos, decoder, monkeypatch):
    monkeypatch.setenv("STNET_DECODER", decoder)
    refused = set()
    for row in videos_of("synthetic"):
        try:
            check(videos, row)
        except ClipError as error:
            assert "decord cannot be shown to give the right frames" in str(error)
            refused.add(row["file"])
    assert refused == ({"mpeg4.avi"} if decoder == "decord" else set())


@pytest.mark.parity
@pytest.mark.parametrize("decoder", ["decord", "pyav", "opencv"])
def test_each_decoder_gives_the_originals_arrays_of_real_videos_or_says_that_it_cannot(real_videos, decoder):
    refused = set()
    for row in videos_of("real"):
        if decoder == "opencv" and row["file"] == "video_90.mov" and int(cv2.__version__.split(".")[0]) < 5:
            continue  # OpenCV heeds neither the colour matrix nor the turning
        try:
            check(real_videos, row, decoder)
        except ClipError:
            refused.add(row["file"])
    assert refused == ({"pv_example.avi", "video_90.mov"} if decoder == "decord" else set())
