"""Files that come from elsewhere: regular ones of a size that can be, opened without waiting."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Union

logger = logging.getLogger("stnet")

StrPath = Union[str, "os.PathLike[str]"]
LONGEST = 235  # bytes of a name, which leave room for what is put around it: file systems take 255
_KINDS = {stat.S_IFIFO: "a fifo", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def read_regular(path: StrPath, max_bytes: int) -> bytes:
    """The bytes of a regular file.

    Raises:
        ValueError: it is something else (a fifo or a device would block, or never end), or larger than `max_bytes`.
        OSError: it cannot be opened or read.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something')}, expected a file")
        if status.st_size > max_bytes:
            raise ValueError(f"it is of {status.st_size} bytes, more than the {max_bytes} that are read")
        return file.read(status.st_size)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))


def sha256_of(path: StrPath) -> str:
    """The SHA-256 of a file's content in hexadecimal digits, read piece by piece."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def short_name(name: str) -> str:
    """A name of at most LONGEST bytes: of a longer one its beginning, and a digest of all of it."""
    content = os.fsencode(name)
    if len(content) <= LONGEST:
        return name
    mark = f"-{hashlib.sha256(content).hexdigest()[:8]}"
    while len(os.fsencode(name)) > LONGEST - len(mark):
        name = name[:-1]  # whole characters
    return name + mark


def stem_of(path: StrPath) -> str:
    """What the files that are made of a file are called: its name without suffix, shortened by `short_name`."""
    return short_name(os.path.splitext(os.path.basename(path))[0])


def unique_stems(paths: Sequence[StrPath]) -> list[str]:
    """`stem_of` each path, with -2, -3, ... behind it where that is taken."""
    stems: dict[str, int] = {}  # taken -> number of the next one
    names = []
    for path in paths:
        stem = name = stem_of(path)
        while name in stems:
            stems[stem] += 1
            name = f"{stem}-{stems[stem]}"
        stems[name] = 1
        names.append(name)
    return names


def walk(root: str) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of its files and hidden folders) of a folder and all below it but hidden ones.

    Links to folders are followed after all others, and each folder comes once, under its first name, so that loops of
    links end. The log says what is left out for that, and which folders cannot be read.
    """
    waiting, seen = deque([root]), set()
    while waiting:
        here = waiting.popleft()
        real = os.path.realpath(here)
        if real in seen:
            logger.info("%s is left out: the folder that it links to is there already", here)
            continue
        seen.add(real)
        try:
            names = sorted(os.listdir(here))
        except OSError as error:
            logger.warning("%s is left out: %s", here, error.strerror or error)
            continue
        folders = {name for name in names if name[0] != "." and os.path.isdir(os.path.join(here, name))}
        yield here, [name for name in names if name not in folders]
        paths = [os.path.join(here, name) for name in sorted(folders)]
        waiting.extendleft(path for path in reversed(paths) if not os.path.islink(path))
        waiting.extend(path for path in paths if os.path.islink(path))


def find_file(path: str, *folders: str) -> str:
    """`path` itself if it exists or is absolute, else the first existing `folder/path`, else `path`."""
    if os.path.isabs(path) or os.path.exists(path):
        return path
    for folder in folders:
        candidate = os.path.join(folder, path)
        if os.path.exists(candidate):
            return candidate
    return path


def file_in(path: StrPath, video: str | None, *suffixes: str) -> str:
    """`path`, if it ends with one of the suffixes; else that of a file in the folder `path`, called like the video."""
    text = os.fspath(path)
    if text.lower().endswith(suffixes) and not os.path.isdir(text):
        return text
    return os.path.join(text, stem_of(video or "clip") + suffixes[0])
