"""Reader that works as the original does, written from a description of it. For comparison only.

Every frame of the video is decoded and converted to RGB; each sampled frame is scaled and cropped by itself, even if
it is sampled twice; and the clip grows frame by frame, copied each time. Random numbers are drawn in our reader's
order, so that both read the same clip.
"""

from __future__ import annotations

import random

import cv2
import numpy as np
from PIL import Image

from stnet.config import ReaderSection, TrainSection
from stnet.reader.sampling import sample_frames

_MEAN, _STD = (
    np.array(values, "float32").reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def read_clip(path: str, section: ReaderSection, rng: random.Random | None = None) -> np.ndarray:
    """Read a clip of a video file as float32 [seg_num, 3 * seglen, target_size, target_size], normalised.

    Args:
        section: with seg_num and seglen set.
        rng: for training; None takes the centre.
    """
    frames = decode(path)
    assert section.seg_num and section.seglen
    segments = sample_frames(len(frames), section.seg_num, section.seglen, "mp4", rng)
    images = [Image.fromarray(frames[i]) for i in np.ravel(segments)]
    images = crop_and_flip([scale(image, section.short_size) for image in images], section, rng)
    clip = None
    for image in images:
        array = np.array(image).astype("float32").transpose(2, 0, 1)[None] / 255
        clip = array if clip is None else np.concatenate([clip, array])
    assert clip is not None
    clip -= _MEAN
    clip /= _STD
    return clip.reshape(section.seg_num, -1, *clip.shape[2:])


def decode(path: str) -> list[np.ndarray]:
    """Decode every frame of a video as RGB, uint8 [H, W, 3]."""
    capture, frames = cv2.VideoCapture(path), []
    while (frame := capture.read()[1]) is not None:
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    return frames


def scale(image: Image.Image, short_size: int) -> Image.Image:
    """Scale an image to a short side of short_size, and a long one of 4/3 of it."""
    width, height = image.size
    if min(width, height) == short_size:
        return image
    long_size = int(short_size * 4 / 3)
    return image.resize((short_size, long_size) if width < height else (long_size, short_size), Image.BILINEAR)


def crop_and_flip(images: list[Image.Image], section: ReaderSection, rng: random.Random | None) -> list[Image.Image]:
    """Crop the same square of all images, and mirror all or none."""
    size, spare = section.target_size, [side - section.target_size for side in images[0].size]
    left, top = (rng.randint(0, end) if rng else int(round(end / 2.0)) for end in spare)
    images = [image.crop((left, top, left + size, top + size)) for image in images]
    if isinstance(section, TrainSection) and rng and rng.random() < section.flip_ratio:
        images = [image.transpose(Image.FLIP_LEFT_RIGHT) for image in images]
    return images
