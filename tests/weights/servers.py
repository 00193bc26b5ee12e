"""A local HTTP server that misbehaves as told."""

import hashlib
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves `files` (name -> bytes).

    Attributes:
        behaviours: what the next requests get, in turn, "well" when the list is used up: a status as int, "stall",
            "cut" (half of the bytes, then the end), "long" (announces more than it sends), "short" (announces and
            sends half), "two thirds" (likewise), "silent" (never answers), "changed" (cut, and from then on the file
            is the one in `later`), "elsewhere" (a range, but not the one that was asked for), "no length" (the end of
            the connection is the end of the file), "drip" (a few bytes at a time).
        ranges: whether Range requests are answered with 206.
        tags: whether answers have an ETag.
        vouches: whether If-Range is looked at.
        asked: (path, Range header) of every request.
    """

    def __init__(self, files):
        self.files, self.behaviours, self.ranges, self.asked = files, [], True, []
        self.tags, self.vouches, self.later = True, True, None
        handler = type("Handler", (_Handler,), {"server_state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def __enter__(self):
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_state = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        state = self.server_state
        state.asked.append((self.path, self.headers.get("Range")))
        behaviour = state.behaviours.pop(0) if state.behaviours else "well"
        data = state.files.get(self.path.lstrip("/"))
        if behaviour == "silent":
            time.sleep(1)
            return
        if data is None or isinstance(behaviour, int):
            self.send_error(behaviour if isinstance(behaviour, int) else 404)
            return
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") if state.ranges else None
        if state.vouches and self.headers.get("If-Range") not in (None, tag):
            start = None
        first = int(start.group(1)) if start else 0
        if start and first >= len(data):
            self.send_error(416)
            return
        if behaviour == "elsewhere":
            first -= 1
        self.answer(behaviour, data, tag, first, bool(start))

    def answer(self, behaviour, data, tag, first, is_range):
        state, body = self.server_state, data[first:]
        sent = {"two thirds": 2 / 3, "cut": 1 / 2, "short": 1 / 2, "stall": 1 / 2, "changed": 1 / 2}.get(behaviour, 1)
        part = body[: int(len(body) * sent)]
        self.send_response(206 if is_range else 200)
        if state.tags:
            self.send_header("ETag", tag)
        if is_range:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        announced = {"long": len(body) + 1000, "short": len(part), "two thirds": len(part)}.get(behaviour, len(body))
        if behaviour != "no length":
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        if behaviour == "changed":
            state.files = state.later
        if behaviour == "drip":
            self.drip(part)
            return
        self.wfile.write(part)
        if behaviour == "stall":
            self.wfile.flush()
            time.sleep(3)

    def drip(self, data):
        try:
            for i in range(0, len(data), 10):
                self.wfile.write(data[i : i + 10])
                time.sleep(0.05)
        except OSError:
            pass  # the other side gave up
