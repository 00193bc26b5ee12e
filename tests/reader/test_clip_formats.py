import numpy as np
import pytest

from stnet.config import ReaderSection, load_config
from stnet.models import model_section
from stnet.reader.clip import read_clip
from stnet.reader.errors import ClipError
from stnet.reader.formats import FORMATS, Clip, Format
from stnet.reader.loader import build_loader
from stnet.utils.errors import UserError


def test_the_two_formats_differ_in_where_the_label_is_and_who_may_try_again():
    facts = {name: (FORMATS.get(name).label_inside, FORMATS.get(name).second_decoder) for name in ("mp4", "pkl")}
    assert facts == {"mp4": (False, "opencv"), "pkl": (True, "")}
    assert FORMATS.get("mp4")().parse_line("a clip.mp4 3", "", True, 4) == Clip("a clip.mp4", 3)
    assert FORMATS.get("pkl")().parse_line("a clip 3", "", True, 4) == Clip("a clip 3", -1)


@pytest.mark.parametrize("name", FORMATS.names())
def test_the_formula_of_an_export_is_what_is_computed(name):
    clip_format = FORMATS.get(name)()
    for average, seglen in ((5, 5), (12, 5), (25, 3), (26, 4)):
        values = {"average": average, "seglen": seglen}
        assert eval(clip_format.centre_formula, values) == clip_format.centre(average, seglen)


def test_an_unknown_format_is_refused_before_the_list_is_read(clip_set):
    config = load_config(clip_set / "tiny.yaml", model_section, ["MODEL.format=avi", "TEST.filelist=none.list"])
    with pytest.raises(UserError, match="^unknown clip format 'avi'; known: frames, mp4, pkl$"):
        build_loader(config, "test")


class Numbered(Format):
    """Frames that hold their number; `path` says how many, or what is wrong."""

    label_inside = True

    def read(self, path, sink, decoder=""):
        if path == "torn":
            raise OSError("it is torn")
        for row, number in enumerate(sink.begin(int(path))):
            sink.put(row, np.full((32, 42, 3), number, np.uint8))
        return 7 if path != "9" else None


def test_a_formats_frames_are_sampled_and_its_errors_are_the_clips(monkeypatch):
    monkeypatch.setitem(FORMATS._entries, "NUMBERED", ("numbered", Numbered))
    section = ReaderSection(seg_num=2, seglen=2, short_size=32, target_size=32)
    clip = read_clip("20", section, "numbered")
    assert (clip.label, clip.num_frames, clip.video) == (7, 20, None)
    assert clip.frames[:, 0, 0, 0].tolist() == [4, 5, 14, 15]
    for path, message in (("torn", "it is torn"), ("0", "it has no frame")):
        with pytest.raises(ClipError, match=message):
            read_clip(path, section, "numbered")
