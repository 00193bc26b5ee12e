"""Atomic writes: to a temporary name in the target's folder, synced, renamed."""

from __future__ import annotations

import contextlib
import csv
import ctypes
import errno
import fcntl
import io
import itertools
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from filelock import FileLock, Timeout

from stnet.utils.errors import UserError
from stnet.utils.files import StrPath, short_name

TEMPORARY = ".writing-"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's renameat2


def prepare_folder(path: StrPath) -> None:
    """Make a folder and check, before any long work, that files can be written there. Raises UserError."""
    try:
        os.makedirs(path, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"cannot write into {path}: {error.strerror or error}", "set --save_dir") from None


def check_name(path: StrPath) -> None:
    """Check, before any long work, that a file name is not too long. Raises UserError."""
    with os_errors_as_user_errors(path), contextlib.suppress(FileNotFoundError):
        os.lstat(path)


@contextlib.contextmanager
def os_errors_as_user_errors(path: StrPath) -> Iterator[None]:
    """Context that raises an OSError as a UserError about `path`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


def write_atomically(path: StrPath, write: Callable[[str], object]) -> None:
    """Write a file so that `path` never holds half of it; its folder is made if missing.

    Args:
        path: target.
        write: writes the temporary path that it is given.

    Raises:
        UserError: the folder cannot be written, or the disk is full; an older file is unchanged.
    """
    folder = os.path.dirname(os.path.abspath(path))
    with os_errors_as_user_errors(path):
        os.makedirs(folder, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=_temporary(os.path.basename(path)), dir=folder)
    try:
        _lock(handle)
        with os_errors_as_user_errors(path):
            write(temporary)
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~umask())
            os.replace(temporary, path)
            sync_folder(folder)
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)
        os.close(handle)


def write_text(path: StrPath, text: str) -> None:
    """Write text as UTF-8, atomically; bytes of file names that are not UTF-8 are escaped."""
    _write_lines(path, [text], "backslashreplace")


def write_json(path: StrPath, value: object) -> None:
    """Write plain data as JSON, atomically; null for numbers that are not finite, which JSON does not have."""
    write_text(path, json.dumps(finite(value), ensure_ascii=False, indent=1, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """Plain data with None for the numbers that are not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_csv(
    path: StrPath, header: Sequence[str], rows: Iterable[Sequence[Any]], errors: str = "backslashreplace"
) -> None:
    """Write a table as CSV in UTF-8, atomically; `errors`: as in open."""
    _write_lines(path, map(csv_line, itertools.chain([header], rows)), errors)


def _write_lines(path: StrPath, lines: Iterable[str], errors: str) -> None:
    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", errors=errors, newline="") as file:
            file.writelines(lines)

    write_atomically(path, write)


def csv_line(row: Sequence[Any]) -> str:
    """Format a row of a CSV file, ending with "\\n"; texts with a line end in them, "\\r" too, are quoted."""
    text = io.StringIO(newline="")
    csv.writer(text).writerow(row)  # with "\n" as its line end, it would not quote "\r"
    return text.getvalue()[:-2] + "\n"


@contextlib.contextmanager
def exclusive_lock(folder: StrPath) -> Iterator[None]:
    """Lock a folder for one run that trains, evaluates or packs into it, and remove partial files of killed runs.

    Raises:
        UserError: another run is writing there.
    """
    path = os.path.join(folder, ".training.lock")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=3)  # workers of a run just killed may hold it for a moment
    except Timeout:
        raise UserError(f"another run is writing into {folder}", "set --save_dir to a folder of its own") from None
    try:
        remove_leftovers(folder)
        yield
    finally:
        with contextlib.suppress(OSError):
            os.remove(path)
        lock.release()


def remove_leftovers(folder: StrPath, target: str = "") -> None:
    """Remove partial files of killed runs from a folder.

    Args:
        folder: where.
        target: name of the file that they were writing; "": any, and hidden folders, too, under `exclusive_lock`.
    """
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith(_temporary(target) if target else ".") and TEMPORARY in name:
            if not target and os.path.isdir(path):
                remove(path)
            elif os.path.isfile(path) and _is_abandoned(path):
                with contextlib.suppress(FileNotFoundError):  # its writer was between making and locking it
                    os.remove(path)


def _temporary(name: str) -> str:
    """Prefix of the temporary names of a file."""
    return f".{short_name(name)}{TEMPORARY}"


def _lock(handle: int) -> bool:
    """Lock an open file until it is closed or its process ends. False if it is locked, or cannot be."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_abandoned(path: StrPath) -> bool:
    """Check that no process, on this machine or on another that shares the folder, writes a temporary file."""
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return False
    try:
        return _lock(handle)
    finally:
        os.close(handle)


def remove(path: StrPath) -> None:
    """Delete a file, or a folder with all in it."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


def exchange(one: StrPath, other: StrPath) -> None:
    """Swap the names of two folders in one step. Raises OSError where the system or the file system cannot."""
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if library.renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def sync_folder(folder: StrPath) -> None:
    """Sync the names in a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def umask() -> int:
    """File mode mask of this process, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
