import shutil
from pathlib import Path

from stnet.utils import fonts


def test_a_long_name_is_cut_though_it_is_one_word():
    assert fonts.drawable("using_remote_controller_(not_gaming)", 30) == "using_remote_controller_(not_…"
    assert fonts.drawable("playing\n a $5 \udce9 guitar", 30) == "playing a \\$5 ? guitar"


def test_a_font_installed_after_matplotlib_made_its_list_is_found(tmp_path, monkeypatch):
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    default = font_manager.findfont("DejaVu Sans")
    new = shutil.copy(Path(default).with_name("STIXGeneral.ttf"), tmp_path)
    only_new = chr(min(set(FT2Font(new).get_charmap()) - set(FT2Font(default).get_charmap())))
    listed = [font for font in font_manager.fontManager.ttflist if font.fname == default]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", listed)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [new])
    fonts._font_for.cache_clear()
    assert fonts.font_for(f"a{only_new}") == ("STIXGeneral", new)
    fonts._font_for.cache_clear()
