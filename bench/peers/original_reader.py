"""How the original reads a clip, written anew from a description of it, with its costs. For comparison only.

Every frame of the video is decoded and turned to RGB, whichever are wanted; each sampled frame is scaled and cropped
by itself, also if it is sampled twice; and the clip grows frame by frame, copied whole each time. The random numbers
are drawn in the reader's order, so that both see the same clip.
"""

import cv2
import numpy as np
from PIL import Image

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def read_clip(path, section, rng=None):
    """A clip of a video file.

    Args:
        path: the file.
        section: core.config.ReaderSection with seg_num and seglen set.
        rng: random.Random for training; None takes the centre.

    Returns:
        float32 [seg_num, 3 * seglen, target_size, target_size], normalised.
    """
    frames = decode(path)
    images = [Image.fromarray(frames[i]) for i in sample(len(frames), section.seg_num, section.seglen, rng)]
    images = [scale(image, section.short_size) for image in images]
    images = crop_and_flip(images, section.target_size, rng, section.flip_ratio if rng else 0)
    return to_array(images, section.seg_num)


def decode(path):
    """Every frame of a video as RGB, uint8 [H, W, 3]."""
    capture = cv2.VideoCapture(path)
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
    capture.release()
    return frames


def sample(count, seg_num, seglen, rng):
    """Indices of the frames of all segments, of an mp4 file."""
    average = count // seg_num
    indices = []
    for segment in range(seg_num):
        start = segment
        if average >= seglen:
            start = segment * average + (rng.randint(0, average - seglen) if rng else (average - 1) // 2)
        elif average:
            start = segment * average
        indices += [(start + k) % count for k in range(seglen)]
    return indices


def scale(image, short_size):
    """One PIL image with its short side at short_size, the long one at 4/3 of it."""
    width, height = image.size
    if min(width, height) == short_size:
        return image
    long_size = int(short_size * 4 / 3)
    return image.resize((short_size, long_size) if width < height else (long_size, short_size), Image.BILINEAR)


def crop_and_flip(images, size, rng, flip_ratio):
    """The same square of all images, all of them mirrored or none."""
    width, height = images[0].size
    if rng:
        left, top = rng.randint(0, width - size), rng.randint(0, height - size)
    else:
        left, top = int(round((width - size) / 2.0)), int(round((height - size) / 2.0))
    images = [image.crop((left, top, left + size, top + size)) for image in images]
    if rng and rng.random() < flip_ratio:
        images = [image.transpose(Image.FLIP_LEFT_RIGHT) for image in images]
    return images


def to_array(images, seg_num):
    """PIL images as one normalised array, joined one by one."""
    clip = None
    for image in images:
        array = np.array(image).astype("float32").transpose(2, 0, 1)[None] / 255
        clip = array if clip is None else np.concatenate([clip, array])
    clip -= np.array(_MEAN, "float32").reshape(1, 3, 1, 1)
    clip /= np.array(_STD, "float32").reshape(1, 3, 1, 1)
    _, _, height, width = clip.shape
    return clip.reshape(seg_num, -1, height, width)
