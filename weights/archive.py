"""Archives unpacked with every path checked."""

import lzma
import os
import tarfile
import zlib

from core.errors import UserError

MAX_BYTES = 2 << 30
MAX_FILES = 10_000


def unpack(archive, folder, max_bytes=MAX_BYTES):
    """Unpack a tar archive (plain, gzip, bzip2 or xz) into an existing folder.

    Raises:
        UserError: it is no archive, is damaged, or holds anything but files and folders inside `folder`, or
            more than `max_bytes` or MAX_FILES. Nothing outside `folder` is ever written.
    """
    try:
        with tarfile.open(archive) as tar:
            total = 0
            for count, member in enumerate(tar, start=1):
                target = _target(member, folder, archive)
                total += member.size
                if count > MAX_FILES or total > max_bytes:
                    raise UserError(f"archive {archive} unpacks to more than {max_bytes} bytes or {MAX_FILES} files")
                if member.isdir():
                    os.makedirs(target, exist_ok=True)
                    continue
                os.makedirs(os.path.dirname(target), exist_ok=True)
                _copy(tar.extractfile(member), target)
            while tar.fileobj.read(1 << 20):  # to the end, where a compressed archive has its checksum
                pass
    except (tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"archive {archive} is damaged or no tar archive: {error}") from None
    except OSError as error:  # gzip's errors are OSErrors, too
        raise UserError(f"archive {archive} cannot be unpacked: {error.strerror or error}") from None


def _target(member, folder, archive):
    parts = member.name.split("/")
    if not (member.isfile() or member.isdir()):
        raise UserError(f"archive {archive}: {member.name!r} is a link or a device; only files and folders are allowed")
    if os.path.isabs(member.name) or ".." in parts or "\\" in member.name or "\0" in member.name:
        raise UserError(f"archive {archive}: the path {member.name!r} leads out of the folder")
    return os.path.join(folder, *parts)


def _copy(source, target):
    with open(target, "xb") as out:
        while True:
            block = source.read(1 << 20)
            if not block:
                return
            out.write(block)
