"""Temporary folders, locked by their process while it lives; a later one removes those of killed processes."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import tempfile


def lock(path: str) -> int | None:
    """Lock a folder of this user's. Returns a file descriptor; None: it is another user's, in use, or gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(handle).st_uid == os.getuid():
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
    except OSError:
        pass
    os.close(handle)
    return None


def sweep(pattern: str, mark: str = "", folder: str = "") -> None:
    """Remove the folders of killed processes: those that are not locked.

    Args:
        pattern: of their names.
        mark: name of a file that is in each of them.
        folder: that holds them; "": the system's temporary folder.
    """
    for path in glob.glob(os.path.join(glob.escape(folder or tempfile.gettempdir()), pattern)):
        if mark and not os.path.lexists(os.path.join(path, mark)):
            continue
        handle = lock(path)
        if handle is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(handle)
