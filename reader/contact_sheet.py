"""Contact sheet of a clip: the frames of its super-images, with frame numbers and times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from stnet.reader.clip import Clip
from stnet.utils.fonts import pillow_font

GAP = 4  # pixels between tiles
STRIP = 14  # height of the text under a tile
LINE = 16  # height of a line of a panel's title
_GROUND, _INK = (24, 24, 24), (235, 235, 235)


class ClipPanel(NamedTuple):
    """Part of a sheet: a clip under a title."""

    title: str  # a line or more
    segments: list[list[int]]  # seg_num lists of seglen frame numbers
    frames: np.ndarray  # uint8 [seg_num * seglen, H, W, 3]
    seconds: list[float]  # time of each frame of the clip; empty if unknown


def panel_of(clip: Clip, title: str) -> ClipPanel:
    """Panel of a clip, with a title of one or more lines."""
    return ClipPanel(title, clip.segments, clip.frames, seconds_of(clip))


def seconds_of(clip: Clip) -> list[float]:
    """Seconds of each frame from the file's first one on, by its timestamp; empty if timestamps are missing."""
    video = clip.video
    if not video or len(video.index.times) != video.frames:
        return []
    times = video.index.times[video.first : video.first + clip.num_frames]
    return [float((time - video.index.times[0]) * video.index.time_base) for time in times]


def draw_sheet(panels: Sequence[ClipPanel], tile: int) -> Image.Image:
    """Draw panels below each other: a row for each segment, a column for each frame of `tile` x `tile` pixels."""
    width = max(GAP + len(panel.segments[0]) * (tile + GAP) for panel in panels)
    titles = [GAP + LINE * len(panel.title.splitlines()) for panel in panels]  # heights
    heights = [title + len(panel.segments) * (tile + STRIP + GAP) for title, panel in zip(titles, panels)]
    sheet = Image.new("RGB", (width, sum(heights)), _GROUND)
    pen = ImageDraw.Draw(sheet)
    top = 0
    for panel, title, height in zip(panels, titles, heights):
        pen.text((GAP, top + GAP), panel.title, fill=_INK, font=pillow_font(panel.title, LINE - 4))
        for place, frame in enumerate(panel.frames):
            row, column = divmod(place, len(panel.segments[0]))
            x, y = GAP + column * (tile + GAP), top + title + row * (tile + STRIP + GAP)
            sheet.paste(Image.fromarray(frame).resize((tile, tile), Image.BILINEAR), (x, y))
            number = panel.segments[row][column]
            time = f"  {panel.seconds[number]:.2f} s" if panel.seconds else ""
            pen.text((x, y + tile + 1), f"{number}{time}", fill=_INK)
        top += height
    return sheet
