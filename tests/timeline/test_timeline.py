"""stnet.timeline.windows: a long video against predict on each window cut out of it."""

import re
import subprocess
from fractions import Fraction

import av
import numpy as np
import paddle
import pytest

from stnet.backends.engines import make_engine
from stnet.backends.stages import build_stages
from stnet.config import load_config
from stnet.models import get_model, model_section
from stnet.reader.clip import read_clip
from stnet.reader.decode import read_video
from stnet.reader.errors import ClipError
from stnet.reader.transforms import to_super_images
from stnet.reader.windows import plan_windows
from stnet.timeline.events import events_of
from stnet.timeline.windows import Timeline
from stnet.utils.errors import UserError


def write_video(path, frames, rate=25, timestamps=None, codec="ffv1", pixels="bgr0"):
    """frames, uint8 [N, H, W, 3] RGB, as FFV1 if nothing else is said, which decodes to the very same."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(1000 * number / rate) if timestamps is None else timestamps[number]
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noise(frames, size=(40, 30), seed=0):
    """Patches that change from frame to frame, uint8 [frames, H, W, 3]."""
    coarse = np.random.RandomState(seed).randint(0, 256, (frames, 3, 4, 3)).astype(np.uint8)
    return np.kron(coarse, np.ones((1, size[1] // 3, size[0] // 4, 1), np.uint8))


@pytest.fixture
def tiny(clip_set):
    """Function from overrides to (model, section) of a tiny StNet with random weights and statistics."""

    def build(*overrides):
        config = load_config(clip_set / "tiny.yaml", model_section, ["INFER.seglen=5", "MODEL.seglen=5", *overrides])
        model = get_model("STNET", config, "infer")
        paddle.seed(5)
        for name, value in sorted(model.network.state_dict().items()):
            if name.endswith(("_mean", "_variance")):
                value.set_value(paddle.uniform(value.shape, min=0.5, max=1.5))
        return model, config.section("infer")

    return build


def logits_of_file(engine, path, section):
    """What predict computes."""
    clip = read_clip(str(path), section)
    return engine(to_super_images(clip.frames, section.seg_num)[None])[0]


def assert_windows_are_predicts(timeline, engine, path, section, folder):
    """Compares every window with a file that is this window and nothing else. Returns the windows."""
    windows = list(timeline.windows())
    frames, _ = read_video(str(path), lambda count: list(range(count)))
    for window in windows:
        cut = write_video(folder / "cut.mkv", frames[window.first_frame : window.first_frame + window.frames])
        np.testing.assert_allclose(window.logits, logits_of_file(engine, cut, section), rtol=0, atol=1e-4)
    return windows


@pytest.mark.parametrize("seg_num", [7, 25])
@pytest.mark.parametrize("rate", [5, 10, 15, 30])
def test_every_window_is_what_predict_makes_of_it_cut_out(tiny, tmp_path, seg_num, rate):
    model, section = tiny(f"INFER.seg_num={seg_num}")
    path = write_video(tmp_path / "long.mkv", noise(14 * rate), rate)
    timeline = Timeline(build_stages("paddle", model, section), str(path), section, window=10, stride=1.5)
    windows = assert_windows_are_predicts(timeline, make_engine("paddle", model, section), path, section, tmp_path)
    plan = timeline.plan
    assert plan.segment == round(10 * rate / seg_num)
    assert len(windows) == (14 * rate - plan.frames) // (plan.stride * plan.segment) + 1 >= 2
    assert [w.first_frame for w in windows] == [i * plan.stride * plan.segment for i in range(len(windows))]
    assert [w.start for w in windows] == pytest.approx([w.first_frame / rate for w in windows], abs=1e-3)
    assert [w.end - w.start for w in windows] == pytest.approx([plan.frames / rate] * len(windows), abs=2e-3)


@pytest.mark.parametrize("name", ["inference", "onnxruntime"])
def test_every_engine_gives_the_windows_that_it_gives_one_by_one(tiny, tmp_path, name):
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("paddle2onnx")
    model, section = tiny("INFER.seg_num=7")
    path = write_video(tmp_path / "long.mkv", noise(90), 10)
    timeline = Timeline(build_stages(name, model, section), str(path), section, window=5, stride=1)
    assert len(assert_windows_are_predicts(timeline, make_engine(name, model, section), path, section, tmp_path)) == 6


@pytest.mark.parametrize(("name", "size"), [("tall_h264.mp4", 24), ("mpeg4.avi", 200), ("wide_h264.mp4", 32)])
def test_frames_of_encoded_videos_are_those_of_predict(tiny, tmp_path, videos, name, size):
    # A window of three short segments; frames that shrink, and some that grow.
    model, section = tiny("INFER.seg_num=3", f"INFER.short_size={size}", "INFER.target_size=24")
    engine, parts = make_engine("paddle", model, section), build_stages("paddle", model, section)
    timeline = Timeline(parts, str(videos / name), section, window=0.7, stride=0.2)
    assert len(assert_windows_are_predicts(timeline, engine, videos / name, section, tmp_path)) >= 2


def timeline_of(tiny, path, window, stride, seg_num=4):
    """(Timeline, its windows) of a video, by the tiny network."""
    model, section = tiny(f"INFER.seg_num={seg_num}")
    timeline = Timeline(build_stages("paddle", model, section), str(path), section, window, stride)
    return timeline, list(timeline.windows())


@pytest.mark.parametrize("steps", [[20, 60, 100] * 40, [100] * 50 + [20] * 250])
def test_windows_of_a_variable_rate_are_seconds(tiny, tmp_path, steps):
    timestamps = np.cumsum([0] + steps).tolist()
    path = write_video(tmp_path / "variable.mkv", noise(len(timestamps)), 25, timestamps)
    timeline, windows = timeline_of(tiny, path, window=2, stride=1)
    step, length = 1 / timeline.plan.rate, timeline.plan.frames / timeline.plan.rate
    assert (timestamps[-1] / 1000 - length) // 1 - 1 <= len(windows) > 3
    assert length == pytest.approx(2, abs=0.13)
    for number, window in enumerate(windows):
        start = number * timeline.plan.stride * timeline.plan.segment * step
        assert window.start == pytest.approx(start, abs=step)
        assert window.end - window.start == pytest.approx(length, abs=2 * step)
        shown = [
            frame for frame, timestamp in enumerate(timestamps) if window.start <= timestamp / 1000 + 1e-6 < window.end
        ]
        assert window.first_frame - shown[0] in (-1, 0)  # the one shown at the start may have come before
        assert abs(window.first_frame + window.frames - 1 - shown[-1]) <= 1
    assert timeline.notes[0].endswith("its frames at uneven distances taken by their time")


def test_a_window_of_a_variable_rate_is_what_predict_makes_of_its_frames_at_a_constant_one(tiny, tmp_path):
    model, section = tiny("INFER.seg_num=4")
    frames, timestamps = noise(80), np.cumsum([0] + [50] * 40 + [100] * 39).tolist()
    path = write_video(tmp_path / "variable.mkv", frames, 25, timestamps)
    timeline, windows = timeline_of(tiny, path, window=2, stride=1)
    engine, rate = make_engine("paddle", model, section), timeline.plan.rate
    places = np.round(np.array(timestamps) / 1000 * rate)  # at the constant rate: some twice, some left out
    shown = [np.searchsorted(places, place if place in places else place - 1) for place in range(int(places[-1]) + 1)]
    assert len(set(shown)) < min(len(shown), 80)
    differences = []
    for number, window in enumerate(windows):
        first = number * timeline.plan.stride * timeline.plan.segment
        cut = write_video(tmp_path / "cut.mkv", frames[shown[first : first + timeline.plan.frames]])
        differences.append(np.abs(window.logits - logits_of_file(engine, cut, section)).max())
    assert len(windows) == 4 and max(differences) < 1e-4, differences


@pytest.mark.parametrize("gap", [10_000, 3_600_000])
def test_no_window_crosses_a_gap(tiny, tmp_path, gap):
    timestamps = [round(1000 * i / 12) for i in range(24)]
    timestamps += [timestamps[-1] + gap + timestamp for timestamp in timestamps]
    path = write_video(tmp_path / "gap.mkv", noise(48), 12, timestamps)
    timeline, windows = timeline_of(tiny, path, window=1, stride=0.5)
    after = timestamps[24] / 1000
    starts = [0, 0.5, 1, after, after + 0.5, after + 1]
    assert [w.start for w in windows] == pytest.approx(starts, abs=2e-3)
    assert [w.end - w.start for w in windows] == pytest.approx([1] * 6, abs=2e-3)
    assert [w.first_frame for w in windows] == [0, 6, 12, 24, 30, 36]
    assert timeline.notes[1:] == [f"it has a gap from 2.00 s to {after:.2f} s: no window crosses it"]
    events = events_of([(w.start, w.end) for w in windows], np.full((6, 1), 0.9))
    assert [time for event in events for time in event[:2]] == pytest.approx([0, 2, after, after + 2], abs=2e-3)


def test_pieces_between_gaps_that_are_shorter_than_a_window_are_one_window_each(tiny, tmp_path):
    model, section = tiny("INFER.seg_num=4")
    frames, seconds = noise(66), [*np.arange(24) / 12, *10 + np.arange(40) / 12, 20, 30]
    path = write_video(tmp_path / "pieces.mkv", frames, 12, [round(1000 * second) for second in seconds])
    timeline, windows = timeline_of(tiny, path, window=3, stride=1)
    assert [(w.first_frame, w.frames) for w in windows] == [(0, 24), (24, 36), (64, 1), (65, 1)]
    assert [w.start for w in windows] == pytest.approx([0, 10, 20, 30], abs=1e-3)
    assert [w.end for w in windows] == pytest.approx([2, 13, 20 + 1 / 12, 30 + 1 / 12], abs=2e-3)
    assert timeline.notes[1:] == [
        "it has 3 gaps, the longest from 20.08 s to 30.00 s: no window crosses it",
        "3 of its pieces between gaps are one short window each, of 0.08 s to 2.00 s",
        "0.33 s before gaps and at its end are too short for a window: in none",
    ]
    engine = make_engine("paddle", model, section)
    for window in windows:
        cut = write_video(tmp_path / "cut.mkv", frames[window.first_frame :][: window.frames])
        np.testing.assert_allclose(window.logits, logits_of_file(engine, cut, section), rtol=0, atol=1e-4)


def test_a_window_far_from_what_was_asked_for_is_said(tiny, tmp_path):
    path = write_video(tmp_path / "slow.mkv", noise(10), 1)
    timeline, windows = timeline_of(tiny, path, window=1, stride=1)
    assert [w.end - w.start for w in windows] == pytest.approx([4] * 7)
    assert timeline.notes[1] == (
        "its windows are of 4.00 s, not of 1 s: a window has 4 segments of whole frames, and there are 1.00 a second"
    )


def test_times_below_0_begin_at_0(tiny, tmp_path):
    path = write_video(tmp_path / "early.mkv", noise(75), 25)
    language, delay = bytes.fromhex("22B59C83756E64"), bytes.fromhex("56AA840BEBC200")  # "und"; 200 ms
    path.write_bytes(path.read_bytes().replace(language, delay, 1))
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).time == pytest.approx(-0.2)
    _, windows = timeline_of(tiny, path, window=1, stride=0.5)
    assert [w.start for w in windows] == pytest.approx([12 * number / 25 for number in range(len(windows))])
    assert windows[0].start == 0


def joined_ts(folder, *parts):
    """A file of MPEG-TS put together of parts, each (frames a second, seconds, offset of its times)."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    path, part = folder / "joined.ts", folder / "part.ts"
    for rate, seconds, offset in parts:
        source = f"testsrc2=size=64x48:rate={rate}:duration={seconds}"
        words = f"-v error -y -f lavfi -i {source} -c:v libx264 -output_ts_offset {offset}"
        subprocess.run([ffmpeg, *words.split(), str(part)], check=True)
        with open(path, "ab") as file:
            file.write(part.read_bytes())
    return str(path)


def test_times_that_begin_anew_go_on_at_a_constant_rate(tiny, tmp_path):
    timeline, windows = timeline_of(tiny, joined_ts(tmp_path, (25, 2, 0), (25, 2, 0)), window=1, stride=0.5)
    assert timeline.plan.rate == 25 and "uneven" not in timeline.notes[0]
    assert [w.start for w in windows] == pytest.approx([12 * number / 25 for number in range(7)])
    assert [w.end - w.start for w in windows] == pytest.approx([24 / 25] * 7)
    assert timeline.notes[1] == "its times begin anew at 2.00 s: they go on from there"


@pytest.mark.parametrize("offset", [0, 30, 600, 7200])  # back by more than a minute, FFmpeg takes it for an overflow
def test_windows_of_parts_of_another_rate_are_seconds(tiny, tmp_path, offset):
    path = joined_ts(tmp_path, (25, 4, offset), (10, 4, 0))
    timeline, windows = timeline_of(tiny, path, window=2, stride=0.5)
    plan, shown_at = timeline.plan, [*np.arange(100) / 25, *4 + np.arange(40) / 10]
    assert timeline.facts.frames == 140 and timeline.facts.seconds == pytest.approx(8, abs=0.1)
    starts = np.arange(12) * plan.stride * plan.segment / plan.rate
    assert [w.start for w in windows] == pytest.approx(starts.tolist(), abs=1 / plan.rate)
    for window in windows:
        assert window.end - window.start == pytest.approx(2, abs=0.15)
        shown = [frame for frame, time in enumerate(shown_at) if window.start <= time + 1e-6 < window.end]
        assert abs(window.first_frame - shown[0]) <= 1
        assert abs(window.first_frame + window.frames - 1 - shown[-1]) <= 1
    assert timeline.notes[1] == "its times begin anew at 4.00 s: they go on from there"


def test_a_video_shorter_than_a_window_is_what_predict_makes_of_it(tiny, videos):
    model, section = tiny("INFER.seg_num=4")
    path = videos / "twenty_frames.mp4"
    timeline = Timeline(build_stages("paddle", model, section), str(path), section, window=10, stride=2)
    (window,) = timeline.windows()
    assert (window.first_frame, window.frames, window.start) == (0, 20, 0)
    expected = logits_of_file(make_engine("paddle", model, section), path, section)
    np.testing.assert_allclose(window.logits, expected, rtol=0, atol=1e-4)
    assert timeline.notes[1:] == ["it is shorter than a window: taken as one clip"]


def test_of_a_video_that_breaks_off_what_was_read_counts_and_it_is_said(tiny, tmp_path):
    model, section = tiny("INFER.seg_num=4")
    parts = build_stages("paddle", model, section)
    path = write_video(tmp_path / "whole.mkv", noise(100), 10)
    whole = list(Timeline(parts, str(path), section, window=2, stride=1).windows())
    broken = tmp_path / "broken.mkv"
    content = path.read_bytes()
    broken.write_bytes(content[: len(content) * 6 // 10])
    timeline = Timeline(parts, str(broken), section, window=2, stride=1)
    windows = list(timeline.windows())
    assert 3 < len(windows) < len(whole)
    for one, other in zip(windows, whole):
        np.testing.assert_array_equal(one.logits, other.logits)
    assert any(re.search(r"its video ends at [56]\.\d+ s, .* promises 10\.00 s", note) for note in timeline.notes)


def test_damage_in_the_middle_ends_the_timeline_and_it_is_said(tiny, tmp_path):
    model, section = tiny("INFER.seg_num=4")
    path = write_video(tmp_path / "damaged.mp4", noise(100, (64, 48)), 10, codec="libx264", pixels="yuv420p")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = b"\xff" * 500
    path.write_bytes(content)
    timeline = Timeline(build_stages("paddle", model, section), str(path), section, window=2, stride=1)
    assert 1 < len(list(timeline.windows())) < 9
    assert any("cannot be read beyond" in note for note in timeline.notes), timeline.notes


def test_what_no_window_holds_is_said(tiny, tmp_path):
    model, section = tiny("INFER.seg_num=4")
    path = write_video(tmp_path / "long.mkv", noise(57), 10)
    timeline = Timeline(build_stages("paddle", model, section), str(path), section, window=2, stride=1)
    assert len(list(timeline.windows())) == 4
    assert timeline.notes == [
        "windows of 2.00 s (4 segments of 5 frames), one every 1.00 s (2 segments), at 10.00 frames a second",
        "its last 0.70 s are in no window: too short for another one",
    ]


def test_seconds_are_rounded_to_frames_and_segments():
    plan = plan_windows(10, 2, 25, 25, 5)
    assert (plan.segment, plan.frames, plan.stride) == (10, 250, 5)
    plan = plan_windows(10, 0.01, 29.97, 7, 5)
    assert (plan.segment, plan.frames, plan.stride) == (43, 301, 1)
    assert plan_windows(0.1, 9, 5, 25, 5)[3:] == (1, 45)
    for window, stride in ((0, 1), (1, -2), (float("nan"), 1), (1, float("inf"))):
        with pytest.raises(UserError, match="expected more than 0 seconds"):
            plan_windows(window, stride, 25, 25, 5)
    with pytest.raises(UserError, match="at most 1e\\+09 seconds, found 1e\\+308 and 1"):
        plan_windows(1e308, 1, 25, 25, 5)


def test_a_file_that_is_no_video_is_a_clip_error(tiny, tmp_path):
    model, section = tiny()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ClipError, match="no frame can be decoded"):
        Timeline(build_stages("paddle", model, section), str(tmp_path / "text.mp4"), section)
