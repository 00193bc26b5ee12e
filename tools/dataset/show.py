"""Draw the network's input of a clip: its super-images, with frame numbers and times, as one PNG.

python -m tools.dataset show clip.mp4 --config configs/stnet.yaml --mode test --seed 0 --out sheet.png
"""

from __future__ import annotations

import argparse
import functools
import random

from stnet import cli
from stnet.config import ReaderSection
from stnet.reader.clip import clip_rng, read_clip
from stnet.reader.contact_sheet import ClipPanel, draw_sheet, panel_of
from stnet.reader.errors import ClipError
from stnet.reader.formats import Clip
from stnet.reader.spans import Span
from stnet.tools.dataset.check import add_config_flags, read_config
from stnet.utils.atomic import write_atomically
from stnet.utils.errors import UserError


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("show", help="a contact sheet of what the network sees of a clip")
    parser.add_argument("clip", metavar="CLIP", help="video, or pickle where MODEL.format is pkl")
    add_config_flags(parser, "test")
    parser.add_argument(
        "--span", type=float, nargs=2, metavar=("START", "END"), help="seconds: a part of the video alone"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the augmentation (default: %(default)s)")
    parser.add_argument("--tile", type=cli.positive_int, default=128, metavar="N", help="pixels a frame (%(default)s)")
    parser.add_argument("--out", default="sheet.png", metavar="FILE", help="PNG to write (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Draw the sheet. Returns the exit code."""
    config = read_config(args)
    mode, train, clip_format = config.section(args.mode), config.section("train"), config.MODEL.format
    rng = clip_rng(args.seed, epoch=0, index=0)  # as training's first clip of its first epoch
    clip = Clip(args.clip, -1, clip_format, Span(*args.span) if args.span else None)
    try:
        blocks = [
            read_block(clip, mode, f"before augmentation: {args.mode}, centre"),
            read_block(clip, train, f"after augmentation: train, seed {args.seed}", rng),
        ]
    except ClipError as error:
        raise UserError(f"{clip.name}: {error}") from None
    sheet = draw_sheet(blocks, args.tile)
    write_atomically(args.out, functools.partial(sheet.save, format="PNG"))
    print(f"wrote {args.out}: {sheet.width} x {sheet.height} pixels, a row for each super-image")
    return 0


def read_block(clip: Clip, section: ReaderSection, title: str, rng: random.Random | None = None) -> ClipPanel:
    """Read a clip into a panel of the sheet. Arguments and errors as read_clip."""
    return panel_of(read_clip(clip.path, section, clip.format, rng, span=clip.span), title)
