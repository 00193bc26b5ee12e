"""A font that has the characters of a text."""

from __future__ import annotations

import contextlib
import functools
import logging
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import ImageFont

logger = logging.getLogger("stnet")
_DEFAULT = "DejaVu Sans"  # comes with matplotlib; has no Chinese, for example


def font_for(text: str) -> tuple[str, str]:
    """(family, file) of the default font if it has all characters of a text, else of the first installed one that has.

    Where none has, it is the default, and the log says so: what it lacks is drawn as boxes.
    """
    return _font_for(frozenset(text) - set(" \t\n"))


def pillow_font(text: str, size: int) -> ImageFont.FreeTypeFont:
    """For PIL.ImageDraw to write a text, `size` pixels high."""
    from PIL import ImageFont

    return ImageFont.truetype(font_for(text)[1], size)


def drawable(text: str, width: int = 60) -> str:
    """A text on one line, not too long, as matplotlib draws it word for word: file names may hold anything."""
    line = " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
    if len(line) > width:
        line = line[: width - 1] + "…"
    return line.replace("$", r"\$")


@contextlib.contextmanager
def drawing(text: str) -> Iterator[None]:
    """Let matplotlib write a text in a font that has it, and not warn of what none has."""
    from matplotlib import rc_context

    families = list(dict.fromkeys([_DEFAULT, font_for(text)[0]]))
    with rc_context({"font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@functools.lru_cache(maxsize=64)
def _font_for(characters: frozenset[str]) -> tuple[str, str]:
    from matplotlib import font_manager

    default = font_manager.findfont(_DEFAULT)
    if _has(default, characters):
        return _DEFAULT, default
    for listed in (lambda: font_manager.fontManager.ttflist, _list_new_fonts):
        for font in sorted(listed(), key=lambda font: (font.style != "normal", font.name)):
            if not font.name.startswith("Last Resort") and _has(font.fname, characters):
                return font.name, font.fname
    _say_what_is_missing()
    return _DEFAULT, default


def _list_new_fonts() -> list[Any]:
    """Fonts installed since matplotlib made the list that it keeps in a file for good; it knows them from now on."""
    from matplotlib import font_manager

    known = {font.fname for font in font_manager.fontManager.ttflist}
    before = len(font_manager.fontManager.ttflist)
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with contextlib.suppress(OSError, RuntimeError):  # no font that FreeType reads
            font_manager.fontManager.addfont(path)
    return font_manager.fontManager.ttflist[before:]


@functools.lru_cache(maxsize=1)
def _say_what_is_missing() -> None:
    logger.warning(
        "no installed font has all characters of the labels: some are drawn as boxes (Noto Sans CJK has most)"
    )


def _has(path: str, characters: frozenset[str]) -> bool:
    from matplotlib.ft2font import FT2Font

    try:
        return set(map(ord, characters)) <= set(FT2Font(path).get_charmap())
    except (OSError, RuntimeError):  # a file that is gone, or no font that FreeType reads
        return False
