"""stnet.timeline.files and stnet.timeline.render: opened again by programs that others wrote."""

import csv
import json
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from stnet.reader.errors import ClipError
from stnet.reader.stream import VideoStream
from stnet.timeline import files as timeline_files
from stnet.timeline.events import Event
from stnet.timeline.render import render
from stnet.timeline.windows import Window
from stnet.utils.errors import UserError

LABELS = ["playing cello", "a < b & c --> d", "倒立\nwalking"]
EVENTS = [Event(0.5, 2.25, 0, 0.87), Event(3661.001, 3662, 1, 0.5), Event(3662, 3663.5, 2, 0.999)]
WINDOWS = [Window(i, i + 2.0, 25 * i, 50, np.zeros(3)) for i in range(3)]
PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8]], np.float32)


def cues(path):
    """(start, end, text) in seconds, as FFmpeg reads a subtitle file."""
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        return [
            (
                float(packet.pts * packet.time_base),
                float((packet.pts + packet.duration) * packet.time_base),
                bytes(packet).decode(),
            )
            for packet in packets
        ]


@pytest.mark.parametrize("name", ["webvtt", "srt"])
def test_subtitles_are_read_as_they_are_meant(tmp_path, name):
    path = tmp_path / f"events.{'vtt' if name == 'webvtt' else 'srt'}"
    getattr(timeline_files, f"write_{name}")(path, EVENTS, LABELS)
    read = cues(path)
    assert [cue[:2] for cue in read] == [(0.5, 2.25), (3661.001, 3662), (3662, 3663.5)]
    awkward = "a &lt; b &amp; c --&gt; d 50%" if name == "webvtt" else "a < b & c --> d 50%"
    assert [cue[2].strip() for cue in read] == ["playing cello 87%", awkward, "倒立 walking 100%"]


def test_a_timeline_without_events_gives_files_that_say_nothing(tmp_path):
    timeline_files.write_webvtt(tmp_path / "none.vtt", [], LABELS)
    timeline_files.write_srt(tmp_path / "none.srt", [], LABELS)
    timeline_files.write_events_csv(tmp_path / "none.csv", [], LABELS)
    assert (tmp_path / "none.vtt").read_text().strip() == "WEBVTT"
    assert (tmp_path / "none.srt").read_text() == ""
    assert (tmp_path / "none.csv").read_text() == "start,end,class,probability\n"


def test_tables_hold_every_window_and_event(tmp_path):
    timeline_files.write_windows_jsonl(tmp_path / "w.jsonl", WINDOWS, PROBABILITIES, LABELS, topk=2)
    lines = [json.loads(line) for line in (tmp_path / "w.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["frames"] for line in lines] == [[0, 50], [25, 75], [50, 100]]
    assert lines[1]["class_ids"] == [1, 2]
    assert lines[1]["scores"] == pytest.approx([0.5, 0.3])
    assert lines[1]["label_names"] == [LABELS[1], LABELS[2]]
    timeline_files.write_windows_csv(tmp_path / "w.csv", WINDOWS, PROBABILITIES, LABELS)
    with open(tmp_path / "w.csv", encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["start", "end", *LABELS]
    np.testing.assert_allclose([[float(value) for value in row[2:]] for row in rows], PROBABILITIES, atol=1e-6)
    timeline_files.write_events_csv(tmp_path / "e.csv", EVENTS, LABELS)
    with open(tmp_path / "e.csv", encoding="utf-8", newline="") as file:
        assert list(csv.reader(file))[1] == ["0.500", "2.250", "playing cello", "0.87"]


def test_tables_and_subtitles_round_alike(tmp_path):
    times = [number / 2000 for number in range(1, 4000, 7)] + [1.0005, 2.6745, 3661.0005]
    events = [Event(time, time + 1.0005, 0, 0.5) for time in times]
    timeline_files.write_events_csv(tmp_path / "e.csv", events, LABELS)
    timeline_files.write_webvtt(tmp_path / "e.vtt", events, LABELS)
    timeline_files.write_srt(tmp_path / "e.srt", events, LABELS)
    with open(tmp_path / "e.csv", encoding="utf-8", newline="") as file:
        rows = [[float(value) for value in row[:2]] for row in list(csv.reader(file))[1:]]
    for name in ("e.vtt", "e.srt"):
        assert sorted(list(cue[:2]) for cue in cues(tmp_path / name)) == sorted(rows)


def test_the_picture_is_a_png_even_for_one_window(tmp_path):
    timeline_files.write_picture(tmp_path / "t.png", WINDOWS, PROBABILITIES, EVENTS[:1], LABELS, "clip 视频.mp4")
    timeline_files.write_picture(tmp_path / "one.png", WINDOWS[:1], PROBABILITIES[:1], [], LABELS)
    for name in ("t.png", "one.png"):
        assert Image.open(tmp_path / name).size[0] == 1200


def write_source(path, sound, codec="libx264", size=(98, 64), offset=0):
    """50 grey frames at a variable rate, with a tone. Returns their times in milliseconds."""
    timestamps = (np.cumsum([0] + [20, 60] * 25)[:50] + offset).tolist()
    with av.open(str(path), "w") as container:
        picture = container.add_stream(codec, rate=25)
        picture.width, picture.height, picture.pix_fmt = *size, "yuv420p"
        picture.codec_context.time_base = Fraction(1, 1000)
        tone = container.add_stream(sound, rate=48000) if sound else None
        if tone:
            tone.codec_context.layout = "stereo"
        for timestamp in timestamps:
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), 120, np.uint8), format="rgb24")
            frame.pts, frame.time_base = timestamp, Fraction(1, 1000)
            container.mux(picture.encode(frame))
        container.mux(picture.encode())
        for block in range(94 if tone else 0):
            wave = np.sin(np.arange(block * 1024, (block + 1) * 1024) * 0.05).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, block * 1024, Fraction(1, 48000)
            container.mux(tone.encode(frame))
        if tone:
            container.mux(tone.encode())
    return timestamps


def picture_behind_sound(path):
    """Seconds from the first sound to the first frame."""
    with av.open(str(path)) as container:
        picture, tone = container.streams.video[0], container.streams.audio[0]
        return float(picture.start_time * picture.time_base - tone.start_time * tone.time_base)


@pytest.mark.parametrize(
    ("name", "codec", "sound", "expected"),
    [
        ("a.mp4", "libx264", "aac", "aac"),
        ("b.mkv", "libx264", "libopus", "aac"),
        ("c.ts", "libx264", "aac", "aac"),
        ("d.avi", "mpeg4", "pcm_s16le", "aac"),
        ("e.mkv", "libx264", "libmp3lame", "mp3float"),
    ],
)
def test_a_rendered_video_plays_in_browsers_with_its_sound_and_times(tmp_path, name, codec, sound, expected):
    timestamps = write_source(tmp_path / name, sound, codec)
    assert render(str(tmp_path / name), tmp_path / "out.mp4", [Event(0.5, 1.0, 0, 0.87)], LABELS) == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        picture, tone = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, picture.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert tone.codec_context.name == expected
        frames = [(frame.time, frame.to_ndarray(format="gray")) for frame in container.decode(picture)]
    if codec == "libx264":  # AVI has frames at a steady rate only
        assert [1000 * (time - frames[0][0]) for time, _ in frames] == pytest.approx(timestamps, abs=1)
    before, after = picture_behind_sound(tmp_path / name), picture_behind_sound(tmp_path / "out.mp4")
    assert after == pytest.approx(
        before, abs=1e-3 if sound == "aac" else 0.03
    )  # what an encoder puts before, players skip
    changed = [time for time, image in frames if np.abs(image.astype(int) - 120).max() > 60]
    assert changed == [time for time, _ in frames if 0.5 <= time < 1.0] != []
    with av.open(str(tmp_path / "out.mp4")) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48000 == pytest.approx(94 * 1024 / 48000, abs=0.1)
    content = (tmp_path / "out.mp4").read_bytes()
    assert content.find(b"moov") < content.find(b"mdat")


@pytest.mark.parametrize("sound", ["aac", "mp2", "ac3"])
def test_sound_stays_with_its_part_of_the_video_where_another_part_has_none(tmp_path, sound):
    for number, own in enumerate([sound, sound, "", sound]):  # 2 s each
        write_source(tmp_path / f"{number}.ts", own)
        with open(tmp_path / "joined.ts", "ab") as file:
            file.write((tmp_path / f"{number}.ts").read_bytes())
    assert render(str(tmp_path / "joined.ts"), tmp_path / "out.mp4", [], LABELS) == []
    with av.open(str(tmp_path / "out.mp4")) as container:
        heard = [frame.time for frame in container.decode(audio=0)]
    assert heard == sorted(heard) and heard[-1] == pytest.approx(7.9, abs=0.1)
    assert [time for time in heard if 4.1 < time < 5.8] == []
    assert len(heard) == pytest.approx(3 * 94, abs=4)


def test_a_video_without_sound_and_of_an_odd_size_is_rendered_too(tmp_path):
    write_source(tmp_path / "mute.mkv", "", "ffv1", size=(95, 63))
    render(str(tmp_path / "mute.mkv"), tmp_path / "out.mp4", [], LABELS)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert len(container.streams.audio) == 0
        assert {(frame.width, frame.height) for frame in container.decode(video=0)} == {(94, 62)}


def test_a_render_that_fails_leaves_the_old_file_alone(tmp_path):
    (tmp_path / "old.mp4").write_text("old")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(Exception, match="no frame can be decoded"):
        render(str(tmp_path / "text.mp4"), tmp_path / "old.mp4", [], LABELS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.mp4", "text.mp4"]
    assert (tmp_path / "old.mp4").read_text() == "old"
    write_source(tmp_path / "a.mp4", "aac")
    with pytest.raises(UserError, match="cannot write"):
        render(str(tmp_path / "a.mp4"), tmp_path / "text.mp4" / "out.mp4", [], LABELS)


def test_a_video_whose_first_frame_is_damaged_leaves_the_old_copy_alone(tmp_path):
    write_source(tmp_path / "a.mp4", "aac")
    with av.open(str(tmp_path / "a.mp4")) as container:
        place, size = next((packet.pos, packet.size) for packet in container.demux(video=0))
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    content[place : place + size] = b"\xff" * size
    (tmp_path / "a.mp4").write_bytes(content)
    (tmp_path / "old.mp4").write_text("old")
    with pytest.raises(ClipError, match="no frame of it can be read for the copy"):
        render(str(tmp_path / "a.mp4"), tmp_path / "old.mp4", [], LABELS)
    assert (tmp_path / "old.mp4").read_text() == "old"


def write_plain(path, codec, size=(64, 48), rate=25, frames=30, pixels="yuv420p", options=None):
    """Frames of one grey each, at a constant rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        for number in range(frames):
            image = np.full((size[1], size[0], 3), 5 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "settings", "size"),
    [
        ("b_frames.avi", {"codec": "libx264", "rate": 30, "options": {"bf": "5", "b_strategy": "0"}}, (64, 48)),
        ("fast.mkv", {"codec": "libx264", "rate": 2000}, (64, 48)),
        ("fast.mp4", {"codec": "libx264", "rate": 2000}, (64, 48)),
        ("dot.mkv", {"codec": "ffv1", "size": (1, 1), "pixels": "bgr0"}, (2, 2)),
        ("line.avi", {"codec": "rawvideo", "size": (1, 33), "pixels": "bgr24"}, (2, 32)),
    ],
)
def test_odd_rates_sizes_and_orders_are_rendered_with_every_frame_at_its_time(tmp_path, name, settings, size):
    write_plain(tmp_path / name, **settings)
    assert render(str(tmp_path / name), tmp_path / "out.mp4", [Event(0, 9, 0, 0.5)], LABELS) == []
    expected = [shown.seconds for shown in VideoStream(str(tmp_path / name)).frames()]
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = [(frame.time, frame.width, frame.height) for frame in container.decode(video=0)]
    assert {frame[1:] for frame in frames} == {size}
    times, step = [time - frames[0][0] for time, *_ in frames], 1 / settings.get("rate", 25)
    assert times == pytest.approx([seconds - expected[0] for seconds in expected], abs=0.6 * step)
    assert times == sorted(set(times))


def test_what_the_encoder_refuses_is_one_line(tmp_path):
    write_plain(tmp_path / "wide.avi", "rawvideo", size=(16400, 2), frames=2, pixels="bgr24")
    with pytest.raises(UserError, match="the copy cannot be written as H.264 in mp4"):
        render(str(tmp_path / "wide.avi"), tmp_path / "out.mp4", [], LABELS)
    assert not (tmp_path / "out.mp4").exists()
