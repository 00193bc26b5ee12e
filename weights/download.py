"""The cache of released weights, and how files get there.

Environment: STNET_WEIGHTS_HOME (default ~/.paddle/weights), STNET_WEIGHTS_URL (a mirror; "none": never download),
STNET_DOWNLOAD_TIMEOUT (seconds without a byte). The flags --weights_home and --weights_url set the first two.
"""

import http.client
import logging
import os
import shutil
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request

from filelock import FileLock
from tqdm import tqdm

from core.errors import UserError
from weights.archive import unpack
from weights.formats import read_weights, record_lines

logger = logging.getLogger("stnet")

BASE_URL = "https://paddlemodels.bj.bcebos.com/video_classification"
TRIES = 4  # attempts without progress
PAUSE = 1.0  # seconds before the second attempt, doubled each time
_BLOCK = 1 << 18


def weights_home():
    """Folder of the cache."""
    return os.path.expanduser(os.environ.get("STNET_WEIGHTS_HOME") or os.path.join("~", ".paddle", "weights"))


def base_url():
    """Where files come from; "" when downloading is off."""
    url = os.environ.get("STNET_WEIGHTS_URL") or BASE_URL
    return "" if url.lower() in ("none", "offline") else url.rstrip("/")


def released(name, advice="", check=read_weights):
    """The path of a released file, downloaded if it is not in the cache.

    Args:
        name: "STNET_final.pdparams", or "ResNet50_pretrained" for a folder that is published as NAME.tar.gz.
        advice: how to go on without it, for messages.
        check: function that takes the path of a fresh download and raises UserError unless it is usable.

    Raises:
        UserError: it cannot be had; says the URL, where to put the file by hand, and `advice`.
    """
    path = os.path.join(weights_home(), name)
    if os.path.exists(path):
        return path
    remote = name if "." in name else f"{name}.tar.gz"
    by_hand = f"to go on by hand, put {remote}{'' if remote == name else ' (unpacked)'} at {path}{advice}"
    if not base_url():
        raise UserError(f"{path} does not exist, and downloading is off (STNET_WEIGHTS_URL); {by_hand}")
    url = f"{base_url()}/{remote}"
    try:
        os.makedirs(weights_home(), exist_ok=True)
        with FileLock(os.path.join(weights_home(), f".{name}.lock")):  # 8 ranks, one download
            if not os.path.exists(path):
                _fetch(url, path, remote != name, check)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; {by_hand}") from None
    except DownloadError as error:
        raise DownloadError(f"{url} cannot be downloaded: {error}; {by_hand}") from None
    return path


class DownloadError(UserError):
    """A file cannot be had from its server."""


def _fetch(url, path, is_archive, check):
    """Download, check, put in place under a lock: file or folder first, its .sha256 before it becomes visible."""
    part = f"{path}.part"
    resumed = os.path.exists(part)
    logger.info("downloading %s", url)
    download(url, part)
    try:
        if is_archive:
            _install_archive(part, path, check)
        else:
            check(part)
            with open(part, "rb") as file:
                _write_record(path, {os.path.basename(path): file.read()})
            os.replace(part, path)
    except UserError as error:
        os.remove(part)
        if resumed:  # the older half may have come from elsewhere: once more, from the start
            _fetch(url, path, is_archive, check)
            return
        raise DownloadError(f"what the server sent is not usable ({error})") from None
    logger.info("downloaded %s", path)


def _install_archive(part, path, check):
    with tempfile.TemporaryDirectory(prefix=".unpack.", dir=os.path.dirname(path)) as folder:
        unpack(part, folder)
        top = os.listdir(folder)
        inner = os.path.join(folder, top[0]) if len(top) == 1 else folder
        inner = inner if os.path.isdir(inner) else folder
        check(inner)
        contents = {}
        for name in os.listdir(inner):
            if os.path.isfile(os.path.join(inner, name)):
                with open(os.path.join(inner, name), "rb") as file:
                    contents[name] = file.read()
        ready = f"{path}.ready"
        shutil.rmtree(ready, ignore_errors=True)
        shutil.move(inner, ready) if inner != folder else shutil.copytree(inner, ready)
    _write_record(path, contents)
    os.replace(ready, path)
    os.remove(part)


def _write_record(path, contents):
    with open(f"{path}.sha256", "w", encoding="utf-8") as file:
        file.write(record_lines(contents))


def download(url, part):
    """Download into `part`, going on from what it already holds where the server can.

    Args:
        url: of the file.
        part: partial file; kept when the connection fails, so that the next attempt goes on.

    Raises:
        DownloadError: no server, no such file, or the transfer keeps failing.
    """
    failures, reason = 0, ""
    while failures < TRIES:
        if failures:
            logger.info("trying again: %s", reason)
            time.sleep(PAUSE * 2 ** (failures - 1))
        before = _size(part)
        try:
            _transfer(url, part, before)
            return
        except urllib.error.HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code == 416:  # what is there is not a beginning of the file
                os.remove(part)
            elif error.code < 500 and error.code != 429:
                break
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if isinstance(error, OSError) and error.errno in (28, 30, 13, 122):  # disk full, read-only, ...
                raise
            reason = str(getattr(error, "reason", error)) or type(error).__name__
            if isinstance(getattr(error, "reason", None), (socket.gaierror, ConnectionRefusedError)):
                failures = max(failures, TRIES - 2)  # no network: ask once more, not for long
        failures = 1 if _size(part) > before else failures + 1
    raise DownloadError(reason)


def _transfer(url, part, have):
    """One attempt; raises when fewer bytes come than the server announces."""
    headers = {"User-Agent": "stnet-paddle", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    timeout = float(os.environ.get("STNET_DOWNLOAD_TIMEOUT") or 30)
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
        if answer.status != 206:
            have = 0  # the server does not resume: from the start
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        name, silent = os.path.basename(url), not sys.stderr.isatty()
        bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, disable=silent)
        with bar, open(part, "r+b" if have else "wb") as out:
            out.seek(have)
            while block := answer.read(_BLOCK):
                out.write(block)
                bar.update(len(block))
            done = out.tell()
    if total is not None and done != total:
        raise http.client.IncompleteRead(b"", total - done)


def _size(path):
    return os.path.getsize(path) if os.path.exists(path) else 0
