"""What a server gets: the exported model and deploy.yaml, which says all that is needed to use it."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
import yaml

from backends.engines import exporter
from backends.export import Classifier, Shape, clip_sizes
from core.atomic import exchange, prepare_folder, sync_folder, writing
from core.errors import UserError, last_line
from core.schema import SCHEMA
from core.signals import Process
from reader.formats import FORMATS

if TYPE_CHECKING:
    from backends.engines import Run
    from core.config import ReaderSection
    from models.model import Model

logger = logging.getLogger("stnet")
TOLERANCE = 1e-4  # of the probabilities
FILE = "deploy.yaml"
_EXPORTING = ".exporting-"


def deploy(
    model: Model, section: ReaderSection, labels: Sequence[str], folder: str, file_format: str
) -> tuple[float, list[str]]:
    """Write NAME.pdmodel and NAME.pdiparams, or NAME.onnx, and deploy.yaml into a folder.

    The model takes any number of clips, and of segments if the network does. It is compared with the network, at two
    shapes, before anything is put in place. An older export in the folder is replaced as a whole: at any moment all of
    it is there, or all of the new one. Other files in the folder stay.

    Args:
        model: in evaluation mode.
        section: its sampling and sizes go into deploy.yaml.
        labels: class names.
        folder: made if missing.
        file_format: "paddle", "onnx", or that of another ExportEngine of the table.

    Returns:
        (largest deviation of the probabilities, names of the files).

    Raises:
        UserError: the folder cannot be written, a package is missing, or the export computes something else.
    """
    name, engine = model.config.MODEL.name.upper(), exporter(file_format)
    folder = os.path.realpath(folder)
    prepare_folder(folder)
    _remove_leftovers(folder)
    with tempfile.TemporaryDirectory(prefix=_temporary(), dir=folder) as unfinished:
        layer = Classifier(model.network)
        seg_num, seglen, size = clip_sizes(section)
        shape: Shape = [None, None if model.any_seg_num else seg_num, 3 * seglen, size, size]
        engine.write(layer, f"{unfinished}/{name}", shape)
        files = sorted(file for file in os.listdir(unfinished) if not file.endswith(".info"))
        with tempfile.TemporaryDirectory() as elsewhere:
            for file in files:  # what an engine compiles beside the files is not to be shipped
                os.symlink(os.path.join(unfinished, file), os.path.join(elsewhere, file))
            try:
                run, names, _ = engine.load(f"{elsewhere}/{name}")
            except RuntimeError as error:  # Paddle does not notice, while it writes, that a disk is full
                raise UserError(
                    f"the exported model cannot be loaded, perhaps the disk is full: {last_line(error)}"
                ) from error
            deviation = largest_deviation(run, layer, section, model.any_seg_num)
        if not deviation <= TOLERANCE:
            raise UserError(f"the exported model deviates by {deviation:.2g} from the network: nothing was written")
        facts = description(model, section, labels, files, names)
        with open(f"{unfinished}/{FILE}", "w", encoding="utf-8") as target:
            yaml.safe_dump(facts, target, allow_unicode=True, sort_keys=False)
        put_in_place(unfinished, folder, [*files, FILE])
    return deviation, [*files, FILE]


def put_in_place(unfinished: str, folder: str, names: Sequence[str]) -> None:
    """Move an export from the folder `unfinished`, inside of `folder`, into that one. Raises UserError.

    deploy.yaml comes last, so that a folder which holds one holds an export. To replace an export, a second folder is
    filled with the new one and with links to what else lies in the first, and the two swap names.
    """
    if not os.path.exists(f"{folder}/{FILE}"):
        _move(unfinished, folder, names)
        return
    try:
        if os.path.realpath(os.getcwd()) == folder:
            raise OSError(errno.EBUSY, "it is the working directory")
        second = tempfile.mkdtemp(prefix=f".{os.path.basename(folder)}{_temporary()}", dir=os.path.dirname(folder))
        try:
            replaced = shutil.ignore_patterns(*names, *_model_files(folder), f"{_EXPORTING}*")
            shutil.copytree(folder, second, symlinks=True, ignore=replaced, copy_function=os.link, dirs_exist_ok=True)
            _move(unfinished, second, names)
            exchange(folder, second)
            sync_folder(os.path.dirname(folder))
        finally:
            shutil.rmtree(second, ignore_errors=True)
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"the export in {folder} cannot be replaced as a whole ({reason}): it is as it was", topic="export folder"
        ) from None


def _model_files(folder: str) -> list[str]:
    """Names of the model's files in a folder, by its deploy.yaml: they go when another export takes its place."""
    try:
        with open(f"{folder}/{FILE}", encoding="utf-8") as file:
            return [str(name) for name in yaml.safe_load(file)["model"]["files"]]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []


def _move(source: str, folder: str, names: Sequence[str]) -> None:
    with writing(folder):
        for name in names:
            with open(f"{source}/{name}", "rb+") as file:
                os.fsync(file.fileno())
            os.replace(f"{source}/{name}", f"{folder}/{name}")
        sync_folder(folder)


def _temporary() -> str:
    return f"{_EXPORTING}{os.getpid()}-"


def _remove_leftovers(folder: str) -> None:
    """Delete what killed exports left in a folder and beside it."""
    beside = re.compile(rf"\.{re.escape(os.path.basename(folder))}{re.escape(_EXPORTING)}(\d+)-.*")
    inside = re.compile(rf"{re.escape(_EXPORTING)}(\d+)-.*")
    for place, pattern in ((os.path.dirname(folder), beside), (folder, inside)):
        for match in filter(None, map(pattern.fullmatch, os.listdir(place))):
            if not Process(int(match[1])).is_alive():
                shutil.rmtree(os.path.join(place, match[0]), ignore_errors=True)


def largest_deviation(run: Run, layer: Classifier, section: ReaderSection, any_seg_num: bool) -> float:
    """Between the probabilities of an export and of the network, on random clips of two shapes."""
    deviation = 0.0
    own_seg_num, seglen, size = clip_sizes(section)
    random = np.random.RandomState(0)
    for batch, seg_num in ((1, own_seg_num), (2, 3 if any_seg_num else own_seg_num)):
        clips = random.standard_normal((batch, seg_num, 3 * seglen, size, size)).astype("float32")
        with paddle.no_grad():
            expected = layer(paddle.to_tensor(clips)).numpy()
        answer = run(clips)
        if answer.shape != expected.shape:
            raise UserError(f"the exported model answers {clips.shape} with shape {answer.shape}: nothing was written")
        deviation = max(deviation, float(np.abs(answer - expected).max()))
    return deviation


def description(
    model: Model, section: ReaderSection, labels: Sequence[str], files: list[str], names: tuple[str, str]
) -> dict[str, Any]:
    """deploy.yaml as plain data. `names`: those of the model's input and output."""
    settings = model.config.MODEL
    seg_num, seglen, size = clip_sizes(section)
    free = "batch and seg_num" if model.any_seg_num else "batch"
    return {
        "schema": SCHEMA,
        "model": {
            "name": settings.name.upper(),
            **model.own_settings(),
            "num_classes": settings.num_classes,
            "files": files,
            "paddle_version": paddle.__version__,
        },
        "input": {
            "name": names[0],
            "dtype": "float32",
            "shape": ["batch", "seg_num" if model.any_seg_num else seg_num, 3 * seglen, size, size],
            "meaning": "segments of seglen RGB frames stacked on the channel axis (R, G, B of the first frame, "
            f"R, G, B of the second, ...); {free} may be any number",
        },
        "output": {
            "name": names[1],
            "dtype": "float32",
            "shape": ["batch", settings.num_classes],
            "meaning": "probability of each class, in the order of labels",
        },
        "sampling": {
            "seg_num": seg_num,
            "seglen": seglen,
            "format": settings.format,
            "meaning": "of n frames, average = n // seg_num; segment i starts at i * average + "
            f"{FORMATS.get(settings.format).centre_formula}, at i * average if average < seglen, at i if average is 0; "
            "seglen consecutive frames, modulo n",
        },
        "transform": {
            "colours": "RGB",
            "short_size": section.short_size,
            "target_size": size,
            "meaning": "unless the short side is short_size: antialiased bilinear resize to short_size x "
            "int(short_size * 4 / 3), the longer on the longer side (a square counts as wide); then the central square "
            "of target_size, its corner at round((side - target_size) / 2); then (value / 255 - mean) / std",
            "mean": list(settings.image_mean),
            "std": list(settings.image_std),
        },
        "labels": list(labels),
    }
