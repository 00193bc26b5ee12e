"""A picture of what the network sees of a clip: its super-images, with frame numbers and times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stnet.reader.clip import Clip
from stnet.utils.fonts import pillow_font

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

GAP = 4  # pixels between tiles
STRIP = 14  # height of the text under a tile
LINE = 16  # height of a line of a block's heading
_GROUND, _INK = (24, 24, 24), (235, 235, 235)


class ClipPanel(NamedTuple):
    """One part of the sheet: the clip as one reading gives it."""

    title: str  # a line or more
    segments: list[list[int]]  # seg_num lists of seglen frame numbers
    frames: np.ndarray  # uint8 [seg_num * seglen, H, W, 3]
    seconds: list[float]  # the time of each frame of the file; empty where it is not known


def panel_of(clip: Clip, title: str) -> ClipPanel:
    """The ClipPanel of a clip."""
    return ClipPanel(title, clip.segments, clip.frames, seconds_of(clip))


def seconds_of(clip: Clip) -> list[float]:
    """The time of each frame, from the first one on, by its timestamp; empty where there are none."""
    index = clip.video and clip.video.index
    if not index or len(index.times) != clip.num_frames:
        return []
    return [float((time - index.times[0]) * index.time_base) for time in index.times]


def draw_sheet(blocks: Sequence[ClipPanel], tile: int) -> Image.Image:
    """One image: blocks below each other, a row a segment, a column a frame.

    Args:
        blocks: from top to bottom.
        tile: pixels of a frame's side.
    """
    from PIL import Image, ImageDraw

    width = max(block_size(block, tile)[0] for block in blocks)
    sheet = Image.new("RGB", (width, sum(block_size(block, tile)[1] for block in blocks)), _GROUND)
    pen = ImageDraw.Draw(sheet)
    top = 0
    for block in blocks:
        pen.text((GAP, top + GAP), block.title, fill=_INK, font=pillow_font(block.title, LINE - 4))
        _draw_tiles(sheet, pen, block, tile, top + _heading(block))
        top += block_size(block, tile)[1]
    return sheet


def block_size(block: ClipPanel, tile: int) -> tuple[int, int]:
    """(width, height) of a block in pixels."""
    rows, columns = len(block.segments), len(block.segments[0])
    return GAP + columns * (tile + GAP), _heading(block) + rows * (tile + STRIP + GAP)


def _heading(block: ClipPanel) -> int:
    return GAP + LINE * len(block.title.splitlines())


def _draw_tiles(sheet: Image.Image, pen: ImageDraw.ImageDraw, block: ClipPanel, tile: int, top: int) -> None:
    from PIL import Image

    seglen = len(block.segments[0])
    for place, frame in enumerate(block.frames):
        row, column = divmod(place, seglen)
        x, y = GAP + column * (tile + GAP), top + row * (tile + STRIP + GAP)
        sheet.paste(Image.fromarray(frame).resize((tile, tile), Image.BILINEAR), (x, y))
        number = block.segments[row][column]
        time = f"  {block.seconds[number]:.2f} s" if block.seconds else ""
        pen.text((x, y + tile + 1), f"{number}{time}", fill=_INK)
