"""What a server gets: the exported model and deploy.yaml, which says all that is needed to use it."""

import logging
import os
import shutil
import tempfile

import numpy as np
import paddle
import yaml

from core.errors import UserError
from core.schema import SCHEMA
from engine.engines import load_inference, load_onnxruntime
from engine.export import Classifier, exportable_network, write_onnx, write_program
from engine.files import prepare_folder

logger = logging.getLogger("stnet")
TOLERANCE = 1e-4  # of the probabilities
FILE = "deploy.yaml"


def deploy(model, section, labels, folder, file_format):
    """Write NAME.pdmodel and NAME.pdiparams, or NAME.onnx, and deploy.yaml into a folder.

    The model takes any number of clips and of segments. It is compared with the network, at two shapes, before
    anything is put in place.

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
    prepare_folder(folder)
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=folder) as made:
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
        for file in [*files, FILE]:
            shutil.move(f"{made}/{file}", f"{folder}/{file}")
    return deviation, [*files, FILE]


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
