"""Several views of a video: read by one decoding, computed a batch at a time, averaged as probabilities."""

import json
import pickle
import tracemalloc

import cv2
import numpy as np
import paddle
import pytest
from conftest import write_video
from entries import eval_entry, run

from stnet.backends.engines import make_engine
from stnet.config import ReaderSection, TestSection, load_config
from stnet.evaluation.loop import over_views, scored
from stnet.models import get_model, model_section
from stnet.reader import formats
from stnet.reader.clip import _Sink, read_clip
from stnet.reader.decode import read_video
from stnet.reader.loader import EpochOrder, build_loader
from stnet.reader.transforms import resize, to_super_images
from stnet.utils.errors import UserError

SIZES = {"short_size": 32, "target_size": 32, "seg_num": 3, "seglen": 2}


def section(**more):
    return TestSection(**SIZES, **more)


def configured(clip_set, *overrides):
    return load_config(clip_set / "tiny.yaml", model_section, overrides)


def engine_for(config):
    paddle.seed(3)
    return make_engine("paddle", get_model("STNET", config, "test"), config.section("test"))


def views_of(path):
    """By hand: 12 frames are 3 segments of 4, so that 2 frames have room for 0, 1 and 2; crops of 42 x 32 by 32."""
    frames = read_video(str(path), range)[0]
    assert len(frames) == 12
    scaled = np.stack([resize(frame, (42, 32)) for frame in frames])
    for left in (0, 5, 10):
        for offset in (0, 1, 2):
            numbers = [4 * i + offset + k for i in range(3) for k in range(2)]
            clip = scaled[numbers, :, left : left + 32]
            yield clip.transpose(0, 3, 1, 2).reshape(3, 6, 32, 32)


def test_the_probabilities_are_the_means_over_three_clips_of_three_crops(clip_set):
    config = configured(clip_set, "TEST.num_clips=3", "TEST.num_crops=3")
    engine, loader = engine_for(config), build_loader(config, "test")
    found = np.concatenate([logits for _, logits in scored(engine, loader, "eval", 10)])
    assert found.shape == (6, 4)
    assert found.dtype == np.float32
    for i, logarithms in enumerate(found):
        logits = engine(np.stack(list(views_of(clip_set / f"val {i}.mp4")))).astype(np.float64)
        powers = np.exp(logits)
        expected = (powers / powers.sum(axis=1, keepdims=True)).mean(axis=0)
        np.testing.assert_allclose(np.exp(logarithms), expected, rtol=0, atol=1e-6)


def test_the_views_of_a_video_are_those_by_hand_to_the_bit(clip_set):
    clip = read_clip(str(clip_set / "val 0.mp4"), section(num_clips=3, num_crops=3))
    by_hand = np.concatenate(list(views_of(clip_set / "val 0.mp4")))
    found = clip.frames.transpose(0, 3, 1, 2).reshape(by_hand.shape)
    np.testing.assert_array_equal(found, by_hand)
    assert len(clip.segments) == 27
    assert clip.segments[:4] == [[0, 1], [4, 5], [8, 9], [1, 2]]


def test_one_view_is_the_centre_and_its_logits_are_the_engines(clip_set):
    path = str(clip_set / "val 0.mp4")
    one, plain = read_clip(path, section()), read_clip(path, ReaderSection(**SIZES))
    assert one.segments == plain.segments == [[1, 2], [5, 6], [9, 10]]  # (4 - 1) // 2
    np.testing.assert_array_equal(one.frames, plain.frames)
    config = configured(clip_set)
    engine = engine_for(config)
    for batch, logits in scored(engine, build_loader(config, "test"), "eval", 10):
        np.testing.assert_array_equal(logits, engine(batch.clips))


def test_the_middle_of_three_crops_is_the_one(clip_set):
    path = str(clip_set / "val 0.mp4")
    three, one = read_clip(path, section(num_crops=3)), read_clip(path, section())
    np.testing.assert_array_equal(three.frames[6:12], one.frames)
    assert not np.array_equal(three.frames[:6], one.frames)


def test_a_tall_video_is_cropped_from_top_to_bottom(tmp_path):
    path = write_video(tmp_path / "tall.mp4", size=(30, 40))
    clip = read_clip(str(path), section(num_crops=3))
    frame = resize(read_video(str(path), lambda n: [1])[0][0], (32, 42))
    for crop, top in enumerate((0, 5, 10)):
        np.testing.assert_array_equal(clip.frames[6 * crop], frame[top : top + 32])


def test_a_short_video_has_the_same_clip_in_all_views(tmp_path):
    path = write_video(tmp_path / "short.mp4", frames=4)
    clip = read_clip(str(path), section(num_clips=2))
    assert clip.segments[:3] == clip.segments[3:] == read_clip(str(path), section()).segments
    np.testing.assert_array_equal(clip.frames[:6], clip.frames[6:])


def test_pickles_and_frames_have_the_same_views_as_videos(clip_set, tmp_path):
    frames = read_video(str(clip_set / "val 0.mp4"), range)[0]
    np.save(tmp_path / "a.npy", frames)
    jpegs = [cv2.imencode(".jpg", np.ascontiguousarray(frame[..., ::-1]))[1].tobytes() for frame in frames]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(("a", 1, jpegs), protocol=2))
    views = section(num_clips=2, num_crops=3)
    video = read_clip(str(clip_set / "val 0.mp4"), views)
    array = read_clip(str(tmp_path / "a.npy"), views, "frames")
    pickled = read_clip(str(tmp_path / "a.pkl"), views, "pkl")
    np.testing.assert_array_equal(array.frames, video.frames)
    assert video.segments == array.segments == pickled.segments
    assert np.abs(pickled.frames.astype(float) - video.frames).mean() < 20  # JPEG of noise
    assert pickled.label == 1


def test_a_video_is_decoded_once_for_all_views(clip_set, monkeypatch):
    read, calls = formats.read_frames, []
    monkeypatch.setattr(formats, "read_frames", lambda *settings: calls.append(settings) or read(*settings))
    read_clip(str(clip_set / "val 0.mp4"), section(num_clips=5, num_crops=3))
    assert len(calls) == 1


def test_views_are_put_together_without_a_second_copy_of_all():
    sizes = {**SIZES, "seg_num": 5, "seglen": 5}
    sink = _Sink(TestSection(**sizes, num_clips=10, num_crops=3), "mp4", None)
    for row in range(len(sink.begin(250))):
        sink.put(row, np.full((32, 42, 3), row, np.uint8))
    tracemalloc.start()
    frames = sink.frames()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert frames.shape == (30 * 25, 32, 32, 3)
    assert peak < 1.4 * frames.nbytes
    assert np.shares_memory(to_super_images(frames, 30 * 5), frames)


def test_the_engine_gets_no_more_at_once_than_for_one_view(clip_set):
    config = configured(clip_set, "TEST.num_clips=3", "TEST.num_crops=3")
    engine, loader, given = engine_for(config), build_loader(config, "test"), []

    def counted(clips):
        given.append(list(clips.shape))
        return engine(clips)

    list(scored(counted, loader, "eval", 10))
    assert given == [[4, 3, 6, 32, 32], [4, 3, 6, 32, 32], [1, 3, 6, 32, 32]] * 6
    assert loader.dataset.clip_shape == (27, 6, 32, 32)  # what /dev/shm must hold


@pytest.mark.parametrize(("views", "clips"), [(1, 16), (2, 8), (3, 5), (16, 1), (30, 1)])
def test_a_batch_holds_as_many_views_as_it_held_clips(views, clips):
    assert [len(batch) for batch in EpochOrder(20, 64, False, views=views).batches(0)][0] == clips


def test_many_views_are_read_by_fewer_processes_and_the_log_says_so(clip_set, caplog):
    caplog.set_level("INFO", "stnet")
    wide = ["TEST.num_reader_threads=12", "TEST.num_crops=3"]
    assert build_loader(configured(clip_set, *wide), "test").workers == 12  # a batch of one video: 3 views, not 4
    assert not caplog.messages
    assert build_loader(configured(clip_set, *wide, "TEST.num_clips=4"), "test").workers == 4  # 12 views for 4
    assert caplog.messages == ["12 views of each video: num_reader_threads 4 instead of 12, for their memory"]
    assert build_loader(configured(clip_set, *wide, "TEST.num_clips=40"), "test").workers == 1
    assert build_loader(configured(clip_set, *wide[1:], "TEST.num_reader_threads=0"), "test").workers == 0


def test_a_probability_of_nearly_nothing_has_a_logarithm():
    logits = np.array([[0, -900], [0, -900], [0, -900], [-900, 0]], np.float32)
    found = over_views(lambda clips: logits, paddle.zeros([2, 2, 3, 4, 4], "uint8"), 2, 4)
    np.testing.assert_allclose(found, [[0, -900], np.log([0.5, 0.5])], atol=1e-6)


def test_training_validates_by_one_view(clip_set):
    config = configured(clip_set, "TEST.num_clips=3", "TEST.num_crops=3")
    assert [config.section(mode).views for mode in ("train", "valid", "test", "infer")] == [1, 1, 9, 1]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("TEST.num_crops=2", "TEST.num_crops: expected one of 1, 3, found 2"),
        ("TEST.num_clips=0", "TEST.num_clips: expected at least 1, found 0"),
        ("VALID.num_clips=2", "key VALID. 'num_clips' is unknown"),
        ("INFER.num_crops=3", "key INFER. 'num_crops' is unknown"),
    ],
)
def test_views_that_make_no_sense_are_one_line(clip_set, override, message):
    with pytest.raises(UserError, match=message):
        configured(clip_set, override)


def test_eval_scores_several_views_by_an_export(clip_set, trained, tmp_path):
    words = ["--config", clip_set / "tiny.yaml", "--weights", trained / "STNET_final.pdparams", "--save_dir", tmp_path]
    assert run(eval_entry, *words, "-o", "TEST.num_clips=2", "-o", "TEST.num_crops=3") == 0
    found = json.loads((tmp_path / "eval_results.json").read_text())
    assert found["count"] == 6
    assert (found["config"]["TEST"]["num_clips"], found["config"]["TEST"]["num_crops"]) == (2, 3)
