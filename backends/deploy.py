"""What a server gets: the exported model and deploy.yaml, which says all that is needed to use it."""

import errno
import logging
import os
import re
import shutil
import tempfile

import numpy as np
import paddle
import yaml

from backends.engines import load_inference, load_onnxruntime
from backends.export import Classifier, exportable_network, write_onnx, write_program
from core.atomic import exchange, prepare_folder, sync_folder, writing
from core.errors import UserError
from core.schema import SCHEMA
from core.signals import Process

logger = logging.getLogger("stnet")
TOLERANCE = 1e-4  # of the probabilities
FILE = "deploy.yaml"
_EXPORTING = ".exporting-"


def deploy(model, section, labels, folder, file_format):
    """Write NAME.pdmodel and NAME.pdiparams, or NAME.onnx, and deploy.yaml into a folder.

    The model takes any number of clips and of segments. It is compared with the network, at two shapes, before
    anything is put in place. An older export in the folder is replaced as a whole: at any moment all of it is there, or
    all of the new one. Other files in the folder stay.

    Args:
        model: models.model.Model in evaluation mode.
        section: core.config.ReaderSection; its sampling and sizes go into deploy.yaml.
        labels: class names.
        folder: made if missing.
        file_format: "paddle" or "onnx".

    Returns:
        (largest deviation of the probabilities, names of the files).

    Raises:
        UserError: the folder cannot be written, a package is missing, or the export computes something else.
    """
    name = model.config.MODEL.name.upper()
    folder = os.path.realpath(folder)
    prepare_folder(folder)
    _remove_leftovers(folder)
    with tempfile.TemporaryDirectory(prefix=_temporary(), dir=folder) as made:
        layer = Classifier(exportable_network(model))
        shape = [None, None, 3 * section.seglen, section.target_size, section.target_size]
        if file_format == "onnx":
            write_onnx(layer, f"{made}/{name}.onnx", shape)
        else:
            write_program(layer, f"{made}/{name}", shape)
        files = sorted(file for file in os.listdir(made) if not file.endswith(".info"))
        with tempfile.TemporaryDirectory() as elsewhere:
            for file in files:  # what an engine compiles beside the files is not to be shipped
                os.symlink(os.path.join(made, file), os.path.join(elsewhere, file))
            load = load_onnxruntime if file_format == "onnx" else load_inference
            try:
                run, names, _ = load(f"{elsewhere}/{name}")
            except RuntimeError as error:  # Paddle does not notice, while it writes, that a disk is full
                reason = str(error).strip().splitlines()[-1]
                raise UserError(f"the exported model cannot be loaded, perhaps the disk is full: {reason}") from error
            deviation = largest_deviation(run, layer, section)
        if not deviation <= TOLERANCE:
            raise UserError(f"the exported model deviates by {deviation:.2g} from the network: nothing was written")
        with open(f"{made}/{FILE}", "w", encoding="utf-8") as file:
            yaml.safe_dump(description(model, section, labels, files, names), file, allow_unicode=True, sort_keys=False)
        put_in_place(made, folder, [*files, FILE])
    return deviation, [*files, FILE]


def put_in_place(made, folder, names):
    """Move an export from the folder `made`, inside of `folder`, into that one. Raises UserError.

    deploy.yaml comes last, so that a folder which holds one holds an export. To replace an export, a second folder is
    filled with the new one and with links to what else lies in the first, and the two swap names.
    """
    if not os.path.exists(f"{folder}/{FILE}"):
        _move(made, folder, names)
        return
    try:
        if os.path.realpath(os.getcwd()) == folder:
            raise OSError(errno.EBUSY, "it is the working directory")
        second = tempfile.mkdtemp(prefix=f".{os.path.basename(folder)}{_temporary()}", dir=os.path.dirname(folder))
        try:
            replaced = shutil.ignore_patterns(*names, *_model_files(folder), f"{_EXPORTING}*")
            shutil.copytree(folder, second, symlinks=True, ignore=replaced, copy_function=os.link, dirs_exist_ok=True)
            _move(made, second, names)
            exchange(folder, second)
            sync_folder(os.path.dirname(folder))
        finally:
            shutil.rmtree(second, ignore_errors=True)
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"the export in {folder} cannot be replaced as a whole ({reason}); "
            "it is as it was: delete it, or set --save_dir to another folder"
        ) from None


def _model_files(folder):
    """Names of the model's files in a folder, by its deploy.yaml: they go when another export takes its place."""
    try:
        with open(f"{folder}/{FILE}", encoding="utf-8") as file:
            return [str(name) for name in yaml.safe_load(file)["model"]["files"]]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []


def _move(made, folder, names):
    with writing(folder):
        for name in names:
            with open(f"{made}/{name}", "rb+") as file:
                os.fsync(file.fileno())
            os.replace(f"{made}/{name}", f"{folder}/{name}")
        sync_folder(folder)


def _temporary():
    return f"{_EXPORTING}{os.getpid()}-"


def _remove_leftovers(folder):
    """Delete what killed exports left in a folder and beside it."""
    beside = re.compile(rf"\.{re.escape(os.path.basename(folder))}{re.escape(_EXPORTING)}(\d+)-.*")
    inside = re.compile(rf"{re.escape(_EXPORTING)}(\d+)-.*")
    for place, pattern in ((os.path.dirname(folder), beside), (folder, inside)):
        for match in filter(None, map(pattern.fullmatch, os.listdir(place))):
            if not Process(int(match[1])).is_alive():
                shutil.rmtree(os.path.join(place, match[0]), ignore_errors=True)


def largest_deviation(run, layer, section):
    """Between the probabilities of an export and of the network, on random clips of two shapes."""
    found = 0.0
    size, random = section.target_size, np.random.RandomState(0)
    for batch, seg_num in ((1, section.seg_num), (2, 3)):
        clips = random.standard_normal((batch, seg_num, 3 * section.seglen, size, size)).astype("float32")
        with paddle.no_grad():
            expected = layer(paddle.to_tensor(clips)).numpy()
        answer = run(clips)
        if answer.shape != expected.shape:
            raise UserError(f"the exported model answers {clips.shape} with shape {answer.shape}: nothing was written")
        found = max(found, float(np.abs(answer - expected).max()))
    return found


def description(model, section, labels, files, names):
    """deploy.yaml as plain data. `names`: those of the model's input and output."""
    settings = model.config.MODEL
    channels, size = 3 * section.seglen, section.target_size
    return {
        "schema": SCHEMA,
        "model": {
            "name": settings.name.upper(),
            "num_layers": settings.num_layers,
            "num_classes": settings.num_classes,
            "files": files,
            "paddle_version": paddle.__version__,
        },
        "input": {
            "name": names[0],
            "dtype": "float32",
            "shape": ["batch", "seg_num", channels, size, size],
            "meaning": "segments of seglen RGB frames stacked on the channel axis (R, G, B of the first frame, "
            "R, G, B of the second, ...); batch and seg_num may be any number",
        },
        "output": {
            "name": names[1],
            "dtype": "float32",
            "shape": ["batch", settings.num_classes],
            "meaning": "probability of each class, in the order of labels",
        },
        "sampling": {
            "seg_num": section.seg_num,
            "seglen": section.seglen,
            "format": settings.format,
            "meaning": "of n frames, average = n // seg_num; segment i starts at i * average + (average - 1) // 2 "
            "(mp4) or i * average + (average - seglen) // 2 (pkl), at i * average if average < seglen, at i if "
            "average is 0; seglen consecutive frames, modulo n",
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
