"""Clients that lie, dawdle and come from elsewhere: nothing outside is read or written, and nothing is left."""

import base64
import io
import resource
import struct
import zipfile

import cv2
import numpy as np
import pytest
from running import head, running

LIMIT = 200_000  # bytes of an upload


@pytest.fixture(scope="module")
def server(tmp_path_factory, clip_set, trained):
    flags = [f"--max_bytes={LIMIT}", "--body_seconds=1", "--queue=2"]
    with running(tmp_path_factory.mktemp("server"), clip_set, trained, *flags) as up:
        yield up


@pytest.fixture
def video(clip_set):
    return (clip_set / "val 0.mp4").read_bytes()


@pytest.fixture(autouse=True)
def as_before(server, video):
    """After each test the server answers, and its private folder is empty."""
    yield
    assert server.classify(video).status_code == 200
    assert server.is_empty_soon()
    assert server.process.poll() is None


def error(answer):
    return answer.status_code, answer.json()["error"]["code"], answer.json()["error"]["message"]


def zipped():
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a.mp4", b"x" * 1000)
    return made.getvalue()


def gif(width, height):
    """A GIF of one pixel on a screen of any size."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    return screen + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02D\x01\x00;"


def mjpeg(width, height):
    """JPEG frames whose heads promise any size."""
    jpeg = bytearray(cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes())
    slot = jpeg.index(b"\xff\xc0") + 5
    jpeg[slot : slot + 4] = struct.pack(">HH", height, width)
    return bytes(jpeg) * 10


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (zipped(), "no_video", "can be decoded"),
        (b"just a text", "no_video", "can be decoded"),
        (b"", "empty", "the upload is empty: 0 bytes"),
        (gif(65535, 65535), "no_video", "can be decoded"),
        (mjpeg(65535, 65535), "", ""),
    ],
    ids=["zip", "text", "nothing", "gif of 65535 x 65535", "jpegs of 65535 x 65535"],
)
def test_what_is_no_video_is_refused_in_one_line(server, content, code, words):
    status, found, message = error(server.classify(content))
    assert status == 422
    assert found == code or not code
    assert words in message
    assert "\n" not in message
    assert "stnet-serve" not in message


def test_a_playlist_opens_neither_files_nor_addresses(server, video, tmp_path):
    import socket

    secret = tmp_path / "secret.mp4"
    secret.write_bytes(video)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/a.mp4"
        for target in (str(secret), f"file://{secret}", address):
            for text in (
                f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n",
                f"ffconcat version 1.0\nfile '{target}'\n",
            ):
                status, code, _ = error(server.classify(text.encode(), name="a.m3u8"))
                assert (status, code) == (422, "no_video")
        listener.settimeout(0.1)
        with pytest.raises(OSError, match="timed out"):
            listener.accept()


@pytest.mark.parametrize("name", ["../../a.mp4", "/etc/cron.d/a", "a\0b.mp4", "C:\\a.mp4", "a" * 3000, "视频.mp4"])
def test_the_name_of_an_upload_is_none_of_a_file(server, video, name):
    assert server.classify(video, name=name).status_code == 200


@pytest.mark.parametrize("text", ["http://127.0.0.1/a.mp4", "/etc/passwd", "file:///etc/passwd", "data:,a", "é"])
def test_the_contract_of_paddlex_takes_base64_alone(server, text):
    answer = server.ask("POST", "video-classification", json={"video": text})
    assert (answer.status_code, answer.json()["errorCode"]) == (422, 422)
    assert "expected a file in base64; URLs and paths are refused" in answer.json()["errorMsg"]


def test_base64_may_come_in_lines_and_in_many_pieces(server, video):
    for text in (base64.encodebytes(video).decode(), base64.b64encode(video).decode()):
        assert server.ask("POST", "video-classification", json={"video": text}).json()["errorCode"] == 0
    packed = base64.b64encode(video + bytes(LIMIT - len(video))).decode()
    assert server.ask("POST", "video-classification", json={"video": packed}).json()["errorCode"] == 0
    assert server.ask("POST", "video-classification", json={"video": "AAA=AAAA"}).status_code == 422


def test_a_base64_video_is_held_to_the_same_limit(server):
    for size in (LIMIT + 1, 2 * LIMIT):
        answer = server.ask("POST", "video-classification", json={"video": base64.b64encode(bytes(size)).decode()})
        assert (answer.status_code, answer.json()["errorCode"]) == (413, 413)
    assert server.ask("POST", "video-classification", json={"video": ""}).status_code == 422


TOO_LARGE = f"the upload is larger than the {LIMIT} bytes that are taken"


def test_a_declared_length_of_10_gb_is_refused_before_it_comes(server):
    for kind in ("video/mp4", "multipart/form-data; boundary=b"):
        status, answer = server.raw(head("/api/classify", f"Content-Type: {kind}", "Content-Length: 10000000000"))
        assert (status, answer["error"]) == (413, {"code": "too_large", "message": TOO_LARGE})


def test_an_endless_body_is_cut_off(server):
    def endless(connection):
        while True:
            connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")

    start = head("/api/classify", "Content-Type: video/mp4", "Transfer-Encoding: chunked")
    status, answer = server.raw(start, endless)
    assert (status, answer["error"]["message"]) == (413, TOO_LARGE)


def test_a_slow_body_is_given_up(server):
    for path in ("/api/classify", "/api/timeline", "/video-classification"):
        start = head(path, "Content-Type: video/mp4", "Content-Length: 1000")
        status, answer = server.raw(start + b"x")
        assert status == 408
        assert "the upload was not there after 1 seconds" in str(answer)


def test_an_upload_that_the_disk_does_not_hold_is_said(tmp_path, clip_set, trained):
    with running(tmp_path, clip_set, trained) as up:
        resource.prlimit(up.process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
        for path in ("api/classify", "video-classification"):
            answer = up.ask("POST", path, content=bytes(150_000), headers={"Content-Type": "video/mp4"})
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")
            assert "the server could not keep the upload: File too large" in answer.text
        assert up.is_empty_soon()


def test_a_client_that_goes_away_leaves_nothing(server):
    start = head("/api/classify", "Content-Type: video/mp4", "Content-Length: 1000")
    server.raw(start + b"x" * 500, lambda connection: connection.close())


def test_a_full_server_says_so_before_the_body_and_when_to_come_again(server, video):
    start = head("/api/classify", "Content-Type: video/mp4", "Content-Length: 1000")

    def while_both_wait(connection):
        def ask(_):
            answer = server.classify(video)
            assert error(answer)[:2] == (503, "full")
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            paddlex = server.ask("POST", "video-classification", json={"video": ""})
            assert (paddlex.status_code, paddlex.json()["errorCode"]) == (503, 503)

        server.raw(start + b"x", ask)

    server.raw(start + b"x", while_both_wait)


def form(*parts):
    """The body of a form of (head, content)."""
    return b"".join(b"--b\r\n%s\r\n\r\n%s\r\n" % part for part in parts) + b"--b--\r\n"


FILE = b'Content-Disposition: form-data; name="file"; filename="a"'
OTHER = b'Content-Disposition: form-data; name="other"'


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (form((OTHER, b"x")), "the form has no field 'file'"),
        (form((FILE, b"x"), (FILE, b"x")), "the form has the field 'file' twice: one video a request"),
        (form(*[(OTHER, b"x")] * 50), "the form has more than 16 parts"),
        (form((FILE + b"\r\nX-A: " + b"a" * 100_000, b"x")), "the form "),
        (form((b"\r\n".join([FILE, *[b"X-A: b"] * 9000]), b"x")), "the form "),
        (form((FILE, b"x"))[:-8], "the form ends before its last boundary"),
        (b"x" * 100, "the form cannot be read: "),
    ],
    ids=["no field", "twice", "many parts", "a long header", "many headers", "cut off", "no form"],
)
def test_a_form_that_is_none_is_refused(server, body, words):
    answer = server.ask(
        "POST", "api/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    status, code, message = error(answer)
    assert (status, code) == (400, "form")
    assert words.strip() in message or "header" in message.lower()


def test_other_fields_are_read_over(server, video):
    body = form((OTHER, b"x" * 1000), (FILE, video), (OTHER, b"y"))
    answer = server.ask(
        "POST", "api/classify", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )
    assert answer.status_code == 200


def test_what_is_neither_a_form_nor_a_video_is_refused(server, video):
    answer = server.ask("POST", "api/classify", content=video, headers={"Content-Type": "text/html"})
    assert error(answer)[:2] == (415, "media_type")


def test_a_long_head_is_refused(server):
    status, _ = server.raw(head("/api/info", f"X-Long: {'a' * 20_000}"))
    assert status in (400, 431)
    status, _ = server.raw(head("/" + "a" * 100_000))
    assert status in (400, 431)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "192.0.2.1", "", "a b"])
def test_a_foreign_host_is_refused(server, host):
    for path in ("", "health", "api/info", "openapi.json"):
        answer = server.ask("GET", path, headers={"Host": host})
        assert answer.status_code == 403
        assert "which is no name of this server" in answer.text


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1", "127.1.2.3:80", "[::1]:8080"])
def test_the_names_of_this_machine_are_answered(server, host):
    assert server.ask("GET", "health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "file://", "http://localhost:1"])
def test_a_foreign_origin_is_refused(server, video, origin):
    answer = server.classify(video, headers={"Origin": origin})
    assert error(answer)[:2] == (403, "origin")
    assert server.ask("OPTIONS", "api/classify", headers={"Origin": origin}).status_code == 403


def test_the_same_origin_is_answered(server, video):
    assert server.classify(video, headers={"Origin": server.url.rstrip("/")}).status_code == 200


def test_beyond_this_machine_a_token_is_needed_and_names_must_be_allowed(tmp_path, clip_set, trained, video):
    flags = ["--host=0.0.0.0", "--allowed_hosts=Videos.example.org"]
    with running(tmp_path, clip_set, trained, *flags) as up:
        assert len(up.token) >= 32
        for path in ("health", "docs", "openapi.json"):
            assert up.ask("GET", path).status_code == 200
        for words in ({}, {"headers": {"Authorization": "Bearer x"}}, {"headers": {"Authorization": up.token}}):
            answer = up.classify(video, **words)
            assert error(answer)[:2] == (401, "token")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert up.ask("GET", "metrics", **words).status_code == 401
            assert up.ask("POST", "video-classification", json={}, **words).json()["errorCode"] == 401
        right = {"Authorization": f"Bearer {up.token}"}
        assert up.classify(video, headers=right).status_code == 200
        for host, status in (("videos.example.org", 200), ("192.0.2.1:80", 200), ("evil.example", 403)):
            assert up.ask("GET", "api/info", headers={**right, "Host": host}).status_code == status


def test_a_token_of_the_environment_is_asked_for_and_not_shown(tmp_path, clip_set, trained):
    with running(tmp_path, clip_set, trained, STNET_TOKEN="my-own.token") as up:
        assert up.token == ""
        assert "my-own" not in up.said + (tmp_path / "log").read_text()
        assert up.ask("GET", "api/info").status_code == 401
        assert up.ask("GET", "api/info", headers={"Authorization": "Bearer my-own.token"}).status_code == 200


def test_answers_end_connections_whose_request_is_not_read(server):
    status, answer = server.raw(head("/none", "Content-Length: 1000"))
    assert (status, answer["error"]["code"]) == (404, "http")
