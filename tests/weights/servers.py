"""A local HTTP server that misbehaves as told."""

import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Serves `files` (name -> bytes).

    Attributes:
        behaviours: what the next requests get, in turn, "well" when the list is used up: a status as int, "stall",
            "cut" (half of the bytes, then the end), "long" (announces more than it sends), "short" (announces and
            sends half), "two thirds" (likewise), "silent" (never answers).
        ranges: whether Range requests are answered with 206.
        asked: (path, Range header) of every request.
    """

    def __init__(self, files):
        self.files, self.behaviours, self.ranges, self.asked = files, [], True, []
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
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range") or "") if state.ranges else None
        first = int(start.group(1)) if start else 0
        if start and first >= len(data):
            self.send_error(416)
            return
        body = data[first:]
        half = body[: len(body) // 2]
        if behaviour == "two thirds":
            half = body[: len(body) * 2 // 3]
        announced = {"long": len(body) + 1000, "short": len(half), "two thirds": len(half)}.get(behaviour, len(body))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(announced))
        self.end_headers()
        self.wfile.write(half if behaviour in ("cut", "short", "two thirds", "stall") else body)
        if behaviour == "stall":
            self.wfile.flush()
            time.sleep(3)
