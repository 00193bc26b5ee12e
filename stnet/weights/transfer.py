"""Download of a file over HTTP, with retries, resuming and limits of time and size.

Environment: STNET_DOWNLOAD_TIMEOUT (seconds without a byte, or at less than SLOWEST on average).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import re
import socket
import time
import urllib.error
import urllib.request
from typing import Any

from tqdm import tqdm

from stnet.utils.errors import UserError
from stnet.utils.files import read_regular
from stnet.utils.parsing import parse_json
from stnet.utils.progress import on_terminal

logger = logging.getLogger("stnet")

TRIES = 4  # attempts without progress
PAUSE = 1.0  # seconds before the second attempt, doubled each time
SLOWEST = 10_000  # bytes a second
MAX_BYTES = 2 << 30
_BLOCK = 1 << 18
_VALIDATOR = re.compile(r"[ -~]{1,200}")  # text that a header can hold


class DownloadError(UserError):
    """A file is not available from its server."""


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


class TooSlow(OSError):
    """The average rate is below SLOWEST."""


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
        total = known["total"] if have else _number(answer.headers.get("Content-Length"))
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


def _number(text: str | None) -> int | None:
    digits = re.fullmatch(r"\d{1,18}", text or "")
    return int(digits[0]) if digits else None


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
