"""Draw what the network sees of a clip: its super-images, with frame numbers and times, as one PNG.

python -m tools.dataset show clip.mp4 --config configs/stnet.yaml --mode test --seed 0 --out sheet.png
"""

from __future__ import annotations

import argparse
import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from core import cli
from core.atomic import write_atomically
from core.errors import UserError
from reader.clip import Clip, clip_rng, read_clip
from reader.errors import ClipError
from tools.dataset.check import add_config_flags, read_config

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from PIL import Image, ImageDraw

    from core.config import ReaderSection

GAP = 4  # pixels between tiles
STRIP = 14  # height of the text under a tile
TITLE = 20  # height of a block's heading
_GROUND, _INK = (24, 24, 24), (235, 235, 235)


class Block(NamedTuple):
    """One part of the sheet: the clip as one reading gives it."""

    title: str
    segments: list[list[int]]  # seg_num lists of seglen frame numbers
    frames: np.ndarray  # uint8 [seg_num * seglen, H, W, 3]
    seconds: list[float]  # the time of each frame of the file; empty where it is not known


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("show", help="a contact sheet of what the network sees of a clip")
    parser.add_argument("clip", metavar="CLIP", help="video, or pickle where MODEL.format is pkl")
    add_config_flags(parser, "test")
    parser.add_argument("--seed", type=int, default=0, help="of the augmentation (default: %(default)s)")
    parser.add_argument("--tile", type=cli.positive_int, default=128, metavar="N", help="pixels a frame (%(default)s)")
    parser.add_argument("--out", default="sheet.png", metavar="FILE", help="PNG to write (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw the sheet. Returns the exit code."""
    config = read_config(args)
    mode, train, clip_format = config.section(args.mode), config.section("train"), config.MODEL.format
    rng = clip_rng(args.seed, epoch=0, index=0)  # the draws that training makes for the first clip of its first epoch
    try:
        blocks = [
            read_block(args.clip, mode, clip_format, f"before augmentation: {args.mode}, centre"),
            read_block(args.clip, train, clip_format, f"after augmentation: train, seed {args.seed}", rng),
        ]
    except ClipError as error:
        raise UserError(f"{args.clip}: {error}") from None
    sheet = draw_sheet(blocks, args.tile)
    write_atomically(args.out, functools.partial(sheet.save, format="PNG"))
    print(f"wrote {args.out}: {sheet.width} x {sheet.height} pixels, a row for each super-image")
    return 0


def read_block(path: str, section: ReaderSection, format: str, title: str, rng: random.Random | None = None) -> Block:
    """The Block of a clip as a section of the configuration says. Arguments and errors as reader.clip.read_clip."""
    clip = read_clip(path, section, format, rng)
    return Block(title, clip.segments, clip.frames, _seconds(clip))


def _seconds(clip: Clip) -> list[float]:
    """The time of each frame, from the first one on, by its stamp; empty where there are none."""
    index = clip.video and clip.video.index
    if not index or len(index.stamps) != clip.num_frames:
        return []
    return [float((stamp - index.stamps[0]) * index.time_base) for stamp in index.stamps]


def draw_sheet(blocks: Sequence[Block], tile: int) -> Image.Image:
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
        pen.text((GAP, top + GAP), block.title, fill=_INK)
        _draw_tiles(sheet, pen, block, tile, top + TITLE)
        top += block_size(block, tile)[1]
    return sheet


def block_size(block: Block, tile: int) -> tuple[int, int]:
    """(width, height) of a block in pixels."""
    rows, columns = len(block.segments), len(block.segments[0])
    return GAP + columns * (tile + GAP), TITLE + rows * (tile + STRIP + GAP)


def _draw_tiles(sheet: Image.Image, pen: ImageDraw.ImageDraw, block: Block, tile: int, top: int) -> None:
    from PIL import Image

    seglen = len(block.segments[0])
    for place, frame in enumerate(block.frames):
        row, column = divmod(place, seglen)
        x, y = GAP + column * (tile + GAP), top + row * (tile + STRIP + GAP)
        sheet.paste(Image.fromarray(frame).resize((tile, tile), Image.BILINEAR), (x, y))
        index = block.segments[row][column]
        time = f"  {block.seconds[index]:.2f} s" if block.seconds else ""
        pen.text((x, y + tile + 1), f"{index}{time}", fill=_INK)
