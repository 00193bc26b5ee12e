"""The server as a process of its own, and clients that behave and that do not."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

httpx = pytest.importorskip("httpx", reason="bash run.sh setup test serve installs what talks to a server")
pytest.importorskip("fastapi_offline", reason="bash run.sh setup serve installs what a server needs")

PROJECT = Path(__file__).parents[2]
PATIENCE = 30  # seconds that anything may take


class Running:
    """A server that is up.

    Attributes:
        process: its.
        uploads: the folder in which its private folder lies.
        url: as it prints it, without a token.
        token: that it prints, or "".
    """

    def __init__(self, process, uploads, said):
        self.process, self.uploads, self.said = process, uploads, said
        self.url, _, self.token = said.split()[-1].partition("#token=")
        self.port = httpx.URL(self.url).port

    def ask(self, method, path, **words):
        """The answer to a request."""
        return httpx.request(method, self.url + path.lstrip("/"), timeout=PATIENCE, **words)

    def classify(self, content, **words):
        """The answer to a video, as the field of a form."""
        name = words.pop("name", "a.mp4")
        return self.ask("POST", "api/classify", files={"file": (name, content, "video/mp4")}, **words)

    def raw(self, data, then=lambda connection: None):
        """(status, answer) of bytes that are sent as they are; `then` goes on with the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
            with contextlib.suppress(OSError):  # it may be closed while it still sends
                connection.sendall(data)
                then(connection)
            return answer_of(connection)

    def left(self):
        """Files in the private folder."""
        (folder,) = self.uploads.glob("stnet-serve-*")
        assert folder.stat().st_mode & 0o777 == 0o700
        return list(folder.iterdir())

    def is_empty_soon(self):
        """Whether the private folder is empty, at once or after what still runs."""
        return soon(lambda: not self.left())

    def stop(self):
        """The exit code after SIGTERM."""
        self.process.terminate()
        return self.process.wait(PATIENCE)


def soon(holds):
    """Whether something comes to hold."""
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def answer_of(connection):
    """(status, content) of the one answer that a connection still gives."""
    received = b""
    with contextlib.suppress(OSError):
        while piece := connection.recv(65536):
            received += piece
            head, _, body = received.partition(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            if length and len(body) >= int(length[0].split(b":")[1]):
                break
    head, _, body = received.partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head else 0
    return status, json.loads(body) if body.startswith(b"{") else body


@contextlib.contextmanager
def running(folder, clip_set, trained, *flags, **variables):
    """A server of the tiny model on a free port; its temporary files go to `folder`."""
    start = [sys.executable, PROJECT / "serve_model.py", "--config", clip_set / "tiny.yaml"]
    own = ["--engine=paddle", "--weights", trained / "STNET_final.pdparams", "--port=0", "--decoders=1"]
    with started([*start, *own, *flags], folder, **variables) as up:
        yield up


@contextlib.contextmanager
def started(words, folder, **variables):
    """A server that a command starts; its temporary files and its log go to `folder`."""
    made = {**os.environ, "TMPDIR": str(folder), **variables}
    with open(folder / "log", "ab") as log:
        process = subprocess.Popen(
            list(map(str, words)),
            stdout=subprocess.PIPE,
            stderr=log,
            env=made,
            cwd=folder,
            text=True,
        )
    try:
        said = process.stdout.readline()
        assert said, (folder / "log").read_text()
        yield Running(process, folder, said)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        process.stdout.close()


def head(path, *lines):
    """The head of a POST request."""
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode()
