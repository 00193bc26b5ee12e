"""engine.timeline: a long video against predict on each window cut out of it."""

import re
from fractions import Fraction

import av
import numpy as np
import paddle
import pytest

from backends.engines import make_engine
from backends.parts import make_parts
from core.config import load_config
from core.errors import UserError
from engine.timeline import Timeline
from models import get_model, model_section
from reader.clip import read_clip
from reader.decode import read_video
from reader.errors import ClipError
from reader.transforms import to_super_images
from reader.windows import plan_windows


def write_video(path, frames, rate=25, stamps=None, codec="ffv1", pixels="bgr0"):
    """frames, uint8 [N, H, W, 3] RGB, as FFV1 if nothing else is said, which decodes to the very same."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(1000 * number / rate) if stamps is None else stamps[number]
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
    timeline = Timeline(make_parts("paddle", model, section), str(path), section, window=10, stride=1.5)
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
    timeline = Timeline(make_parts(name, model, section), str(path), section, window=5, stride=1)
    assert len(assert_windows_are_predicts(timeline, make_engine(name, model, section), path, section, tmp_path)) == 6


@pytest.mark.parametrize(("name", "size"), [("tall_h264.mp4", 24), ("mpeg4.avi", 200), ("wide_h264.mp4", 32)])
def test_frames_of_encoded_videos_are_those_of_predict(tiny, tmp_path, videos, name, size):
    # A window of three short segments; frames that shrink, and some that grow.
    model, section = tiny("INFER.seg_num=3", f"INFER.short_size={size}", "INFER.target_size=24")
    engine, parts = make_engine("paddle", model, section), make_parts("paddle", model, section)
    timeline = Timeline(parts, str(videos / name), section, window=0.7, stride=0.2)
    assert len(assert_windows_are_predicts(timeline, engine, videos / name, section, tmp_path)) >= 2


def test_stamps_of_a_variable_rate_are_the_windows_times(tiny, tmp_path):
    model, section = tiny("INFER.seg_num=4")
    stamps = np.cumsum([0] + [20, 60, 100] * 40).tolist()[:100]
    path = write_video(tmp_path / "variable.mkv", noise(100), 25, stamps)
    windows = list(Timeline(make_parts("paddle", model, section), str(path), section, window=2, stride=1).windows())
    assert len(windows) > 3
    for window in windows:
        assert window.start == pytest.approx(stamps[window.first_frame] / 1000)
        if window.first_frame + window.frames < 100:
            assert window.end == pytest.approx(stamps[window.first_frame + window.frames] / 1000)


def test_a_video_shorter_than_a_window_is_what_predict_makes_of_it(tiny, videos):
    model, section = tiny("INFER.seg_num=4")
    path = videos / "twenty_frames.mp4"
    timeline = Timeline(make_parts("paddle", model, section), str(path), section, window=10, stride=2)
    (window,) = timeline.windows()
    assert (window.first_frame, window.frames, window.start) == (0, 20, 0)
    expected = logits_of_file(make_engine("paddle", model, section), path, section)
    np.testing.assert_allclose(window.logits, expected, rtol=0, atol=1e-4)
    assert timeline.notes[1:] == ["it is shorter than a window: taken as one clip"]


def test_of_a_video_that_breaks_off_what_was_read_counts_and_it_is_said(tiny, tmp_path):
    model, section = tiny("INFER.seg_num=4")
    parts = make_parts("paddle", model, section)
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
    timeline = Timeline(make_parts("paddle", model, section), str(path), section, window=2, stride=1)
    assert 1 < len(list(timeline.windows())) < 9
    assert any("cannot be read beyond" in note for note in timeline.notes), timeline.notes


def test_what_no_window_holds_is_said(tiny, tmp_path):
    model, section = tiny("INFER.seg_num=4")
    path = write_video(tmp_path / "long.mkv", noise(57), 10)
    timeline = Timeline(make_parts("paddle", model, section), str(path), section, window=2, stride=1)
    assert len(list(timeline.windows())) == 4
    assert timeline.notes == [
        "windows of 2.00 s (4 segments of 5 frames), one every 1.00 s (2 segments), at 10.00 frames a second",
        "its last 0.70 s are too short for another window: in none",
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
        Timeline(make_parts("paddle", model, section), str(tmp_path / "text.mp4"), section)
