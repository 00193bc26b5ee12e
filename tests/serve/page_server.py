"""A server of the page whose answers a test writes, for what no real one says on demand."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

PAGE = Path(__file__).parents[2] / "stnet" / "serve" / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
INFO = {
    "model": "STNET",
    "version": "0.2.0",
    "num_classes": 6,
    "topk": 3,
    "seg_num": 3,
    "seglen": 5,
    "precision": "float32",
    "has_shares": True,
    "has_timeline": True,
    "limits": {"bytes": 100_000_000, "seconds": 600, "frames": 100_000, "pixels": 10_000_000, "request_seconds": 60},
    "timeline": {"window": 1.0, "stride": 0.5, "threshold": 0.8, "hold": 0.5},
}


class Answer(NamedTuple):
    """What is said to one upload: a status and an object, or lines, each after the pause that stands before it."""

    status: int = 200
    said: object = ()  # with 200: dicts (lines) and seconds (pauses); otherwise the body
    headers: dict[str, str] = {}


def refusal(status, message, **headers):
    return Answer(status, {"error": {"code": "refused", "message": message}}, headers)


def lines(*said):
    return Answer(200, said)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, status, kind, body, headers=()):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Security-Policy": CSP, **dict(headers)}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def reply_json(self, status, value, headers=()):
        self.reply(status, "application/json", json.dumps(value).encode(), headers)

    def may(self):
        token = self.server.token
        if not token or self.headers.get("Authorization") == f"Bearer {token}":
            return True
        self.reply_json(401, {"error": {"code": "token", "message": "a token is needed"}})
        return False

    def do_GET(self):
        if self.path == "/api/info":
            if self.may():
                self.reply_json(200, self.server.info)
            return
        path = PAGE / (self.path[len("/static/") :] if self.path.startswith("/static/") else "index.html")
        self.reply(200, TYPES[path.suffix], path.read_bytes())

    def do_POST(self):
        self.server.bodies.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        if not self.may():
            return
        answer = self.server.answers.pop(0)
        if answer.status != 200:
            self.reply_json(answer.status, answer.said, answer.headers)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.end_headers()
        with contextlib.suppress(OSError):  # the page may have gone
            for said in answer.said:
                if isinstance(said, threading.Event):
                    said.wait(20)
                else:
                    self.wfile.write(json.dumps(said).encode() + b"\n")
                    self.wfile.flush()


@contextlib.contextmanager
def page_server(*answers, token="", port=0, **info):
    """A server that gives these answers to uploads, one after the other.

    Yields it: `bodies` are the uploads, `url` is the page.
    """
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.answers, server.token, server.bodies = list(answers), token, []
    server.info = {**INFO, **info}
    server.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
