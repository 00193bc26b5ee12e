"""Scale, crop and flip the frames of a clip. All randomness comes from an `rng`."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image

from stnet.reader.resize import MAX_RATIO, Enlarger, Shrinker, blends_of, sums_of

Size = tuple[int, int]  # width, height
Box = tuple[int, int, int, int]  # left, top, right, bottom
CENTRE = "centre"
CROPS = {1: (CENTRE,), 3: ("start", CENTRE, "end")}  # of TEST.num_crops: where on the longer side each lies


class ClipBuilder:
    """Scales, crops and flips the frames of a clip as they come: only the crops are kept.

    Args:
        count: number of frames.
        short_size, target_size: pixels; scale the short side to the first, then crop a square of the second.
        rng: for training (random crop, then flip); None takes the centre.
        flip_ratio: share of training clips that are flipped; 0 where left and right make a difference.
        crop: without rng, where on the longer side the crop lies; see crop_corner.
    """

    def __init__(
        self,
        count: int,
        short_size: int,
        target_size: int,
        rng: random.Random | None = None,
        flip_ratio: float = 0.5,
        crop: str = CENTRE,
    ) -> None:
        self.short_size, self.target_size = short_size, target_size
        self.rng, self.flip_ratio, self.crop = rng, flip_ratio, crop
        self.planes = np.empty((count, 3, target_size, target_size), np.uint8)
        self.size: Size | None = None  # after scaling, known with the first frame
        self.scaler: Enlarger | Shrinker | None = None
        self.shape: tuple[int, ...] = ()  # of the frames that the scaler holds
        self.rows = range(0)  # of the same frames

    def put(self, row: int, frame: np.ndarray) -> None:
        """Take the frame of a row.

        Args:
            row: 0 to count - 1.
            frame: uint8 [H, W, 3] RGB; it may be kept until `clip`, and must not change.

        Raises:
            ValueError: no crop of target_size fits, or the frame scales to another size than the first one.
        """
        size = scaled_size(frame.shape[1], frame.shape[0], self.short_size)
        if self.size is None:
            self._draw(size)
        if size != self.size:
            raise ValueError(f"its frames change shape: {self.size} pixels after scaling, then {size}")
        frame, size, box = _shrink_one_axis(frame, size, self.box)
        if frame.shape != self.shape or row != self.rows.stop:
            self._fill_rows()
            self.scaler = scaler_of(frame, size, box, self.flip, len(self.planes) - row)
            self.shape = frame.shape
            self.rows = range(row, row)
        if self.scaler:
            self.scaler.add(frame)
            self.rows = range(self.rows.start, row + 1)
            if len(self.rows) == self.scaler.together:
                self._fill_rows()
        else:
            _fill(self.planes[row], frame, size, box, self.flip)
            self.rows = range(row + 1, row + 1)

    def clip(self, rows: np.ndarray) -> np.ndarray:
        """Frames of `rows`, which may repeat, uint8 [len(rows), target_size, target_size, 3].

        Each colour plane is contiguous, so that to_super_images copies nothing.
        """
        self._fill_rows()
        planes = self.planes if np.array_equal(rows, np.arange(len(self.planes))) else self.planes[rows]
        return planes.transpose(0, 2, 3, 1)  # [N, 3, H, W] -> [N, H, W, 3]

    def _draw(self, size: Size) -> None:
        target = self.target_size
        if target > min(size):
            raise ValueError(f"no square of {target} pixels fits into {size[0]} x {size[1]}")
        left, top = crop_corner(size, target, self.rng, self.crop)
        self.size, self.box = size, (left, top, left + target, top + target)
        self.flip = self.rng is not None and self.rng.random() < self.flip_ratio

    def _fill_rows(self) -> None:
        """Scale the frames that the scaler holds into their rows."""
        if self.scaler and self.rows:
            self.scaler.fill(self.planes[self.rows.start : self.rows.stop])
        self.rows = range(self.rows.stop, self.rows.stop)


def scaler_of(frame: np.ndarray, size: Size, box: Box, flip: bool, frames: int) -> Enlarger | Shrinker | None:
    """Scaler of frames to the box of `size`, flipped if `flip`; None: Pillow scales, or nothing does."""
    height, width = frame.shape[:2]
    left, top, right, bottom = box
    if size == (width, height):
        return None
    if size[0] <= width and size[1] <= height:
        too_small = width > MAX_RATIO * size[0] or height > MAX_RATIO * size[1]
        if too_small or _height_first(frame, size):
            return None
        sums, lines = sums_of(width, size[0])[left:right], sums_of(height, size[1])[top:bottom]
        return Shrinker(sums[::-1] if flip else sums, lines, frames)
    columns, rows = blends_of(width, size[0]), blends_of(height, size[1])
    if columns is None or rows is None:
        return None
    columns = columns[left:right]
    return Enlarger(columns[::-1] if flip else columns, rows[top:bottom])


def _shrink_one_axis(frame: np.ndarray, size: Size, box: Box) -> tuple[np.ndarray, Size, Box]:
    """(frame, size, box) after Pillow has shrunk one axis, where the other grows; else as they are."""
    height, width = frame.shape[:2]
    left, top, right, bottom = box
    if size[0] < width and size[1] > height:
        frame = resize(frame, (size[0], height), (left, 0, right, height))
        return frame, (right - left, size[1]), (0, top, right - left, bottom)
    if size[0] > width and size[1] < height:
        frame = resize(frame, (width, size[1]), (0, top, width, bottom))
        return frame, (size[0], bottom - top), (left, 0, right, bottom - top)
    return frame, size, box


def _fill(plane: np.ndarray, frame: np.ndarray, size: Size, box: Box, flip: bool) -> None:
    """Fill plane, uint8 [3, h, w], with the box of a frame, resized by Pillow if needed, flipped if `flip`."""
    import cv2  # late: not needed for --help

    left, top, right, bottom = box
    as_it_is = size == (frame.shape[1], frame.shape[0])
    crop = frame[top:bottom, left:right] if as_it_is else resize(frame, size, box)
    # OpenCV 5 can take seven times as long to split a crop that is not contiguous
    crop = cv2.flip(crop, 1) if flip else np.ascontiguousarray(crop)
    cv2.split(crop, list(plane))  # [h, w, 3] -> [3, h, w]


def to_super_images(clip: np.ndarray, seg_num: int) -> np.ndarray:
    """[seg_num * seglen, H, W, 3] -> [seg_num, 3 * seglen, H, W]: a segment's frames stacked on the channel axis."""
    count, height, width, _ = clip.shape
    return np.ascontiguousarray(clip.transpose(0, 3, 1, 2)).reshape(seg_num, count // seg_num * 3, height, width)


def scaled_size(width: int, height: int, short_size: int) -> Size:
    """(width, height) after scaling: short_size on the shorter side, 4/3 of it on the longer; a square counts as wide.

    The aspect ratio is not kept, as the released weights were trained. Frames whose short side is short_size stay.
    """
    if min(width, height) == short_size:
        return width, height
    long_size = int(short_size * 4 / 3)
    return (short_size, long_size) if width < height else (long_size, short_size)


def crop_corner(size: Size, target_size: int, rng: random.Random | None = None, crop: str = CENTRE) -> tuple[int, int]:
    """(left, top) of the crop in an image of size (width, height): random, or the centre, rounded as the original.

    `crop`: "start" or "end" moves it along the longer side, the width in a square.
    """
    room = size[0] - target_size, size[1] - target_size
    if rng is not None:
        return rng.randint(0, room[0]), rng.randint(0, room[1])
    left, top = int(round(room[0] / 2.0)), int(round(room[1] / 2.0))
    if crop == CENTRE:
        return left, top
    at_end = crop == "end"
    return (left, room[1] * at_end) if size[1] > size[0] else (room[0] * at_end, top)


def resize(frame: np.ndarray, size: Size, box: Box | None = None) -> np.ndarray:
    """Antialiased bilinear resize of one uint8 frame [H, W, 3] to size (width, height), or a box of the result.

    Pillow resizes one axis after the other and rounds in between. The order is fixed here, as it depends on the release
    of Pillow: all give the same result. Pixels outside the box (left, top, right, bottom) are cut off after each pass.
    """
    height, width = frame.shape[:2]
    left, top, right, bottom = box or (0, 0, *size)
    image = Image.fromarray(frame)
    if _height_first(frame, size):
        image = image.resize((width, size[1]), Image.BILINEAR).crop((0, top, width, bottom))
        image = image.resize((size[0], bottom - top), Image.BILINEAR).crop((left, 0, right, bottom - top))
    else:
        image = image.resize((size[0], height), Image.BILINEAR).crop((left, 0, right, height))
        image = image.resize((right - left, size[1]), Image.BILINEAR).crop((0, top, right - left, bottom))
    return np.asarray(image)


def _height_first(frame: np.ndarray, size: Size) -> bool:
    """True if Pillow resizes the height first, as it does since 13.0."""
    height, width = frame.shape[:2]
    return size[1] < height and height - size[1] > 2 * (width - size[0])
