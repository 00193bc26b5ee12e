"""Cache of exports in the weights' folder."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import inspect
import json
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import paddle
from filelock import FileLock, Timeout

from stnet import runtime
from stnet.utils.files import read_regular, sha256_of
from stnet.weights.download import weights_home

logger = logging.getLogger("stnet")
_KEPT = 8  # exports; one of 50 layers takes 130 to 150 MB, and each task (eval, predict, features, ...) has its own
_FORMAT = 4  # raised when the same network is exported in another way
_RECORD = "sha256.json"  # of each export; written last


def cached_export(
    network: paddle.nn.Layer, dependencies: list, write: Callable[[str], None], digest: str = "", kind: str = "exports"
) -> str:
    """Return the folder of an export, made by `write(folder)` if it is missing or damaged.

    It lies in ~/.paddle/weights/KIND, named by the weights, `dependencies`, Paddle's version and the processor. Several
    processes may ask at once. Each kind keeps its most recently used exports. Where the folder is not writable, or
    others may write into it, a temporary one is used that ends with the process.

    Args:
        network: whose weights the export holds.
        dependencies: plain data on which the export depends besides.
        write: writes the files into a folder; what it raises is passed on, and nothing is kept.
        digest: SHA-256 of the file from which the weights were read, if they are unchanged.
        kind: name of the folder.
    """

    def write_export(folder: str) -> int:
        write(folder)
        return 0

    with export_cache_of(network, [dependencies], digest, kind) as cached:
        if not cached.is_whole(0):
            if os.path.exists(cached.folders[0]):
                logger.warning("the export in %s is damaged, or half made; making it again", cached.folders[0])
            cached.make(write_export)
        return cached.use(0)


class ExportCache:
    """Cache entries that no other process checks, makes or removes meanwhile.

    Attributes:
        folders: of the entries, existing or not.
    """

    def __init__(self, root: str, names: Sequence[str]) -> None:
        self.root, self.folders = root, [os.path.join(root, name) for name in names]

    def is_whole(self, entry: int) -> bool:
        """Return True if an export is there with unchanged files."""
        folder = self.folders[entry]
        try:
            known = json.loads(read_regular(os.path.join(folder, _RECORD), 1 << 20))
            return not os.path.islink(folder) and known == _record(folder, os.path.basename(folder))
        except (OSError, ValueError, RecursionError):
            return False

    def make(self, write: Callable[[str], int]) -> int:
        """Make an export by `write(folder)`, which returns the number of its entry; return that number.

        What `write` raises is passed on, and nothing is changed. Leftovers of killed processes are removed.
        """
        new, old = (os.path.join(self.root, f"tmp-{name}") for name in ("new", "old"))
        for path in (new, old):
            _remove(path)
        logger.info("exporting the network into %s", self.root)
        os.mkdir(new, 0o700)
        try:
            entry = write(new)
            folder = self.folders[entry]
            with open(os.path.join(new, _RECORD), "w", encoding="utf-8") as file:
                json.dump(_record(new, os.path.basename(folder)), file)
            if os.path.lexists(folder):
                os.rename(folder, old)
            os.rename(new, folder)
        finally:
            for path in (new, old):
                _remove(path)
        return entry

    def use(self, entry: int) -> str:
        """Return the folder of an existing export, and mark it as the most recently used."""
        folder = self.folders[entry]
        latest = max(os.path.getmtime(path) for path in _exports(self.root))
        os.utime(folder, (max(time.time(), latest + 1),) * 2)  # the newest even if the clock was set back
        _prune_old(self.root)
        return folder


@contextlib.contextmanager
def export_cache_of(
    network: paddle.nn.Layer, dependencies: Sequence[list], digest: str, kind: str
) -> Iterator[ExportCache]:
    """Lock the cache, and give one entry for each of `dependencies`; arguments as cached_export."""
    root = _root(kind)
    lock = FileLock(os.path.join(root, ".lock"))
    try:
        lock.acquire(timeout=1)
    except Timeout:
        logger.info("waiting for another process that makes an export in %s", root)
        lock.acquire()
    try:
        yield ExportCache(root, [_name(network, facts, digest) for facts in dependencies])
    finally:
        lock.release()


def _root(kind: str) -> str:
    """Folder of a kind of exports, which only the user may write."""
    root = os.path.join(weights_home(), kind)
    try:
        os.makedirs(root, 0o700, exist_ok=True)
        status = os.stat(root)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        logger.warning(
            "%s cannot be written (%s): the export ends with this process; set STNET_WEIGHTS_HOME to a folder that can",
            root, error.strerror or error,
        )  # fmt: skip
        return _folder_of_this_process(kind)
    if {status.st_uid, os.lstat(root).st_uid} == {os.geteuid()} and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return root
    logger.warning(
        "others may write into %s (owner %d, mode %o): not used, the export ends with this process; "
        "chmod it to 700 if it is yours and you trust what it holds, or set STNET_WEIGHTS_HOME",
        root, status.st_uid, stat.S_IMODE(status.st_mode),
    )  # fmt: skip
    return _folder_of_this_process(kind)


@functools.cache
def _folder_of_this_process(kind: str) -> str:
    folder = tempfile.mkdtemp(prefix=f"stnet-{kind}-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _name(network: paddle.nn.Layer, dependencies: list, digest: str) -> str:
    platform = [_FORMAT, paddle.__version__, runtime.processor()]
    name = hashlib.sha256(json.dumps([dependencies, platform, digest]).encode())
    for key, value in sorted(network.state_dict().items()):
        name.update(f"{key}{value.shape}{value.dtype}".encode())
        if not digest:
            name.update(np.ascontiguousarray(value.numpy()))
    return name.hexdigest()[:32]


def code_of(*classes: type) -> list[str]:
    """Names of the classes that an export depends on, with the SHA-256 of their source files."""
    return sorted({_code(cls) for cls in classes if not cls.__module__.startswith("paddle.")})


@functools.cache
def _code(cls: type) -> str:
    try:
        return f"{cls.__qualname__} {sha256_of(inspect.getfile(cls))}"
    except (OSError, TypeError):  # typed into a console
        return cls.__qualname__


def _record(folder: str, name: str) -> dict[str, object]:
    """Name of an export and SHA-256 of each file but the record. Raises ValueError for a file that is not regular."""
    digests = {}
    for parent, _, files in os.walk(folder):
        for path in (os.path.join(parent, file) for file in files):
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise ValueError(path)
            if path != os.path.join(folder, _RECORD):
                digests[os.path.relpath(path, folder)] = sha256_of(path)
    return {"export": name, "sha256": digests}


def _exports(root: str) -> list[str]:
    return [os.path.join(root, name) for name in os.listdir(root) if re.fullmatch(r"[0-9a-f]{32}|tmp-\w+", name)]


def _prune_old(root: str) -> None:
    """Remove all but the most recently used exports, and leftovers of killed processes."""
    named = [path for path in _exports(root) if not os.path.basename(path).startswith("tmp-")]
    whole = [path for path in named if os.path.exists(os.path.join(path, _RECORD))]
    kept = sorted(whole, key=os.path.getmtime)[-_KEPT:]
    for path in set(_exports(root)) - set(kept):
        _remove(path)


def _remove(path: str) -> None:
    if os.path.islink(path):
        os.unlink(path)
    shutil.rmtree(path, ignore_errors=True)
