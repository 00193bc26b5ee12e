"""Exports that are kept, so that they are made once."""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time

import numpy as np
import paddle

from engine import runtime
from weights.download import weights_home

logger = logging.getLogger("stnet")
_KEPT = 4  # exports; one of 50 layers takes 130 to 300 MB
_ABANDONED = 3600  # seconds after which what a killed process left is removed
_FORMAT = 1  # raised when the same network is exported in another way


def cached_export(network, about, write):
    """The folder of an export, made by `write(folder)` if there is none yet.

    It lies in `exports` of the weights' cache (~/.paddle/weights), under a name made of the weights, of `about`, of
    Paddle's version and of the processor. Several processes may ask at once. The most recently used few are kept.

    Args:
        network: paddle.nn.Layer.
        about: plain data, whatever else the export depends on.
        write: writes the files into a folder; what it raises is passed on, and nothing is kept.
    """
    root = os.path.join(weights_home(), "exports")
    folder = os.path.join(root, _name(network, about))
    if not os.path.isdir(folder):
        os.makedirs(root, exist_ok=True)
        logger.info("exporting the network to %s; the next run finds it there", folder)
        made = tempfile.mkdtemp(prefix="tmp-", dir=root)
        try:
            write(made)
            if not os.path.isdir(folder):
                os.rename(made, folder)
        except OSError:
            if not os.path.isdir(folder):  # else another process was faster
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    os.utime(folder)
    _forget_old(root)
    return folder


def _name(network, about):
    made_for = [_FORMAT, paddle.__version__, runtime.processor()]  # compiled code lies in it, too
    digest = hashlib.sha256(json.dumps([about, made_for]).encode())
    for name, value in sorted(network.state_dict().items()):
        array = np.ascontiguousarray(value.numpy())
        digest.update(f"{name}{array.shape}{array.dtype}".encode())
        digest.update(array)
    return digest.hexdigest()[:32]


def _forget_old(root):
    """Remove all but the most recently used exports, and what killed processes left."""
    paths = [os.path.join(root, name) for name in os.listdir(root)]
    ages = {path: time.time() - os.path.getmtime(path) for path in paths if os.path.exists(path)}
    whole = sorted((path for path in ages if not os.path.basename(path).startswith("tmp-")), key=ages.get)
    left = [path for path in ages if os.path.basename(path).startswith("tmp-") and ages[path] > _ABANDONED]
    for path in whole[_KEPT:] + left:
        shutil.rmtree(path, ignore_errors=True)
