"""A timeline's video is read in a process of its own: with the same bits, and at no risk for the run."""

import ctypes
import functools
import os
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from conftest import write_video
from entries import predict, run
from test_timeline import noise, tiny  # noqa: F401 (a fixture)
from test_timeline import write_video as write_exact

from stnet.backends.stages import build_stages
from stnet.reader import stream, windows
from stnet.reader.errors import ClipError
from stnet.reader.stream import SegmentCutter, VideoStream
from stnet.reader.windows import Facts, WindowReader, plan_windows
from stnet.timeline import run as timeline_run
from stnet.timeline.windows import Timeline
from stnet.utils.processes import Child, ChildDied


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def logits_of_one_process(parts, path, section, window, stride):
    """Logits [windows, classes] of a video that is decoded and computed frame after frame by this process."""
    video = VideoStream(path)
    plan = plan_windows(window, stride, video.rate, section.seg_num, section.seglen)
    scorer, cutter = parts.windows(), SegmentCutter(section.short_size, section.target_size)
    begun, features = 0, {}
    for frame in video.frames():
        while plan.first(begun) <= frame.number and (video.count is None or plan.end(begun) <= video.count):
            segments = plan.segments(begun)
            scorer.add(begun, segments)
            cutter.want(segments)
            begun += 1
        for segment, pixels in cutter.put(frame):
            scorer.feed(segment, pixels)
    for segment, pixels in cutter.flush():
        scorer.feed(segment, pixels)
    scorer.flush()
    features = dict(scorer.done())
    return np.stack([parts.streaming.logits(features[window]) for window in sorted(features)])


@pytest.mark.parametrize("name", ["tall_h264.mp4", "mpeg4.avi", "wide_h264.mp4"])
@pytest.mark.parametrize(("window", "stride"), [(0.2, 0.16), (0.7, 0.2), (1, 0.5), (1.5, 9)])
def test_a_timeline_has_the_bits_of_reading_and_computing_in_one_process(tiny, videos, name, window, stride):  # noqa: F811
    model, section = tiny("INFER.seg_num=3")
    parts = build_stages("paddle", model, section)
    expected = logits_of_one_process(parts, str(videos / name), section, window, stride)
    timeline = Timeline(parts, str(videos / name), section, window, stride)
    np.testing.assert_array_equal(np.stack([window.logits for window in timeline.windows()]), expected)


@pytest.fixture
def video(tmp_path):
    return str(write_exact(tmp_path / "video.mkv", noise(90), 10))


@pytest.fixture
def begin(tiny, video):  # noqa: F811
    """Function from further arguments to the Timeline of a video of 9 seconds, a second for each answer."""
    model, section = tiny("INFER.seg_num=4", "INFER.decode_timeout=1")
    parts = build_stages("paddle", model, section)
    return lambda window=2, child=Child: Timeline(parts, video, section, window, stride=1, child=child)


def hang(*_):
    ctypes.PyDLL(None).sleep(60)  # holding the GIL


def crash(*_):
    ctypes.string_at(0)


def leave(*_):
    os._exit(3)


MISFORTUNES = pytest.mark.parametrize(
    ("misfortune", "message"),
    [(hang, "took more than 1 s"), (crash, "crashed .SIGSEGV"), (leave, "ended itself .exit code 3")],
)


@MISFORTUNES
def test_a_decoder_that_hangs_or_crashes_on_the_way_ends_the_timeline_and_the_process(
    begin, monkeypatch, misfortune, message
):  # noqa: E501
    frames = stream.timed_frames

    def fifty_frames(*args):
        for number, frame in enumerate(frames(*args)):
            if number == 50:
                misfortune()
            yield frame

    monkeypatch.setattr(stream, "timed_frames", fifty_frames)
    timeline = begin()
    child = timeline.child.pid
    with pytest.raises(ClipError, match=message):
        list(timeline.windows())
    assert not alive(child)
    timeline.close()  # to no effect


@MISFORTUNES
def test_the_same_while_the_packets_are_read(begin, monkeypatch, misfortune, message):
    monkeypatch.setattr(stream, "read_index", misfortune)
    with pytest.raises(ClipError, match=message):
        begin()


@MISFORTUNES
def test_the_same_where_the_video_is_taken_as_one_clip(begin, monkeypatch, misfortune, message):
    monkeypatch.setattr(windows, "read_clip", misfortune)
    with pytest.raises(ClipError, match=message):
        list(begin(window=20).windows())


def test_a_large_file_has_longer_until_its_packets_are_read(begin, video, monkeypatch):
    limits = []

    def noted(child, timeout):
        limits.append(timeout)
        raise ChildDied("enough")

    os.truncate(video, 5 << 30)  # without taking the room
    monkeypatch.setattr(Child, "receive", noted)
    with pytest.raises(ClipError, match="enough"):
        begin()
    assert limits == [6]


def test_what_a_video_holds_is_known_before_a_frame_is_asked_for(begin, monkeypatch):
    monkeypatch.setattr(stream, "timed_frames", crash)
    with closing(begin()) as timeline:
        facts, child = timeline.facts, timeline.child.pid
        assert facts == Facts(40, 30, 90, False, pytest.approx(9, abs=0.01), timeline.plan)
        assert facts.seconds == pytest.approx(9, abs=0.01)
        assert alive(child)
    assert not alive(child)


def test_closing_the_windows_ends_the_process(begin):
    timeline = begin()
    child = timeline.child.pid
    windows = timeline.windows()
    next(windows)
    assert alive(child)
    windows.close()
    assert not alive(child)


def test_another_kind_of_process_gives_the_same_windows(begin):
    one, other = list(begin().windows()), list(begin(child=functools.partial(Child, fresh=True)).windows())
    np.testing.assert_array_equal([window.logits for window in one], [window.logits for window in other])
    assert [window[:4] for window in one] == [window[:4] for window in other]
    assert len(one) == 8


def test_what_the_process_calls_is_there_without_paddle():
    code = "import stnet.reader.windows, sys; print({'paddle', 'backends', 'engine', 'models'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "set()\n"


def test_an_answer_holds_no_more_segments_than_a_chunk_has_frames(tiny, videos):  # noqa: F811
    _, section = tiny("INFER.seg_num=25")
    reader = WindowReader(str(videos / "wide_h264.mp4"), section, 1, 0.04)
    assert isinstance(reader(""), Facts)
    answers = list(iter(lambda: reader(""), None))
    assert answers[-1].last
    assert max(len(answer.segments) for answer in answers) == 5  # of 5 frames
    assert max(answer.frames for answer in answers) <= windows.CHUNK


def test_predict_goes_on_with_the_others_where_one_video_crashes_the_decoder(
    clip_set, trained, tmp_path, monkeypatch, capsys
):
    names = [write_video(tmp_path / name, frames=30) for name in ("a.mp4", "bad.mp4", "c.mp4")]
    read = stream.read_index

    def crash_at_bad(container, *others):
        if "bad" in container.name:
            crash()
        return read(container, *others)

    monkeypatch.setattr(stream, "read_index", crash_at_bad)
    monkeypatch.setattr(
        timeline_run, "Timeline", functools.partial(Timeline, child=Child)
    )  # which finds what is patched
    weights = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "--engine=paddle"]
    assert run(predict, *weights, "--timeline", "--window=1", "--save_dir", tmp_path / "out", *names) == 3
    said = capsys.readouterr().out
    assert f"{names[1]}\n    the decoder crashed (SIGSEGV)\n" in said
    assert (tmp_path / "out" / "c.events.csv").exists()
    assert not (tmp_path / "out" / "bad.events.csv").exists()
