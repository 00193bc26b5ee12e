"""Lists of spans: a part of a video is read as the file would be that holds its frames alone."""

import os
import subprocess
from fractions import Fraction

import av
import numpy as np
import pytest
from test_index import write

from stnet.config import TestSection, TrainSection
from stnet.reader import decoders
from stnet.reader.bad_clips import BadClips
from stnet.reader.clip import read_clip
from stnet.reader.contact_sheet import seconds_of
from stnet.reader.dataset import VideoListDataset
from stnet.reader.decode import Frames, read_frames, read_video
from stnet.reader.errors import ClipError
from stnet.reader.formats import FORMATS, Clip
from stnet.reader.lists import read_list
from stnet.reader.sources import sources
from stnet.reader.spans import Span, times_shown
from stnet.utils.errors import UserError
from stnet.utils.files import stem_of

SIZES = {"seg_num": 3, "seglen": 2, "short_size": 36, "target_size": 32}


def copied(whole, path, *words):
    """A part of a file, cut by FFmpeg without encoding it again."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    subprocess.run([ffmpeg, "-loglevel", "error", *words, "-i", whole, "-c", "copy", path], check=True)
    return str(path)


JITTER = [i + i // 7 * 3 + (i > 30) * 20 for i in range(60)]  # frames drop out, and once nearly a second
VIDEOS = {
    "constant rate": lambda folder: write(folder / "x.mp4", 60, x264="keyint=20:bframes=0"),
    "B-frames": lambda folder: write(folder / "x.mp4", 60, x264="keyint=20:bframes=2"),
    "variable rate": lambda folder: write(folder / "x.mp4", 60, timestamps=JITTER, x264="keyint=20:bframes=2"),
    "milliseconds": lambda folder: write(folder / "x.mkv", 60, timestamps=JITTER, x264="keyint=20:bframes=2"),
    "begins late": lambda folder: write(folder / "x.mkv", 60, timestamps=[250 + i for i in range(60)]),
    "edit list": lambda folder: copied(write(folder / "whole.mp4", 90), folder / "x.mp4", "-ss", "0.9"),
    "open groups": lambda folder: write(folder / "x.mp4", 60, x264="keyint=20:bframes=3:open-gop=1"),
    "in order": lambda folder: write(folder / "x.ts", 60, x264="keyint=20:bframes=2"),
    "in order, no index": lambda folder: write(folder / "x.mp4", 60, codec="mpeg4"),
}


def shown(path):
    """Every frame of a video, and its seconds from the first one, by PyAV alone."""
    with av.open(path) as file:
        frames = [frame for frame in file.decode(video=0) if frame.pts is not None]
        seconds = [Fraction(frame.pts - frames[0].pts) * frame.time_base for frame in frames]
    return read_video(path, range)[0], seconds


@pytest.mark.parametrize("kind", VIDEOS)
def test_a_list_of_spans_gives_the_clips_of_a_list_of_cut_files(tmp_path, kind):
    path = VIDEOS[kind](tmp_path)
    frames, seconds = shown(path)
    spans, cuts = [], []
    for number, (start, end) in enumerate([(0, 0.4), (0.4, 1.2), (0.2, 0.28), (1, 1.7), (0.999, 60)]):
        within = [start <= float(time) < end for time in seconds]
        np.save(tmp_path / f"{number}.npy", frames[within])
        spans.append(Clip(path, 0, span=Span(start, end)))
        cuts.append(Clip(str(tmp_path / f"{number}.npy"), 0, "frames"))
    views = TestSection(**{**SIZES, "num_clips": 2})
    for section, augment in ((TrainSection(**SIZES), True), (TestSection(**SIZES), False), (views, False)):
        ours, theirs = (VideoListDataset(clips, section, augment=augment, seed=7) for clips in (spans, cuts))
        for index in range(len(spans)):
            assert np.array_equal(ours.read(index, 1)[0], theirs.read(index, 1)[0]), (section, spans[index])


def numbers(path, start, end, decoder=""):
    """(first number, frames, reason why it was read in order) of a span, compared with the whole file."""
    sink = Frames(range)
    video = read_frames(str(path), sink, decoder, Span(start, end))
    whole, _ = read_video(str(path), range)
    assert np.array_equal(np.stack(sink.rows), whole[video.first : video.first + len(sink.rows)])
    return video.first, len(sink.rows), video.in_order


def test_the_start_is_in_a_span_and_the_end_is_not_and_decimals_are_exact(tmp_path):
    path = write(tmp_path / "x.mp4", 60, x264="bframes=0")
    assert numbers(path, 0, 0.04) == (0, 1, "")
    assert numbers(path, 0.28, 0.56) == (7, 7, "")
    assert numbers(path, 0.2800001, 0.5600001) == (8, 7, "")
    assert numbers(path, 0.02, 1.02)[:2] == (1, 25)  # a second of 25 frames a second, wherever it begins
    assert numbers(path, 2, 99)[:2] == (50, 10)  # cut at the end of the video
    thirds = write(tmp_path / "y.mkv", 30, timestamps=[5 * i for i in range(30)])
    assert numbers(thirds, 1.2, 1.8)[:2] == (6, 3)


def test_frames_of_the_order_of_decoding_are_told_by_rank(tmp_path):
    path = write(tmp_path / "x.avi", 60, x264="keyint=20:bframes=2")
    assert numbers(path, 0.4, 0.8)[:2] == (10, 10)


@pytest.mark.parametrize("decoder", ["pyav", "opencv"])
def test_other_decoders_give_the_same_span(tmp_path, decoder):
    path = write(tmp_path / "x.mp4", 60, timestamps=JITTER, x264="keyint=20:bframes=2")
    first, count, _ = numbers(path, 0.4, 1.2)
    assert numbers(path, 0.4, 1.2, decoder)[:2] == (first, count) == (7, 14)


def test_a_span_late_in_a_long_file_is_read_by_a_seek(tmp_path, monkeypatch):
    path = write(tmp_path / "x.mp4", frames=1100, x264="keyint=50:bframes=2")
    starts = []
    packets = decoders._packets
    monkeypatch.setattr(decoders, "_packets", lambda *given: starts.append(given[3]) or packets(*given))
    assert numbers(path, 40, 40.4, "pyav") == (1000, 10, "")
    assert starts == [1000]


def test_the_intact_part_of_a_cut_off_file_is_found_by_the_times_of_its_frames(tmp_path):
    path = write(tmp_path / "x.flv", 60, x264="keyint=20:bframes=2")
    whole = read_video(path, range)[0]
    size = os.path.getsize(path)
    os.truncate(path, size * 2 // 3)
    sink = Frames(range)
    video = read_frames(path, sink, "", Span(0.4, 0.8))
    assert (video.damaged, video.decoder, video.first) == (True, "opencv", 10)
    assert video.frames < len(video.index.times) < 60
    assert np.array_equal(np.stack(sink.rows), whole[10:20])


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        (2.4, 9, "^the span begins behind the last frame, which is shown at 2.360 s$"),
        (0.01, 0.03, "^no frame is shown within the span$"),
    ],
)
@pytest.mark.parametrize("name", ["x.mp4", "x.ts"])
def test_a_span_without_a_frame_is_the_clips_error(tmp_path, name, start, end, message):
    path = write(tmp_path / name, 60, x264="bframes=0")
    with pytest.raises(ClipError, match=message):
        read_clip(path, TestSection(**SIZES), span=Span(start, end))
    dataset = VideoListDataset([Clip(path, 0, span=Span(start, end))], TestSection(**SIZES))
    assert dataset[0, 0].error and not dataset[0, 0].fatal


def test_a_video_without_times_has_no_spans(tmp_path):
    path = write(tmp_path / "x.h264", 20, x264="bframes=0")
    with pytest.raises(ClipError, match="^its frames have no usable timestamps, by which a span could be found$"):
        read_clip(path, TestSection(**SIZES), span=Span(0, 0.4))
    for decoded in ([0, None], [20, 10], [0, 15]):
        with pytest.raises(ClipError, match="no usable timestamps"):
            times_shown(decoded, [0, 10, 20])
    assert times_shown([10, 20], [0, 10, 20]) == [10, 20]
    assert times_shown([20, None, 0], [0, 10, 20]) == [0, 10, 20]


def test_a_sheet_shows_the_times_of_the_file(tmp_path):
    path = write(tmp_path / "x.mp4", 60, x264="bframes=0")
    clip = read_clip(path, TestSection(**SIZES), span=Span(1, 1.4))
    assert (clip.num_frames, clip.segments[0]) == (10, [1, 2])
    assert seconds_of(clip) == pytest.approx([1 + i / 25 for i in range(10)])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("a.mp4", "my clip 1 2.mp4", "my clip 1 2", "my clip 1", "my clip", "clip 5 7 9", "clip", "a.npy"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(folder, *lines, **options):
    (folder / "x.list").write_text("\n".join(lines), encoding="utf-8")
    return [(clip.path, clip.label, clip.span) for clip in read_list(str(folder / "x.list"), **options)]


@pytest.mark.parametrize(
    ("line", "clip"),
    [
        ("a.mp4 3 5.5 2", ("a.mp4", 2, (3, 5.5))),
        ("a.mp4\t 3 \t.5e1\t2", ("a.mp4", 2, (3, 5))),
        ("a.mp4 0 +1. 2", ("a.mp4", 2, (0, 1))),
        ("my clip 1 2.mp4 3 4 0", ("my clip 1 2.mp4", 0, (3, 4))),
        ("my clip 1 2 0", ("my clip 1 2", 0, None)),  # a file of the longer name
        ("my clip 1 3 0", ("my clip", 0, (1, 3))),
        ("my clip 1 3 4 0", ("my clip 1", 0, (3, 4))),
        ("clip 5 7 9 0", ("clip 5 7 9", 0, None)),
        ("none.mp4 3 5 1", ("none.mp4", 1, (3, 5))),
        ("no file 7 5 1", ("no file 7 5", 1, None)),  # as before
        ("a.mp4 3 1", ("a.mp4 3", 1, None)),  # one number is none
    ],
)
def test_two_numbers_of_seconds_before_the_label_are_a_span(folder, line, clip):
    assert listed(folder, "a.mp4 0", line)[1] == clip


@pytest.mark.parametrize(
    ("line", "clip"),
    [
        ("a.mp4 3 5.5", ("a.mp4", -1, (3, 5.5))),
        ("a.mp4 3 5", ("a.mp4", -1, (3, 5))),
        ("a.mp4 3 5 1", ("a.mp4", 1, (3, 5))),
        ("a.mp4 3 5.5 7", ("a.mp4", 7, (3, 5.5))),
        ("my clip 1 2", ("my clip 1 2", -1, None)),
        ("my clip 1 2 3", ("my clip 1 2", 3, None)),
        ("my clip 1 3 4", ("my clip 1", -1, (3, 4))),  # rather than from 1 to 3 with the label 4
        ("my clip 1 3", ("my clip 1", 3, None)),
        ("my clip 0 3", ("my clip", -1, (0, 3))),
        ("clip 5 7", ("clip", -1, (5, 7))),
        ("none.mp4 3 5 1", ("none.mp4", 1, (3, 5))),
        ("no file 7", ("no file", 7, None)),
    ],
)
def test_lists_for_predict_have_spans_with_and_without_labels(folder, line, clip):
    assert listed(folder, "a.mp4", line, labelled=False)[1] == clip


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.mp4 5 3 0", "span 5-3 s: expected 0 <= START < END, in seconds"),
        ("a.mp4 3 3 0", "span 3-3 s: expected 0 <= START < END, in seconds"),
        ("a.mp4 -1 3 0", "span -1-3 s: expected 0 <= START < END, in seconds"),
        ("a.mp4 nan 3 0", "span nan-3 s: expected START and END in seconds"),
        ("a.mp4 0 inf 0", "span 0-inf s: expected START and END in seconds"),
        ("a.mp4 0 1e999 0", "span 0-inf s: expected START and END in seconds"),
        ("a.mp4 3 5 x", "label 'x' is not a whole number"),
        ("a.mp4 3 5 4", r"label 4 is outside 0..3 \(MODEL.num_classes 4\)"),
    ],
)
def test_a_span_that_is_none_is_refused_with_its_line(folder, line, message):
    with pytest.raises(UserError, match=f"x.list, line 2: {message}$"):
        listed(folder, "a.mp4 1", line, num_classes=4)


@pytest.mark.parametrize(("format", "line"), [("frames", "a.npy 3 5 0"), ("pkl", "a.npy 3 5")])
def test_formats_without_times_refuse_spans(folder, format, line):
    with pytest.raises(UserError, match="line 1: span 3-5 s: files of this format have no times$"):
        listed(folder, line, format=format)
    with pytest.raises(UserError, match="have no times"):
        read_clip("a.npy", TestSection(**SIZES), format, span=Span(3, 5))
    assert listed(folder, "a.npy", "b.npy 3 5", format="pkl")[1] == ("b.npy 3 5", -1, None)  # as before: no such file


def test_lists_without_spans_ask_for_no_file_but_the_first_ones(folder, monkeypatch):
    lines = [f"videos/my clip {i}.mp4 {i % 4}" for i in range(300)]
    exists, asked = os.path.exists, []
    monkeypatch.setattr(os.path, "exists", lambda path: asked.append(path) or exists(path))
    clip_format = FORMATS.get("mp4")()
    assert [clip_format.parse_line(line, "", True, 4).span for line in lines] == [None] * 300
    assert asked == []


def test_a_clip_is_named_with_its_span_and_its_file_without(folder):
    clips = [Clip("a.mp4", 0, span=Span(start, 5.5)) for start in (3.0, 0.1)] + [Clip("a.mp4", 0)]
    assert [clip.name for clip in clips] == ["a.mp4 [3-5.5 s]", "a.mp4 [0.1-5.5 s]", "a.mp4"]
    assert [stem_of(clip.name) for clip in clips] == ["a [3-5.5 s]", "a [0.1-5.5 s]", "a"]
    assert stem_of("a.mp4 [5 s]") == "a"  # no span
    (folder / "quarantine").write_text("a.mp4 [3-5.5 s]\thang\n")
    bad = BadClips(clips, 1.0, str(folder / "quarantine"))
    assert bad.quarantined() == {0: "in quarantine: hang"}
    bad.add(1, "no frame is shown within the span", quarantine=True)
    assert bad.summary() == [{"path": "a.mp4 [0.1-5.5 s]", "reason": "no frame is shown within the span"}]
    assert bad.quarantined().keys() == {0, 1}
    listed(folder, "a.mp4 3 5.5", labelled=False)
    (source,) = sources("x.list", "mp4", "")
    assert (source.path, source.clip.path, source.clip.span) == ("a.mp4 [3-5.5 s]", "a.mp4", (3, 5.5))
