"""Uploads: streamed within limits into a private folder, under generated names, and always removed."""

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
from stnet.serve.limits import Refused, in_time
from stnet.utils.folders import lock, sweep

_PREFIX = "stnet-serve-"
_FORM_BYTES = 64 << 10  # of a form without the file


class UploadFolder:
    """Folder below the system's temporary one that only this user can open.

    It is locked while its server runs. The folder of a killed server is removed when the next one starts.

    Attributes:
        path: of the folder.
    """

    def __init__(self) -> None:
        sweep(f"{_PREFIX}*")
        self.path, self._lock = _make()

    def close(self) -> None:
        """Remove the folder with its files."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def _make() -> tuple[str, int]:
    """Make a new folder, and lock it."""
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX)
        handle = lock(path)
        if handle is not None and os.fstat(handle).st_nlink and os.path.isdir(path):
            return path, handle
        if handle is not None:
            os.close(handle)  # another server has swept it between the two steps


class Bounds(NamedTuple):
    """Limits of a body."""

    bytes: int
    seconds: float  # until all of it is received


@contextlib.asynccontextmanager
async def received(
    request: Request, folder: UploadFolder, bounds: Bounds, *, is_json: bool = False
) -> AsyncIterator[str]:
    """Write the upload into a file that lasts as long as the context, and give its path.

    The upload is the field `file` of multipart/form-data, or else the body. The client's file name is not used.

    Args:
        request: with the upload.
        folder: where the file is.
        bounds: of the file.
        is_json: take the body as it is, neither a form nor a video.

    Raises:
        Refused: 400, 408, 413 or 422.
        ClientDisconnect: the client left.
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
    """Value of Content-Length, 0 without it. h11 has checked that it is a number."""
    return int(request.headers.get("content-length") or 0)


async def _keep(request: Request, handle: int, boundary: bytes | None, bounds: Bounds, most: int) -> None:
    """Write the upload into an open file, and close it."""
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
