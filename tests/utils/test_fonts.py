import shutil
from pathlib import Path

from stnet.utils import fonts


def test_a_long_name_is_cut_though_it_is_one_word():
    assert fonts.drawable("using_remote_controller_(not_gaming)", 30) == "using_remote_controller_(not_…"
    assert fonts.drawable("playing\n a $5 \udce9 guitar", 30) == "playing a \\$5 ? guitar"


def stix_alone():
    """(path of DejaVu Sans, path of STIXGeneral, a character that only the second has)."""
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    default = font_manager.findfont("DejaVu Sans")
    stix = Path(default).with_name("STIXGeneral.ttf")
    return default, stix, chr(min(set(FT2Font(stix).get_charmap()) - set(FT2Font(default).get_charmap())))


def test_a_font_installed_after_matplotlib_made_its_list_is_found(tmp_path, monkeypatch):
    from matplotlib import font_manager

    default, stix, only_new = stix_alone()
    new = shutil.copy(stix, tmp_path)
    listed = [font for font in font_manager.fontManager.ttflist if font.fname == default]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", listed)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [new])
    fonts._installed.cache_clear()
    assert fonts.pillow_font(f"a{only_new}", 12).path == new
    assert fonts.pillow_font("a", 12).path == default
    fonts._installed.cache_clear()


def test_matplotlib_takes_each_character_from_a_font_that_has_it(caplog):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts._warn_of_missing.cache_clear()
    drawn = []
    for character in (stix_alone()[2], "\ue123"):  # the second is in no font
        figure = Figure(figsize=(1, 1), dpi=50)
        figure.text(0.1, 0.1, f"a{character}")
        canvas = FigureCanvasAgg(figure)
        with fonts.drawing(f"a{character}"):
            figure.texts[0].set_family(None)  # as the settings of this moment say
            canvas.draw()
        drawn.append(bytes(canvas.buffer_rgba()))
        assert caplog.text.count("no installed font has all characters") == len(drawn) - 1
    assert drawn[0] != drawn[1]
