"""Draw what the network sees of a clip: its super-images, with frame numbers and times, as one PNG.

python -m tools.dataset show clip.mp4 --config configs/stnet.yaml --mode test --seed 0 --out sheet.png
"""

import functools
import random
from typing import NamedTuple

from core.errors import UserError
from engine import cli
from engine.files import write_atomically
from reader import decode
from reader.sampling import sample_frames
from tools.dataset.check import add_config_flags, read_config

GAP = 4  # pixels between tiles
STRIP = 14  # height of the text under a tile
TITLE = 20  # height of a block's heading
_GROUND, _INK = (24, 24, 24), (235, 235, 235)


class Block(NamedTuple):
    """One part of the sheet: the clip as one reading gives it."""

    title: str
    segments: list  # seg_num lists of seglen frame numbers
    frames: object  # uint8 [seg_num * seglen, H, W, 3]


def add_parser(commands):
    """Add the subcommand."""
    made = commands.add_parser("show", help="a contact sheet of what the network sees of a clip")
    made.add_argument("clip", metavar="CLIP", help="video, or pickle where MODEL.format is pkl")
    add_config_flags(made, "test")
    made.add_argument("--seed", type=int, default=0, help="of the augmentation (default: %(default)s)")
    made.add_argument("--tile", type=cli.positive_int, default=128, metavar="N", help="pixels a frame (%(default)s)")
    made.add_argument("--out", default="sheet.png", metavar="FILE", help="PNG to write (default: %(default)s)")
    made.set_defaults(run=run)


def run(args):
    """Draw the sheet. Returns the exit code."""
    config = read_config(args)
    mode, train, clip_format = config.section(args.mode), config.section("train"), config.MODEL.format
    rng = random.Random(f"{args.seed}/0/0")  # the draws that training makes for the first clip of its first epoch
    try:
        blocks = [
            read_block(args.clip, mode, clip_format, f"before augmentation: {args.mode}, centre"),
            read_block(args.clip, train, clip_format, f"after augmentation: train, seed {args.seed}", rng),
        ]
    except decode.ClipError as error:
        raise UserError(f"{args.clip}: {error}") from None
    rate = 0.0 if clip_format == "pkl" else frame_rate(args.clip)
    sheet = draw_sheet(blocks, args.tile, rate)
    write_atomically(args.out, functools.partial(sheet.save, format="PNG"))
    print(f"wrote {args.out}: {sheet.width} x {sheet.height} pixels, a row for each super-image")
    return 0


def read_block(path, section, format, title, rng=None):
    """Read a clip as a section of the configuration says.

    Args:
        path: the clip.
        section: core.config.ReaderSection with seg_num and seglen set.
        format: "mp4" or "pkl".
        title: heading.
        rng: random.Random augments as training does; None takes the centre.

    Returns:
        Block. Raises reader.decode.ClipError.
    """
    from reader.transforms import make_clip

    segments = []

    def pick(num_frames):
        segments[:] = sample_frames(num_frames, section.seg_num, section.seglen, format, rng)
        return [i for segment in segments for i in segment]

    read = decode.read_pickle if format == "pkl" else decode.read_video
    frames, places = read(path, pick)[:2]
    flip_ratio = section.flip_ratio if rng else 0
    clip = make_clip(frames, places, section.short_size, section.target_size, rng, flip_ratio)
    return Block(title, segments, clip)


def frame_rate(path):
    """Frames a second by the file's header, 0 if it does not say."""
    import cv2

    capture = cv2.VideoCapture(path)
    rate = capture.get(cv2.CAP_PROP_FPS) if capture.isOpened() else 0.0
    capture.release()
    return rate


def draw_sheet(blocks, tile, rate):
    """One PIL image: blocks below each other, a row a segment, a column a frame.

    Args:
        blocks: list of Block.
        tile: pixels of a frame's side.
        rate: frames a second, for the times; 0: without times.
    """
    from PIL import Image, ImageDraw

    width = max(block_size(block, tile)[0] for block in blocks)
    sheet = Image.new("RGB", (width, sum(block_size(block, tile)[1] for block in blocks)), _GROUND)
    pen = ImageDraw.Draw(sheet)
    top = 0
    for block in blocks:
        pen.text((GAP, top + GAP), block.title, fill=_INK)
        _draw_tiles(sheet, pen, block, tile, rate, top + TITLE)
        top += block_size(block, tile)[1]
    return sheet


def block_size(block, tile):
    """(width, height) of a block in pixels."""
    rows, columns = len(block.segments), len(block.segments[0])
    return GAP + columns * (tile + GAP), TITLE + rows * (tile + STRIP + GAP)


def _draw_tiles(sheet, pen, block, tile, rate, top):
    from PIL import Image

    seglen = len(block.segments[0])
    for place, frame in enumerate(block.frames):
        row, column = divmod(place, seglen)
        x, y = GAP + column * (tile + GAP), top + row * (tile + STRIP + GAP)
        sheet.paste(Image.fromarray(frame).resize((tile, tile), Image.BILINEAR), (x, y))
        index = block.segments[row][column]
        pen.text((x, y + tile + 1), f"{index}  {index / rate:.2f} s" if rate else str(index), fill=_INK)
