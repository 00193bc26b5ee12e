"""Uploads: streamed within limits into a private folder, under generated names, and always removed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from stnet.serve.limits import Refused, in_time
from stnet.utils.folders import lock, sweep

FIELD = b"file"
_PREFIX = "stnet-serve-"
_FORM_BYTES = 64 << 10  # of a form without the file
_MOST_PARTS = 16
_HEAD_BYTES = 8192  # of a part's headers together
_RAW_TYPES = ("", "application/octet-stream", "binary/octet-stream")


class UploadFolder:
    """Folder below the system's temporary one that only this user can open.

    It is locked while its server runs. The folder of a killed server is removed when the next one starts.

    Attributes:
        path: of the folder.
    """

    def __init__(self) -> None:
        sweep(f"{_PREFIX}*")
        while True:
            self.path = tempfile.mkdtemp(prefix=_PREFIX)
            handle = lock(self.path)
            if handle is not None and os.fstat(handle).st_nlink and os.path.isdir(self.path):
                self._lock = handle
                return
            if handle is not None:
                os.close(handle)  # another server has swept it between the two steps

    def close(self) -> None:
        """Remove the folder with its files."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


@contextlib.asynccontextmanager
async def received(
    request: Request, folder: UploadFolder, max_bytes: int, seconds: float, *, is_json: bool = False
) -> AsyncIterator[str]:
    """Write the upload into a file that lasts as long as the context, and give its path.

    The upload is the field `file` of multipart/form-data, or else the body. The client's file name is not used.

    Args:
        request: with the upload.
        folder: where the file is.
        max_bytes: of the file.
        seconds: timeout of the whole body.
        is_json: take the body as it is, neither a form nor a video.

    Raises:
        Refused: 400, 408, 413, 422 or 503.
        ClientDisconnect: the client left.
    """
    boundary = None if is_json else boundary_of(request)
    body_bytes = max_bytes + (_FORM_BYTES if boundary else 0)
    if int(request.headers.get("content-length") or 0) > body_bytes:  # h11 has checked that it is a number
        raise too_large(max_bytes)
    with _errors_as_refusals(seconds):
        handle, path = tempfile.mkstemp(dir=folder.path)
    try:
        with _errors_as_refusals(seconds), os.fdopen(handle, "wb") as file:
            await in_time(_write(request, file, boundary, max_bytes, body_bytes), seconds)
        if not os.path.getsize(path):
            raise Refused(422, "empty", "the upload is empty: 0 bytes")
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


async def _write(request: Request, file: BinaryIO, boundary: bytes | None, max_bytes: int, body_bytes: int) -> None:
    form = FormSink(boundary, file) if boundary else None
    read = 0
    async for chunk in request.stream():
        read += len(chunk)
        if read > body_bytes:
            raise too_large(max_bytes)
        (form or file).write(chunk)
        if file.tell() > max_bytes:
            raise too_large(max_bytes)
    if form:
        form.finish()


@contextlib.contextmanager
def _errors_as_refusals(seconds: float) -> Iterator[None]:
    """Context that raises a timeout, or an OSError of writing, as Refused."""
    try:
        yield
    except asyncio.TimeoutError:  # which is an OSError since Python 3.11
        raise Refused(408, "slow_body", f"the upload was not there after {seconds:g} seconds") from None
    except OSError as error:
        reason = f"the server could not keep the upload: {error.strerror}"
        raise Refused(503, "no_space", reason, retry_after=60) from None


def too_large(max_bytes: int) -> Refused:
    """Refusal of an upload of more bytes."""
    return Refused(413, "too_large", f"the upload is larger than the {max_bytes} bytes that are taken")


# Forms ----------------------------------------------------------------------------------------------------------


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
    """Streaming parser of multipart/form-data that writes the field `file` into a file, and skips other fields.

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
