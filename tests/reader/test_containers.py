"""What a list or a file names is never opened: only the files of the list are, and only as videos."""

import contextlib
import http.server
import os
import shutil
import struct
import threading

import pytest
from conftest import write_video

from stnet.config import ReaderSection
from stnet.reader.clip import read_clip
from stnet.reader.errors import ClipError

SECTION = ReaderSection(seg_num=2, seglen=2, short_size=32, target_size=32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    write_video(tmp_path / "inside.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server():
    """A server that notes what it is asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_):
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    made.asked, made.address = asked, f"http://127.0.0.1:{made.server_port}"
    yield made
    made.shutdown()
    made.server_close()


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n"
LISTS = {
    "ffconcat": "ffconcat version 1.0\nfile {target}\n",
    "playlist": PLAYLIST,
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    "<BaseURL>{target}</BaseURL></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("decoder", ["", "decord", "pyav", "opencv"])
@pytest.mark.parametrize("kind", LISTS)
@pytest.mark.parametrize("suffix", ["mp4", "m3u8", "ts"])
def test_a_file_that_names_others_opens_none_of_them(folder, server, kind, suffix, decoder):
    for target in ("inside.mp4", f"{server.address}/x.mp4", f"file:{folder}/inside.mp4"):
        (folder / f"x.{suffix}").write_text(LISTS[kind].format(target=target))
        with pytest.raises(ClipError):
            read_clip(f"x.{suffix}", SECTION, decoder=decoder)
    assert server.asked == []


def test_a_playlist_in_front_of_a_transport_stream_is_not_followed(folder, server):
    import av

    with av.open(str(folder / "inside.mp4")) as source, av.open(str(folder / "y.ts"), "w") as file:
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                file.mux(packet)
    head = PLAYLIST.format(target=f"{server.address}/x.ts").encode()
    (folder / "y.mp4").write_bytes(head + (folder / "y.ts").read_bytes())
    with contextlib.suppress(ClipError):
        read_clip("y.mp4", SECTION)
    assert server.asked == []


@pytest.mark.parametrize(
    "name",
    ["{server}/x.mp4", "concat:inside.mp4|inside.mp4", "file:inside.mp4", "pipe:0", "crypto:inside.mp4", "x%03d.png"],
)
def test_a_path_is_a_path_and_no_address(folder, server, name):
    with pytest.raises(ClipError, match="no such file"):
        read_clip(name.format(server=server.address), SECTION)
    assert server.asked == []


def box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def with_video_elsewhere(data, name):
    """A file of write_video, changed so that its frames lie in the file of a name, as QuickTime writes it."""
    place = struct.pack(">2H", 2, len(name)) + name + struct.pack(">2H", 0xFFFF, 0)
    alias = bytes(54) + bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16) + struct.pack(">2H", 1, 1) + bytes(16)
    reference = box(b"dref", struct.pack(">2I", 0, 1) + box(b"alis", alias + place))
    changed, at = bytearray(data), data.index(b"moov")
    (size,) = struct.unpack_from(">I", data, data.index(b"dref") - 4)
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
        at = data.index(kind, at)
        struct.pack_into(">I", changed, at - 4, struct.unpack_from(">I", data, at - 4)[0] + len(reference) - size)
    at = data.index(b"dref", at) - 4
    changed[at : at + size] = reference
    return bytes(changed)


@pytest.mark.parametrize("decoder", ["", "decord", "pyav", "opencv"])
def test_a_film_whose_frames_lie_in_another_file_has_none(folder, decoder):
    data = (folder / "inside.mp4").read_bytes()
    (folder / "x.mp4").write_bytes(with_video_elsewhere(data, b"inside.mp4"))
    with pytest.raises(ClipError, match="no packet of the video can be read"):
        read_clip("x.mp4", SECTION, decoder=decoder)


@pytest.mark.parametrize("name", ["concat:inside.mp4", "a:b.mp4", "x%03d.mp4", "-i.mp4", "caf\udce9.mp4"])
def test_a_file_with_an_odd_name_is_read(folder, name):
    shutil.copy("inside.mp4", name)
    assert read_clip(name, SECTION).num_frames == 12


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (os.mkfifo, "it is not a regular file"),
        (lambda name: os.symlink("/dev/zero", name), "it is not a regular file"),
        (os.mkdir, "it is a folder"),
        (lambda name: os.symlink(name, name), "no such file"),
    ],
    ids=["fifo", "device", "folder", "link to itself"],
)
def test_what_is_no_file_is_refused_at_once(folder, make, reason):
    make("x.mp4")
    with pytest.raises(ClipError, match=reason):
        read_clip("x.mp4", SECTION)


def test_a_title_that_is_not_utf8_hinders_nothing(folder):
    data = (folder / "inside.mp4").read_bytes()
    place = data.index(b"Lavf")  # the name of the writing program, in the file's metadata
    (folder / "x.mp4").write_bytes(data[:place] + b"caf\xe9" + data[place + 4 :])
    assert read_clip("x.mp4", SECTION).num_frames == 12


def test_what_was_in_opencvs_environment_is_there_again(folder, monkeypatch):
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    read_clip("inside.mp4", SECTION, decoder="opencv")
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS")
    read_clip("inside.mp4", SECTION, decoder="opencv")
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ
