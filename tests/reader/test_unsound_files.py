"""Whatever a decoder raises is the fault of its clip: files that no encoder writes, through every way to read one."""

import json
import random

import av
import numpy as np
import pytest
from conftest import write_video
from entries import eval_entry, predict, run, train

from stnet.config import ReaderSection
from stnet.reader.clip import read_clip
from stnet.reader.errors import ClipError, CorruptVideo, decoded, decoding
from stnet.reader.stream import VideoStream
from stnet.tools.dataset.__main__ import main
from stnet.tools.dataset.workers import Lost, work

SECTION = ReaderSection(seg_num=2, seglen=2, short_size=32, target_size=32)


def write_ts(path, first_pid, frames=25):
    """25 frames a second of noise as H.264 in a transport stream whose packets have other PIDs than usual."""
    options = {"mpegts_start_pid": str(first_pid), "mpegts_pmt_start_pid": str(first_pid + 0x800)}
    noise = np.random.RandomState(first_pid).randint(0, 256, (48, 64, 3), np.uint8)
    with av.open(str(path), "w", format="mpegts", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, number, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


@pytest.fixture(scope="session")
def other_pids(tmp_path_factory):
    """Two transport streams behind each other, whose PIDs differ: PyAV's demuxer raises an IndexError there."""
    folder = tmp_path_factory.mktemp("streams")
    path = folder / "joined.ts"
    path.write_bytes(write_ts(folder / "a.ts", 0x100) + write_ts(folder / "b.ts", 0x300))
    return path


def test_what_a_decoder_raises_is_damage_and_what_says_more_stays():
    for error in (IndexError("list index out of range"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "x"), KeyError(1)):
        with pytest.raises(CorruptVideo), decoding():
            raise error
    with pytest.raises(ClipError, match="more memory"), decoding():
        raise MemoryError
    with pytest.raises(ClipError, match="too long"), decoding():
        raise ClipError("too long")
    assert list(decoded([1, 2])) == [1, 2]


def test_of_a_transport_stream_whose_pids_change_the_first_half_is_read(other_pids):
    assert read_clip(str(other_pids), SECTION).num_frames == 25
    with pytest.raises(ClipError, match="damaged"):
        read_clip(str(other_pids), SECTION, decoder="pyav")
    stream = VideoStream(str(other_pids))
    assert 20 <= len(list(stream.frames())) <= 25
    assert stream.damage


def test_no_entry_is_ended_by_it(other_pids, clip_set, trained, tmp_path, capsys):
    clips = [write_video(tmp_path / "a.mp4"), other_pids, write_video(tmp_path / "c.mp4", seed=1)]
    listed = tmp_path / "clips.list"
    listed.write_text("".join(f"{path} {label}\n" for label, path in enumerate(clips)), encoding="utf-8")
    typed = ["--config", clip_set / "tiny.yaml", "--save_dir", tmp_path / "out", "-o", f"TEST.filelist={listed}"]
    weights = ["--weights", trained / "STNET_final.pdparams", "--engine=paddle"]
    assert run(predict, *typed, *weights, *clips) == 0
    assert len(json.loads((tmp_path / "out" / "predict_results.json").read_text(encoding="utf-8"))["results"]) == 3
    assert run(predict, *typed, *weights, "--timeline", "--window=0.2", "--stride=0.2", *clips) == 0
    assert len((tmp_path / "out" / "joined.windows.csv").read_text(encoding="utf-8").splitlines()) >= 4
    assert run(eval_entry, *typed, *weights) == 0
    lists = ["-o", f"TRAIN.filelist={listed}", "-o", f"VALID.filelist={listed}", "-o", "TRAIN.batch_size=1"]
    assert run(train, *typed, *lists, "--epoch=1", "--pretrain=none") == 0
    checked = [
        "check",
        "--list",
        str(listed),
        "--config",
        str(clip_set / "tiny.yaml"),
        "--out",
        str(tmp_path / "checked"),
    ]
    main(checked)
    report = json.loads((tmp_path / "checked" / "report.json").read_text(encoding="utf-8"))
    assert (report["clips"], report["notes"]["damaged"]) == (3, 1)
    main(["pack", "--list", str(listed), "--out", str(tmp_path / "packed")])
    assert len(list((tmp_path / "packed").glob("*.pkl"))) == 3


def tampered(content, rng):
    """A file's bytes, some of them changed, gone, doubled, or another file's."""
    data, place = bytearray(content), rng.randrange(len(content))
    kind = rng.randrange(6)
    if kind == 0:
        del data[place:]
    elif kind == 1:
        data[place:place] = data[place : place + 5000]
    elif kind == 2:
        data[place : place + 400] = bytes(min(400, len(data) - place))
    else:
        reach = len(data) if kind == 3 else min(600, len(data))  # the header, mostly
        for _ in range(rng.choice([1, 5, 50])):
            data[rng.randrange(reach)] = rng.randrange(256)
    return bytes(data)


def error_of(path):
    """What reading a file raises beyond a ClipError; "" if nothing."""
    try:
        read_clip(path, SECTION)
        for shown in VideoStream(path).frames():
            shown.rgb()
    except ClipError:
        pass
    except Exception as error:
        return f"{path}: {type(error).__name__}: {error}"
    return ""


def test_files_with_garbage_in_them_are_clip_errors_or_videos(videos, other_pids, tmp_path):
    rng, paths = random.Random(5), []
    sources = [other_pids, *(videos / name for name in ("tall_h264.mp4", "mpeg4.avi", "three_frames.mp4"))]
    for number in range(60):
        source = sources[number % len(sources)]
        paths.append(str(tmp_path / f"{number}{source.suffix}"))
        with open(paths[-1], "wb") as file:
            file.write(tampered(source.read_bytes(), rng))
    results = [result for _, result in work(error_of, paths, workers=1, timeout=20)]
    assert [result for result in results if result and not isinstance(result, Lost)] == []


HEADER = "{'descr': '|u1', 'fortran_order': False, 'shape': (%s), }"


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 no zip",  # what numpy.load takes for an .npz
        b"PK\x05\x06" + bytes(18),
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00" + bytes(200),
        *(
            b"\x93NUMPY\x01\x00\x80\x00" + header.ljust(127).encode() + b"\n"
            for header in (
                HEADER % "-1, 4, 4, 3",
                HEADER % "9223372036854775807, 4, 4, 3",
                HEADER % "5, 0, 4, 3",
                "{'descr': '|u1', (",  # tokenize's own error
                "{'descr': ',,', 'fortran_order': False, 'shape': (1,), }",
                "(" * 127,
            )
        ),
    ],
)
def test_files_of_frames_with_a_header_that_makes_no_sense_are_clip_errors(tmp_path, content):
    (tmp_path / "frames.npy").write_bytes(content)
    with pytest.raises(ClipError):
        read_clip(str(tmp_path / "frames.npy"), SECTION, "frames")
