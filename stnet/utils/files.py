"""Untrusted files, read within limits; digests, names and paths."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Union

logger = logging.getLogger("stnet")

StrPath = Union[str, "os.PathLike[str]"]
LONGEST = 235  # bytes of a name, with room for prefix and suffix: file systems take 255
_SPAN = re.compile(r" \[[\d.e+-]+-[\d.e+-]+ s\]\Z")  # as stnet.reader.spans names a part of a video
_KINDS = {stat.S_IFIFO: "a fifo", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFSOCK: "a socket"}


def read_regular(path: StrPath, max_bytes: int) -> bytes:
    """Read a regular file.

    Raises:
        ValueError: it is a fifo, a device or other, which could block or never end, or larger than `max_bytes`.
        OSError: it cannot be opened or read.
    """
    no_waiting = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | no_waiting)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"it is {_KINDS.get(stat.S_IFMT(status.st_mode), 'something')}, expected a file")
        if status.st_size > max_bytes:
            raise ValueError(f"it is of {status.st_size} bytes, more than the {max_bytes} that are read")
        return file.read(status.st_size)


def sha256_of(path: StrPath) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def short_name(name: str) -> str:
    """Shorten a name to at most LONGEST bytes: its beginning, and a digest of all of it."""
    content = os.fsencode(name)
    if len(content) <= LONGEST:
        return name
    mark = f"-{hashlib.sha256(content).hexdigest()[:8]}"
    while len(os.fsencode(name)) > LONGEST - len(mark):
        name = name[:-1]  # whole characters
    return name + mark


def stem_of(path: StrPath) -> str:
    """Name of a file without suffix, shortened by `short_name`; `a [3-5.5 s]` for the span `a.mp4 [3-5.5 s]`."""
    name = os.path.basename(path)
    span = _SPAN.search(name)
    file, text = (name[: span.start()], span.group()) if span else (name, "")
    return short_name(os.path.splitext(file)[0] + text)


def unique_stems(paths: Sequence[StrPath]) -> list[str]:
    """`stem_of` each path, with -2, -3, ... appended where that is taken."""
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
    """Yield (folder, names of its files and hidden folders) for a folder and all below it but hidden ones.

    Links to folders are followed after all others, and each folder comes once, so that loops of links end. The log
    names the links and unreadable folders that are left out.
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
    candidates = [path, *(os.path.join(folder, path) for folder in folders)]  # an absolute path stays as it is
    return next(filter(os.path.exists, candidates), path)


def file_in(path: StrPath, video: str | None, *suffixes: str) -> str:
    """`path`, if it ends with one of the suffixes; else a file in the folder `path`, named after the video."""
    text = os.fspath(path)
    if text.lower().endswith(suffixes) and not os.path.isdir(text):
        return text
    return os.path.join(text, stem_of(video or "clip") + suffixes[0])
