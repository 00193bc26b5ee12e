"""Archives unpacked with every path, and every size, checked."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zlib
from typing import IO, cast

from stnet.utils.errors import UserError
from stnet.utils.files import StrPath

MAX_BYTES = 2 << 30
MAX_FILES = 10_000
_BLOCK = 1 << 16  # bytes of a read; a PAX or GNU header is one


def unpack(archive: StrPath, folder: StrPath, max_bytes: int = MAX_BYTES) -> None:
    """Unpack a tar archive, plain or gzipped, into an existing folder, and never outside it.

    Raises:
        UserError: it is not an archive or damaged, holds anything but files and folders inside `folder`, or more than
            `max_bytes` or MAX_FILES.
    """
    too_large = f"archive {archive} unpacks to more than {max_bytes} bytes or {MAX_FILES} files"
    try:
        with open(archive, "rb") as file:
            stream = gzip.GzipFile(fileobj=file) if file.read(2) == b"\x1f\x8b" else file
            file.seek(0)
            bounded = _Bounded(stream, max_bytes, too_large)
            with tarfile.TarFile(fileobj=cast(IO[bytes], bounded)) as tar:
                for count, member in enumerate(tar, start=1):
                    target = _target(member, folder, archive)
                    if count > MAX_FILES or not 0 <= member.size <= bounded.left:
                        raise UserError(too_large)
                    _extract(tar, member, target)
            while bounded.read(_BLOCK):  # to the checksum at the end of a compressed archive
                pass
    except (tarfile.TarError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise UserError(f"archive {archive} is damaged or no tar archive: {error}") from None
    except OSError as error:  # also gzip's errors
        raise UserError(f"archive {archive} cannot be unpacked: {error.strerror or error}") from None


class _Bounded:
    """Stream with limits for tarfile, which reads a header in one piece, however long it claims to be."""

    def __init__(self, stream: io.BufferedReader | gzip.GzipFile, max_bytes: int, too_large: str) -> None:
        self.stream, self.left, self.too_large = stream, max_bytes, too_large
        self.tell = stream.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _BLOCK:
            raise tarfile.ReadError(f"a header of {size} bytes")
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise UserError(self.too_large)
        return data

    def seek(self, position: int) -> None:
        """Seek forward, by reading."""
        if position < self.tell():
            raise tarfile.ReadError("it goes back")
        while self.tell() < position and self.read(min(_BLOCK, position - self.tell())):
            pass


def _target(member: tarfile.TarInfo, folder: StrPath, archive: StrPath) -> str:
    parts = member.name.split("/")
    if not (member.isfile() or member.isdir()) or member.issparse():  # a sparse file unpacks to more than it holds
        raise UserError(
            f"archive {archive}: {member.name!r} is no file or folder, but a link, a device or a sparse file"
        )
    if os.path.isabs(member.name) or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise UserError(f"archive {archive}: the path {member.name!r} leads out of the folder")
    return os.path.join(folder, *parts)


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: str) -> None:
    if member.isdir():
        os.makedirs(target, exist_ok=True)
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "xb") as out:
        source = cast(IO[bytes], tar.extractfile(member))  # None for folders alone
        while block := source.read(_BLOCK):
            out.write(block)
