"""Streaming parser of multipart/form-data that keeps the field `file` only."""

from __future__ import annotations

from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from stnet.serve.limits import Refused

FIELD = b"file"
_MOST_PARTS = 16
_HEAD_BYTES = 8192  # of a part's headers together
_RAW_TYPES = ("", "application/octet-stream", "binary/octet-stream")


def boundary_of(request: Request) -> bytes | None:
    """Boundary of a form's parts; None where the body is the upload. Raises Refused(415) for any other type."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    name = kind.decode("latin-1")
    if name == "multipart/form-data":
        boundary = options.get(b"boundary", b"")
        if not 0 < len(boundary) <= 200:
            raise Refused(400, "form", "multipart/form-data without a boundary of 1 to 200 characters")
        return boundary
    if name in _RAW_TYPES or name.startswith("video/"):
        return None
    message = "expected a form with a field 'file' (multipart/form-data), or the video as the body (video/*)"
    raise Refused(415, "media_type", f"{message}, found Content-Type {name[:80]!r}")


class FormSink:
    """Sink that writes the field `file` of a form into a file, and skips other fields.

    Args:
        boundary: of the parts.
        file: open for writing.
    """

    def __init__(self, boundary: bytes, file: BinaryIO) -> None:
        self._file = file
        self._parts = self._head_bytes = 0
        self._field = self._value = self._disposition = b""
        self._takes = self._has_taken = self._has_ended = False
        callbacks = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data", "end")
        self._parser = MultipartParser(boundary, {f"on_{name}": getattr(self, f"_{name}") for name in callbacks})  # type: ignore[arg-type]

    def write(self, data: bytes) -> None:
        """Parse the next chunk of the body. Raises Refused(400)."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Refused(400, "form", f"the form cannot be read: {error}"[:200]) from None

    def finish(self) -> None:
        """Check the end of the body. Raises Refused(400): too early, or without the field."""
        if not self._has_ended:
            raise Refused(400, "form", "the form ends before its last boundary")
        if not self._has_taken:
            raise Refused(400, "form", "the form has no field 'file'")

    def _part_begin(self) -> None:
        self._parts += 1
        self._head_bytes, self._disposition = 0, b""
        if self._parts > _MOST_PARTS:
            raise Refused(400, "form", f"the form has more than {_MOST_PARTS} parts")

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._value += data[start:end]

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _HEAD_BYTES:
            raise Refused(400, "form", f"a part of the form has headers of more than {_HEAD_BYTES} bytes")

    def _header_end(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._head_bytes += 2
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._takes = options.get(b"name") == FIELD
        if self._takes and self._has_taken:
            raise Refused(400, "form", "the form has the field 'file' twice: one video a request")
        self._has_taken |= self._takes

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._takes:
            self._file.write(data[start:end])

    def _end(self) -> None:
        self._has_ended = True
