"""Uploads: streamed into a private folder under names of our own, within limits, and gone whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from typing import BinaryIO, NamedTuple

from starlette.requests import Request

from stnet.serve.forms import FormSink, boundary_of
from stnet.serve.limits import Refused
from stnet.serve.waiting import in_time
from stnet.utils.folders import lock, sweep

_PREFIX = "stnet-serve-"
_FORM_BYTES = 64 << 10  # what a form may have around the file


class UploadFolder:
    """A folder that only this user can open, below the system's temporary one.

    It is locked while its server lives. What a killed one left is removed when the next one starts.

    Attributes:
        path: of the folder.
    """

    def __init__(self) -> None:
        sweep(f"{_PREFIX}*")
        self.path, self._lock = _make()

    def close(self) -> None:
        """Remove the folder and what is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _make() -> tuple[str, int]:
    """A new folder and its lock."""
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX)
        handle = lock(path)
        if handle is not None and os.fstat(handle).st_nlink and os.path.isdir(path):
            return path, handle
        if handle is not None:
            os.close(handle)  # another server has swept it between the two steps


class Bounds(NamedTuple):
    """What a body may be."""

    bytes: int
    seconds: float  # until it is all there


@contextlib.asynccontextmanager
async def received(
    request: Request, folder: UploadFolder, bounds: Bounds, *, is_json: bool = False
) -> AsyncIterator[str]:
    """The path of a file that holds the upload, for as long as the context lasts.

    The upload is the field `file` of multipart/form-data, or else the body. A name that a client gives is not read.

    Args:
        request: with the upload.
        folder: where the file is.
        bounds: of the file.
        is_json: whether the body is taken as it is, and is neither a form nor a video.

    Raises:
        Refused: 400, 408, 413 or 422.
        ClientDisconnect: the client went away.
    """
    boundary = None if is_json else boundary_of(request)
    most = bounds.bytes + (_FORM_BYTES if boundary else 0)
    if declared_length(request) > most:
        raise _too_large(bounds)
    try:
        handle, path = tempfile.mkstemp(dir=folder.path)
    except OSError as error:
        raise _no_space(error) from None
    try:
        await _keep(request, handle, boundary, bounds, most)
        if not os.path.getsize(path):
            raise Refused(422, "empty", "the upload is empty: 0 bytes")
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def declared_length(request: Request) -> int:
    """Bytes that Content-Length announces, 0 without it. The protocol has looked at its form."""
    return int(request.headers.get("content-length") or 0)


async def _keep(request: Request, handle: int, boundary: bytes | None, bounds: Bounds, most: int) -> None:
    """Write the upload into an open file, which is closed."""
    try:
        with os.fdopen(handle, "wb") as file:
            await in_time(_fill(request, file, boundary, bounds, most), bounds.seconds)
    except asyncio.TimeoutError:  # which is an OSError since Python 3.11
        raise Refused(408, "slow_body", f"the upload was not there after {bounds.seconds:g} seconds") from None
    except OSError as error:
        raise _no_space(error) from None


async def _fill(request: Request, file: BinaryIO, boundary: bytes | None, bounds: Bounds, most: int) -> None:
    form = FormSink(boundary, file) if boundary else None
    read = 0
    async for chunk in request.stream():
        read += len(chunk)
        if read > most:
            raise _too_large(bounds)
        (form or file).write(chunk)
        if file.tell() > bounds.bytes:
            raise _too_large(bounds)
    if form:
        form.finish()


def _no_space(error: OSError) -> Refused:
    return Refused(503, "no_space", f"the server could not keep the upload: {error.strerror}", retry_after=60)


def _too_large(bounds: Bounds) -> Refused:
    return Refused(413, "too_large", f"the upload is larger than the {bounds.bytes} bytes that are taken")
