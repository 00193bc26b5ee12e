"""A font that has the characters of a text: class names are in any language."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

# Families that hold Chinese, Japanese and Korean, where DejaVu, which matplotlib brings, does not.
_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS",
)  # fmt: skip


_WITHOUT_GLYPH = set(map(ord, "\n\r\t"))


@functools.lru_cache(maxsize=256)
def font_file(text: str) -> str:
    """Path of a font that has every character of `text`; of DejaVu Sans where this machine has none."""
    from matplotlib.font_manager import fontManager

    paths = {font.name: font.fname for font in reversed(fontManager.ttflist) if font.style == "normal"}
    default = fontManager.findfont("DejaVu Sans")
    for path in (default, *(paths[family] for family in _FAMILIES if family in paths)):
        if set(map(ord, text)) - _WITHOUT_GLYPH <= _characters(path):
            return path
    return default


def font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """For PIL.ImageDraw, `size` pixels high."""
    from PIL import ImageFont

    return ImageFont.truetype(font_file(text), size)


@functools.lru_cache(maxsize=16)
def _characters(path: str) -> set[int]:
    from matplotlib.ft2font import FT2Font

    return set(FT2Font(path).get_charmap())
