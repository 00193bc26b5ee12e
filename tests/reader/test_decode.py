import cv2
import numpy as np
import pytest
from conftest import write_video

from stnet.reader.decode import ClipError, read_video
from stnet.reader.pickles import read_pickle


def every_frame(num_frames):
    return list(range(num_frames))


def opencv_frames(path):
    capture, frames = cv2.VideoCapture(str(path)), []
    while True:
        ok, frame = capture.read()
        if not ok:
            return np.stack(frames)[..., ::-1]
        frames.append(frame)


@pytest.mark.parametrize("name", ["wide_h264.mp4", "tall_h264.mp4", "mpeg4.avi", "three_frames.mp4"])
def test_frames_are_those_of_opencv_bit_for_bit(videos, name):
    frames, places = read_video(str(videos / name), every_frame)
    assert np.array_equal(frames[places], opencv_frames(videos / name))


def test_frames_last_while_other_clips_are_read(videos):
    frames, _ = read_video(str(videos / "mpeg4.avi"), every_frame)
    kept = frames.copy()
    read_video(str(videos / "wide_h264.mp4"), every_frame)
    assert np.array_equal(frames, kept)


def test_a_numpy_without_dlpack_reads_the_same_frames(videos, monkeypatch):
    path = str(videos / "three_frames.mp4")
    frames, _ = read_video(path, every_frame)
    monkeypatch.delattr(np, "from_dlpack")
    assert np.array_equal(read_video(path, every_frame)[0], frames)


def test_repeated_indices_are_decoded_once(videos):
    frames, places = read_video(str(videos / "three_frames.mp4"), lambda n: [2, 0, 2, 2, 1])
    assert len(frames) == 3
    assert np.array_equal(frames[places][0], frames[places][2])
    assert places.tolist() == [2, 0, 2, 2, 1]


@pytest.mark.parametrize("keep", [0.4, 0.6, 0.9])
def test_a_truncated_avi_gives_the_frames_that_opencv_gives(videos, tmp_path, keep):
    data = (videos / "mpeg4.avi").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(data[: int(len(data) * keep)])
    expected = opencv_frames(path)
    assert 0 < len(expected) < 75
    frames, places = read_video(str(path), every_frame)
    assert np.array_equal(frames[places], expected)


def test_a_damaged_real_clip_gives_the_originals_28_frames(real_videos):
    path = real_videos / "corrupted.mp4"
    frames, places = read_video(str(path), every_frame)
    assert len(places) == 28
    assert np.array_equal(frames[places], opencv_frames(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_text("not a video " * 50), "no frame can be decoded"),
        (lambda path: path.mkdir(), "folder"),
    ],
    ids=["missing", "0 bytes", "text", "folder"],
)
def test_what_is_no_video_is_refused_with_the_reason(tmp_path, make, reason):
    path = tmp_path / "x.mp4"
    make(path)
    with pytest.raises(ClipError, match=reason):
        read_video(str(path), every_frame)


def test_an_mp4_cut_before_its_index_is_refused(videos, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes((videos / "wide_h264.mp4").read_bytes()[:30000])
    with pytest.raises(ClipError, match="no frame can be decoded"):
        read_video(str(path), every_frame)


def test_a_path_with_spaces_and_other_scripts_is_read(tmp_path):
    path = write_video(tmp_path / "my 视频 clip.mp4", frames=5)
    assert len(read_video(str(path), every_frame)[0]) == 5


def test_a_pickled_clip_is_read(videos):
    frames, places, label = read_pickle(str(videos / "clip_jpeg.pkl"), lambda n: [n - 1, 0])
    assert (len(frames), places.tolist(), label) == (2, [1, 0], 3)


@pytest.mark.parametrize("data", [b"", b"\x80\x02.", b"junk"])
def test_a_broken_pickle_is_refused(tmp_path, data):
    path = tmp_path / "x.pkl"
    path.write_bytes(data)
    with pytest.raises(ClipError):
        read_pickle(str(path), every_frame)


def test_a_pickle_whose_frames_are_no_jpegs_is_refused(tmp_path):
    import pickle

    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(("id", 0, [b"not a jpeg"])))
    with pytest.raises(ClipError, match="cannot identify image"):
        read_pickle(str(path), every_frame)
