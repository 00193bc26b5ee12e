"""Cache of released weights, and their download into it.

Environment: STNET_WEIGHTS_HOME (default ~/.paddle/weights), STNET_WEIGHTS_URL (a mirror; "none": never download),
STNET_DOWNLOAD_TIMEOUT (stnet.weights.transfer). The flags --weights_home and --weights_url set the first two.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable

from filelock import FileLock

from stnet.utils.errors import UserError
from stnet.weights.archive import unpack
from stnet.weights.formats import Weights, read_weights, record_text
from stnet.weights.transfer import DownloadError, discard, download

logger = logging.getLogger("stnet")

BASE_URL = "https://paddlemodels.bj.bcebos.com/video_classification"


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
            _write_record(path, record_text({os.path.basename(path): check(part).digest}))
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
        top = os.listdir(folder)
        inner = os.path.join(folder, top[0]) if len(top) == 1 else folder
        inner = inner if os.path.isdir(inner) else folder
        record = record_text(check(inner).digests)
        ready = f"{path}.ready"
        shutil.rmtree(ready, ignore_errors=True)
        shutil.move(inner, ready) if inner != folder else shutil.copytree(inner, ready)
    _write_record(path, record)
    os.replace(ready, path)


def _write_record(path: str, record: str) -> None:
    with open(f"{path}.sha256", "w", encoding="utf-8") as file:
        file.write(record)
