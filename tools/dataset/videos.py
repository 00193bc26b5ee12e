"""Videos of a data set: find them below a folder, and check which can be used."""

from __future__ import annotations

import functools
import os
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from stnet.reader import lists
from stnet.reader.containers import opened
from stnet.reader.errors import ClipError, CorruptVideo, decoded
from stnet.utils.errors import UserError
from stnet.utils.progress import Progress


class Entry(NamedTuple):
    """One clip of a data set."""

    part: str  # train, val or test; all: not split yet
    name: str  # in the data set
    path: str  # empty: no file found
    label: int  # -1: none given


class FoundClips(NamedTuple):
    """Entries by the state of their files."""

    present: list[Entry]
    missing: list[Entry]
    unreadable: list[tuple[Entry, str]]  # with the reason


@functools.lru_cache(maxsize=10000)
def plain(label: str) -> str:
    """Normalize a class name: without case, spaces, underscores and other punctuation."""
    text = unicodedata.normalize("NFKC", label).casefold()
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c)[0] != "P") or text


def shown(text: str) -> str:
    """Escape bytes that are not UTF-8, so that the text can be printed and saved."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def find_videos(folder: str) -> list[str]:
    """Absolute paths of all video files below a folder, as stnet.reader.lists.find_videos finds them.

    Raises:
        UserError: no such folder, or no video in it.
    """
    if not os.path.isdir(folder):
        raise UserError(f"--videos {folder}: no such folder")
    videos = lists.find_videos(os.path.abspath(folder))
    if not videos:
        raise UserError(f"--videos {folder}: expected video files ({' '.join(lists.VIDEO_SUFFIXES)}), found none")
    return videos


class VideoIndex:
    """The videos below a folder, by file name without suffix.

    Raises:
        UserError: no such folder, or no video in it.
    """

    def __init__(self, folder: str) -> None:
        self.root = os.path.abspath(folder)
        self.paths = find_videos(folder)
        self.by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            stem = os.path.splitext(os.path.basename(path))[0]
            self.by_stem[unicodedata.normalize("NFC", stem)].append(path)

    def find(
        self, stem: str, label: str = "", part: str = "", classes: Collection[str] = (), inside: bool = False
    ) -> str:
        """Find the file of a clip; of several, one in its class's folder, not empty, in its split's folder, no GIF.

        Args:
            stem: file name without suffix.
            label: class name, in any spelling.
            part: train, val or test, with which a folder's name begins, as train_256.
            classes: plain() names of all classes; a file in another class's folder is then not taken.
            inside: only take a file below the class's folder.

        Returns:
            Absolute path, or "" if there is none.
        """
        own, ranked = plain(label), []
        candidates = self.by_stem.get(unicodedata.normalize("NFC", stem), ())
        for path in candidates:
            folders = self.folders(path)
            foreign = bool(folders) and folders[-1] in classes and folders[-1] != own
            if not foreign and (own in folders or not inside):
                empty = len(candidates) > 1 and not (os.path.exists(path) and os.path.getsize(path))
                in_part = any(name.startswith(part) for name in folders)
                is_preview = path.lower().endswith(".gif")
                ranked.append((own not in folders, empty, not in_part, is_preview, path))
        return min(ranked)[-1] if ranked else ""

    def folders(self, path: str) -> list[str]:
        """plain() names of the folders between the root and a file, outermost first."""
        return [plain(name) for name in os.path.relpath(path, self.root).split(os.sep)[:-1]]


def check_files(entries: Sequence[Entry], probe: bool = False) -> FoundClips:
    """Sort entries by whether they have a file that can be used.

    Args:
        entries: the clips.
        probe: also open each file and decode one frame; otherwise only its size is checked.

    Returns:
        FoundClips, each in the order of the entries.
    """
    here = [entry for entry in entries if entry.path]
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        results = pool.map(lambda entry: _problem(entry.path, probe), here)
        problems = list(_counted(results, len(here)) if probe else results)
    return FoundClips(
        present=[entry for entry, problem in zip(here, problems) if not problem],
        missing=[entry for entry in entries if not entry.path],
        unreadable=[(entry, problem) for entry, problem in zip(here, problems) if problem],
    )


def _counted(results: Iterable[str], total: int) -> Iterator[str]:
    progress = Progress(total, "probe", total, max(100, total // 20))
    try:
        for result in results:
            progress.update(1)
            yield result
    finally:
        progress.close()


def _problem(path: str, probe: bool) -> str:
    """Reason why a file cannot be used, in a few words; empty if it can."""
    if "\n" in path or "\r" in path:
        return "a line break in its path, which a list cannot hold"
    if shown(path) != path:
        return "its path is not UTF-8"
    try:
        if not os.path.isfile(path):
            return "a broken link, or no file"
        if os.path.getsize(path) == 0:
            return "the file is empty (0 bytes)"
        if not os.access(path, os.R_OK):
            return "no permission to read it"
    except OSError as error:
        return error.strerror or str(error)
    if not probe:
        return ""
    try:
        with opened(path) as (container, stream):
            return "" if next(decoded(container.decode(stream)), None) else "no frame can be decoded"
    except ClipError as error:
        return str(error)
    except CorruptVideo as error:
        return f"no frame can be decoded ({error})"
