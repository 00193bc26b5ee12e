"""Cache of released weights, and their download into it, with retries, resuming and limits of time and size.

Environment: STNET_WEIGHTS_HOME (default ~/.paddle/weights), STNET_WEIGHTS_URL (a mirror; "none": never download),
STNET_DOWNLOAD_TIMEOUT (seconds without a byte, or at less than SLOWEST on average; default 30). The flags
--weights_home and --weights_url set the first two.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from filelock import FileLock
from tqdm import tqdm

from stnet.utils.errors import UserError
from stnet.utils.files import read_regular
from stnet.utils.parsing import parse_json
from stnet.utils.progress import on_terminal
from stnet.weights.archive import unpack
from stnet.weights.formats import Weights, read_weights, record_text

logger = logging.getLogger("stnet")

BASE_URL = "https://paddlemodels.bj.bcebos.com/video_classification"
TRIES = 4  # attempts without progress
PAUSE = 1.0  # seconds before the second attempt, doubled each time
SLOWEST = 10_000  # bytes a second
MAX_BYTES = 2 << 30
_BLOCK = 1 << 18
_VALIDATOR = re.compile(r"[ -~]{1,200}")  # text that a header can hold


class DownloadError(UserError):
    """A file is not available from its server."""


class TooSlow(OSError):
    """The average rate is below SLOWEST."""


def weights_home() -> str:
    """Folder of the cache."""
    return os.path.expanduser(os.environ.get("STNET_WEIGHTS_HOME") or os.path.join("~", ".paddle", "weights"))


def base_url() -> str:
    """URL of the server; "" when downloading is off."""
    url = os.environ.get("STNET_WEIGHTS_URL") or BASE_URL
    return "" if url.lower() in ("none", "offline") else url.rstrip("/")


def released(name: str, check: Callable[[str], Weights] = read_weights, hint: str = "") -> str:
    """The path of a released file, downloaded if it is not in the cache.

    Args:
        name: "STNET_final.pdparams", or "ResNet50_pretrained" for a folder that is published as NAME.tar.gz.
        check: reads a fresh download by its path, and raises UserError unless it is usable.
        hint: of the errors.

    Raises:
        UserError: it is not available; names the URL and the path of a file put there by hand.
    """
    path = os.path.join(weights_home(), name)
    if os.path.exists(path):
        return path
    remote = name if "." in name else f"{name}.tar.gz"
    by_hand = f"to go on by hand, put {remote}{'' if remote == name else ' (unpacked)'} at {path}"
    if not base_url():
        raise UserError(f"{path} does not exist, and downloading is off (STNET_WEIGHTS_URL); {by_hand}", hint)
    url = f"{base_url()}/{remote}"
    try:
        os.makedirs(weights_home(), exist_ok=True)
        with FileLock(os.path.join(weights_home(), f".{name}.lock")):  # one download for all ranks
            if not os.path.exists(path):
                _fetch(url, path, remote != name, check)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}; {by_hand}", hint) from None
    except DownloadError as error:
        raise DownloadError(f"{url} cannot be downloaded: {error}; {by_hand}", hint) from None
    return path


def _fetch(url: str, path: str, is_archive: bool, check: Callable[[str], Weights]) -> None:
    """Download and check a file, under a lock; its .sha256 is written before the file or folder becomes visible."""
    part = f"{path}.part"
    resumed = os.path.exists(part)
    logger.info("downloading %s", url)
    download(url, part)
    try:
        if is_archive:
            _install_archive(part, path, check)
        else:
            _write_record(path, {os.path.basename(path): check(part).digest})
            os.replace(part, path)
        discard(part)
    except UserError as error:
        discard(part)
        if resumed:  # the older part may be of another file: once more, from the start
            _fetch(url, path, is_archive, check)
            return
        raise DownloadError(f"what the server sent is not usable ({error})") from None
    logger.info("downloaded %s", path)


def _install_archive(part: str, path: str, check: Callable[[str], Weights]) -> None:
    with tempfile.TemporaryDirectory(prefix=".unpack.", dir=os.path.dirname(path)) as folder:
        unpack(part, folder)
        names = os.listdir(folder)
        inner = os.path.join(folder, names[0]) if len(names) == 1 else ""
        content = inner if os.path.isdir(inner) else folder  # an archive may hold one folder with all in it
        digests = check(content).digests
        ready = f"{path}.ready"
        shutil.rmtree(ready, ignore_errors=True)
        if content == folder:
            shutil.copytree(content, ready)
        else:
            shutil.move(content, ready)
    _write_record(path, digests)
    os.replace(ready, path)


def _write_record(path: str, digests: Mapping[str, str]) -> None:
    with open(f"{path}.sha256", "w", encoding="utf-8") as file:
        file.write(record_text(digests))


# HTTP ----------------------------------------------------------------------------------------------------------


def download(url: str, part: str) -> None:
    """Download into `part`, resuming from its content if the server confirms that it is of the same file.

    Args:
        url: of the file.
        part: partial file, kept when the connection fails. PART.json has its URL, validator and size.

    Raises:
        DownloadError: no server, no such file, too large a file, or the transfer keeps failing or is too slow.
    """
    failures, reason = 0, ""
    while failures < TRIES:
        if failures:
            logger.info("trying again: %s", reason)
            time.sleep(PAUSE * 2 ** (failures - 1))
        before = _size(part)
        try:
            _transfer(url, part)
            return
        except DownloadError:
            discard(part)
            raise
        except (http.client.HTTPException, OSError, ValueError) as error:  # URLError and HTTPError are OSErrors
            if getattr(error, "errno", None) in (28, 30, 13, 122):  # disk full, read-only, ...
                raise
            if getattr(error, "code", None) == 416:  # the part is not a beginning of the file
                discard(part)
            reason = _reason(error)
            progressed = _size(part) > before and not isinstance(error, TooSlow)
            failures = 1 if progressed else max(failures, _failures_worth(error)) + 1
    raise DownloadError(reason)


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"the server answers {error.code} {error.reason}"
    return str(getattr(error, "reason", error)) or type(error).__name__


def _failures_worth(error: Exception) -> int:
    """Number of earlier failures that an error counts as, at least."""
    code = getattr(error, "code", None)
    if code is not None and code < 500 and code not in (416, 429):
        return TRIES  # asking again does not help
    if isinstance(getattr(error, "reason", None), (socket.gaierror, ConnectionRefusedError)):
        return TRIES - 2  # no network: ask once more, not for long
    return 0


def discard(part: str) -> None:
    """Remove a partial file."""
    for path in (part, f"{part}.json"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(path)


def _transfer(url: str, part: str) -> None:
    """One attempt; raises when fewer bytes come than the server announces."""
    have, known = _resumable(url, part)
    if have and have == known["total"]:
        return  # an earlier process was killed between the download and its move into place
    headers = {"User-Agent": "stnet-paddle", "Accept-Encoding": "identity"}
    if have:
        headers.update({"Range": f"bytes={have}-", "If-Range": known["validator"]})
    timeout = float(os.environ.get("STNET_DOWNLOAD_TIMEOUT") or 30)
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
        if answer.status == 206 and not _continues(answer, have, known):
            discard(part)
            raise http.client.HTTPException("the file changed on the server")
        have = have if answer.status == 206 else 0  # else the server sends the whole file
        length = re.fullmatch(r"\d{1,18}", answer.headers.get("Content-Length") or "")
        total = int(length[0]) if length else None
        if have:
            total = known["total"]
        if (total or 0) > MAX_BYTES:
            raise DownloadError(f"it is of {total} bytes, more than the {MAX_BYTES} that are taken")
        if not have:
            discard(part)
            with open(f"{part}.json", "w", encoding="utf-8") as file:
                json.dump({"url": url, "validator": _validator(answer), "total": total}, file)
        done = _receive(answer, part, have, total, timeout)
    if total is not None and done != total:
        raise http.client.IncompleteRead(b"", total - done)


def _receive(answer: http.client.HTTPResponse, part: str, have: int, total: int | None, timeout: float) -> int:
    """Write the body after the first `have` bytes of the partial file. Returns the new size."""
    began, before, done = time.monotonic(), have, have
    name, silent = os.path.basename(part).removesuffix(".part"), not on_terminal()
    bar = tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=name, disable=silent)
    with bar, open(part, "r+b" if have else "wb") as out:
        out.seek(have)
        while block := answer.read1(_BLOCK):  # the bytes received so far: read() would wait for a whole block
            out.write(block)
            bar.update(len(block))
            done += len(block)
            if done > MAX_BYTES:
                raise DownloadError(f"it is of more than the {MAX_BYTES} bytes that are taken")
            passed = time.monotonic() - began
            if passed > timeout:
                if done - before < SLOWEST * passed:
                    raise TooSlow(f"{done - before} bytes in {passed:.0f} s; less than {SLOWEST} a second is too slow")
                if silent:
                    logger.info("%s: %.1f MB so far", name, done / 1e6)
                began, before = time.monotonic(), done
    return done


def _resumable(url: str, part: str) -> tuple[int, dict[str, Any]]:
    """(bytes of the partial file, content of PART.json); (0, {}) if it cannot be resumed."""
    try:
        known = parse_json(read_regular(f"{part}.json", 1 << 16))
        if known["url"] == url and _VALIDATOR.fullmatch(known["validator"]) and type(known["total"]) is int:
            return _size(part), known
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, {}


def _continues(answer: http.client.HTTPResponse, have: int, known: dict[str, Any]) -> bool:
    """Check that a partial answer is the rest of the file whose first `have` bytes are there."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range") or "")
    if not have or not span or span.group(1) != str(have):
        return False
    return span.group(2) in ("*", str(known["total"])) and _validator(answer) == known["validator"]


def _validator(answer: http.client.HTTPResponse) -> str | None:
    """ETag or date of the file's content for If-Range, or None."""
    tag, modified = answer.headers.get("ETag") or "", answer.headers.get("Last-Modified") or ""
    validator = tag if tag.startswith('"') else modified
    return validator if _VALIDATOR.fullmatch(validator) else None


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
