"""Fonts for texts of any language, for matplotlib and Pillow."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

logger = logging.getLogger("stnet")
# The first two are matplotlib's; the others are fonts of Linux, Windows and macOS with Chinese.
_FAMILIES = (
    "DejaVu Sans", "STIXGeneral", "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "Source Han Sans CN", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "AR PL UMing CN",
    "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS", "Noto Sans", "Unifont",
)  # fmt: skip
_REGULAR = ("normal", "normal", 400)  # style, stretch, weight


def drawable(text: str, width: int = 60) -> str:
    """Cut a text to one line of `width` characters and escape it for matplotlib; file names may hold anything."""
    line = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    if len(line) > width:
        line = line[: width - 1] + "…"
    return line.replace("$", r"\$")


@contextlib.contextmanager
def drawing(text: str) -> Iterator[None]:
    """Context in which matplotlib draws each character of a text in the first font that has it, or else as a box."""
    from matplotlib import rc_context

    with rc_context({"font.family": list(_fonts_for(text))}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def pillow_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """The font with most characters of a text, `size` pixels high, for PIL.ImageDraw, which has no fallback."""
    from PIL import ImageFont

    files = _fonts_for(text).values()
    return ImageFont.truetype(max(files, key=lambda path: len(_charmap(path) & set(map(ord, text)))), size)


def _fonts_for(text: str) -> dict[str, str]:
    """Family -> file of the installed fonts; warns of characters that none of them has."""
    fonts = _installed()
    if not set(map(ord, text)) - set(b" \t\n") <= frozenset().union(*map(_charmap, fonts.values())):
        _warn_of_missing()
    return fonts


@functools.lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    from matplotlib import font_manager

    manager = font_manager.fontManager  # its list is cached in a file: add fonts installed since
    for path in sorted(set(font_manager.findSystemFonts()) - {font.fname for font in manager.ttflist}):
        with contextlib.suppress(OSError, RuntimeError):  # FreeType cannot read it
            manager.addfont(path)
    files: dict[str, str] = {}
    for font in sorted(manager.ttflist, key=lambda font: (font.style, font.stretch, font.weight) != _REGULAR):
        files.setdefault(font.name, font.fname)
    return {name: files[name] for name in _FAMILIES if name in files}


@functools.cache
def _charmap(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a file that is gone
        return frozenset()


@functools.lru_cache(maxsize=1)
def _warn_of_missing() -> None:
    logger.warning(
        "no installed font has all characters of the labels: some are drawn as boxes (Noto Sans CJK has most)"
    )
