"""Clips of a list whose content another list holds, too, under whatever name: training clips in a validation list."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from stnet.tools.dataset.findings import Record, read_entries
from stnet.utils.errors import MAKE_LISTS, UserError
from stnet.utils.files import sha256_of


def lists_to_compare(checked: str, against: Sequence[str], training: str, mode: str) -> list[str]:
    """The lists whose content must not be in the one that is checked.

    Args:
        checked: the list.
        against: what --against names.
        training: TRAIN.filelist; it counts without --against, in modes valid and test, if it is there.
        mode: of the check.

    Raises:
        UserError: a list of --against is not there.
    """
    missing = [path for path in against if not os.path.isfile(path)]
    if missing:
        raise UserError(f"list file not found: {missing[0]}", MAKE_LISTS)
    paths = against or ([training] if mode in ("valid", "test") and os.path.isfile(training) else [])
    return [path for path in paths if not os.path.samefile(path, checked)]


def content_elsewhere(lists: Iterable[str], format: str, records: Mapping[str, Record], workers: int) -> dict[str, str]:
    """SHA-256 -> "line N of LIST: PATH" of content that other lists share with files that were looked at.

    Only files of a size that one of these has are read.

    Args:
        lists: the other lists.
        format: of their clips.
        records: of the files that were looked at, see tools.dataset.check.examine.
        workers: threads that read.

    Raises:
        UserError: a list cannot be read, or is empty.
    """
    sizes = {_size(file) for file, record in records.items() if record["sha256"]}
    hashes = {record["sha256"] for record in records.values()}
    found: dict[str, str] = {}
    for filelist in lists:
        others = [entry for entry in read_entries(filelist, format, True, None) if _size(entry.file) in sizes]
        with ThreadPoolExecutor(workers) as pool:
            digests = pool.map(lambda entry: _digest(entry.file), others)
            for entry, digest in zip(others, digests):
                if digest in hashes:
                    found.setdefault(digest, f"line {entry.number} of {filelist}: {entry.path}")
    return found


def _size(file: str) -> int:
    """Bytes of a file; 0 where there is none."""
    return os.path.getsize(file) if os.path.isfile(file) else 0


def _digest(file: str) -> str:
    try:
        return sha256_of(file)
    except OSError:
        return "unreadable"
