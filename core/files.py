"""Files that come from elsewhere: regular ones of a size that can be, opened without waiting."""

import hashlib
import os
import stat

_KINDS = {stat.S_IFIFO: "a fifo", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def read_regular(path, max_bytes):
    """The bytes of a regular file.

    Raises:
        ValueError: it is something else (a fifo or a device would block, or never end), or larger than `max_bytes`.
        OSError: it cannot be opened or read.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise ValueError(f"it is {_KINDS.get(stat.S_IFMT(about.st_mode), 'something')}, expected a file")
        if about.st_size > max_bytes:
            raise ValueError(f"it is of {about.st_size} bytes, more than the {max_bytes} that are read")
        return file.read(about.st_size)


def _open_without_waiting(path, flags):
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def sha256_of(path):
    """The SHA-256 of a file's content in hexadecimal digits, read piece by piece."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
