"""The index of drawn files: what it says of them, and which packets it has decoded for which frames."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stnet.reader.containers import opened
from stnet.reader.decode import Frames, read_frames, read_video
from stnet.reader.index import DAMAGED, plan, read_index
from stnet.tools import run_deployed


def write(path, frames=40, codec="libx264", timestamps=None, x264="", **options):
    """A video of noise that grows brighter, so that no two frames are alike; x264 keeps to the groups asked for."""
    rng = np.random.RandomState(0)
    if codec == "libx264":
        options["x264-params"] = f"scenecut=0:b-adapt=0:b-pyramid=none:{x264}"
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(frames):
            image = rng.randint(0, 100, (48, 64, 3)).astype(np.uint8) + np.uint8(3 * i % 150)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = timestamps[i] if timestamps else i
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return str(path)


def index_of(path):
    with opened(path) as (container, stream):
        return read_index(container, stream)


def test_frames_are_the_packets_in_the_order_of_their_stamps(tmp_path):
    index = index_of(write(tmp_path / "x.mp4", x264="keyint=10:bframes=2"))
    assert (index.seek_problem, index.codec, index.declared, len(index.timestamps)) == ("", "h264", 40, 40)
    assert index.timestamps == sorted(packet.timestamp for packet in index.packets)
    assert [packet.timestamp for packet in index.packets] != index.timestamps  # B-frames
    assert [place for place, packet in enumerate(index.packets) if packet.random_access] == [0, 10, 20, 30]
    assert index.seconds == pytest.approx(1.6)


def test_a_plan_begins_at_the_last_key_frame_and_joins_what_is_near(tmp_path):
    index = index_of(write(tmp_path / "x.mp4", frames=60, x264="keyint=20:bframes=0"))
    assert plan(index, [0, 1, 2]) == [(0, [0, 1, 2])]
    assert plan(index, [45]) == [(40, [45])]
    assert plan(index, [3, 59]) == [(0, [3]), (40, [59])]
    assert plan(index, [3, 15, 25]) == [(0, [3, 15, 25])]  # the key frame at 20 is near to 15


def test_open_groups_of_pictures_are_read_in_order(tmp_path):
    path = write(tmp_path / "x.mp4", frames=60, x264="keyint=20:bframes=3:open-gop=1")
    assert (index_of(path).seek_problem, index_of(path).notes) == ("open groups of pictures", ("open_gop",))
    every, _ = read_video(path, range)
    some, _ = read_video(path, lambda count: [19, 20, 41])
    assert np.array_equal(some, every[[19, 20, 41]])


def test_a_long_file_gives_by_seeks_the_frames_that_it_gives_in_order(tmp_path):
    path = write(tmp_path / "x.mp4", frames=1100, x264="keyint=50:bframes=2")
    every, _ = read_video(path, range, "opencv")
    for frames in ([1099], [0, 500, 501], [49, 50, 51, 777]):
        sink = Frames(lambda count, frames=frames: frames)
        video = read_frames(path, sink, "pyav")
        assert (video.frames, video.in_order) == (1100, "")
        assert np.array_equal(np.stack(sink.rows), every[frames])


def test_parameter_sets_of_another_stream_are_no_sound_index(tmp_path):
    first = write(tmp_path / "a.h264", frames=20, x264="keyint=10:bframes=0:ref=1")
    second = write(tmp_path / "b.h264", frames=20, x264="keyint=10:bframes=0:ref=4:cabac=0")
    joined = tmp_path / "joined.h264"
    joined.write_bytes(Path(first).read_bytes() + Path(second).read_bytes())
    with av.open(str(joined)) as source, av.open(str(tmp_path / "x.mp4"), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.stream, packet.pts = stream, 512 * number
            packet.dts, packet.time_base = packet.pts, Fraction(1, 12800)
            file.mux(packet)
    assert index_of(str(tmp_path / "x.mp4")).seek_problem == "parameters that change within the stream"


def test_a_cut_by_copying_has_an_edit_list_and_only_the_frames_that_are_shown(tmp_path):
    write(tmp_path / "whole.mp4", frames=60, x264="keyint=30:bframes=2")
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    import subprocess

    cut = tmp_path / "cut.mp4"
    words = ["-loglevel", "error", "-ss", "0.8", "-i", tmp_path / "whole.mp4", "-c", "copy", "-t", "1", cut]
    subprocess.run([ffmpeg, *words], check=True)
    index = index_of(str(cut))
    assert index.seek_problem == ""
    assert "edit_list" in index.notes and "header_count" in index.notes
    assert len(index.timestamps) < index.declared == len(index.packets)
    frames, _ = read_video(str(cut), range)
    assert len(frames) == len(index.timestamps)


@pytest.mark.parametrize(
    ("name", "options", "seek_problem"),
    [
        ("x.avi", {}, "a container (avi) without an index"),
        ("x.ts", {}, "a container (mpegts) without an index"),
        ("x.mp4", {"codec": "mpeg4"}, "a codec (mpeg4) that is read in order"),
        ("x.mkv", {"codec": "mjpeg"}, "a codec (mjpeg) that is read in order"),
        ("x.mp4", {"flags": "+ildct+ilme"}, "interlaced"),
    ],
)
def test_what_is_no_sound_index_says_why(tmp_path, name, options, seek_problem):
    if options.get("codec") == "mjpeg":
        options = {**options, "strict": "unofficial"}
    assert index_of(write(tmp_path / name, **options)).seek_problem == seek_problem


@pytest.mark.parametrize("matrix", ["bt709", "bt2020nc", "bt2020c", "YCgCo"])
def test_all_decoders_convert_a_colour_matrix_alike(tmp_path, matrix):
    pytest.importorskip("decord")
    path = write(tmp_path / "x.mp4", frames=4, x264=f"bframes=0:colormatrix={matrix}")
    (frames, _), (others, _) = read_video(path, range, "decord"), read_video(path, range, "pyav")
    assert np.array_equal(frames, others)
    assert np.array_equal(frames, run_deployed.read_frames(path, range))


def test_uneven_distances_are_noted(tmp_path):
    timestamps = [i + (i > 20) * 5 for i in range(40)]
    assert "variable_rate" in index_of(write(tmp_path / "x.mp4", timestamps=timestamps)).notes
    assert "variable_rate" not in index_of(write(tmp_path / "y.mp4")).notes


def test_a_packet_whose_parts_do_not_add_up_is_damage_wherever_it_lies(tmp_path):
    path = tmp_path / "x.mp4"
    write(path, x264="keyint=10:bframes=0")
    whole = bytearray(path.read_bytes())
    with av.open(str(path)) as file:
        packet = list(file.demux(video=0))[25]
    whole[packet.pos + 2] ^= 1  # in the length of its first NAL unit
    path.write_bytes(whole)
    assert index_of(str(path)).seek_problem == DAMAGED
    video = read_frames(str(path), Nothing())
    assert (video.decoder, video.in_order) == ("opencv", DAMAGED)


class Nothing:
    """A sink that wants only the first frame."""

    def begin(self, count):
        return [0]

    def put(self, row, frame):
        assert row == 0
