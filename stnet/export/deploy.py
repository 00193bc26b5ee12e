"""Export of a model and its deploy.yaml into a folder."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import paddle
import yaml
from paddle.nn import functional as F

from stnet.backends.deploy_yaml import FILE, description
from stnet.backends.engines import ExportEngine
from stnet.backends.program import clip_sizes
from stnet.config import ReaderSection
from stnet.export.deployed import DeployedEngine, digest_of
from stnet.export.formats import exporter
from stnet.metrics.rejection import Rejection
from stnet.models.dygraph import Dygraph
from stnet.models.model import Model
from stnet.models.normalizer import Normalizer
from stnet.utils.atomic import exchange, os_errors_as_user_errors, prepare_folder, sync_folder
from stnet.utils.errors import UserError, last_line
from stnet.utils.files import read_regular
from stnet.utils.parsing import MAX_YAML, parse_yaml
from stnet.utils.signals import Process

logger = logging.getLogger("stnet")
TOLERANCE = 1e-4  # of the probabilities
UNKNOWN_IF = (
    "a clip belongs to no class where the largest value of softmax(logits / temperature) is below threshold; of "
    "probabilities, their logarithms are the logits"
)
_EXPORTING = ".exporting-"


def deploy(
    model: Model,
    section: ReaderSection,
    labels: Sequence[str],
    folder: str,
    file_format: str,
    uint8: bool = False,
    engine: ExportEngine | None = None,
    rejection: Rejection | None = None,
) -> tuple[float, list[str]]:
    """Write a model's files and deploy.yaml into a folder.

    The export is compared with the network, at two shapes, before it is put in place. It replaces an older export
    atomically; other files in the folder stay.

    Args:
        model: in evaluation mode.
        section: its sampling and sizes go into deploy.yaml.
        labels: class names.
        folder: made if missing.
        file_format: "paddle" (NAME.pdmodel and NAME.pdiparams), "onnx" (NAME.onnx), "paddlex" (inference.json,
            inference.pdiparams and inference.yml), or that of another ExportEngine of the table.
        uint8: the model takes bytes, and normalises them itself.
        engine: instead of the format's own, such as stnet.quantize.formats.QuantisedOnnx.
        rejection: which clips are unknown, for deploy.yaml; None: nothing is said of it.

    Returns:
        (largest deviation of the probabilities, names of the files).

    Raises:
        UserError: the folder cannot be written, a package is missing, or the export deviates from the network.
    """
    folder = os.path.realpath(folder)
    if folder.encode("utf-8", "replace").decode("utf-8") != folder:
        raise UserError(f"{folder}: Paddle cannot write into a folder whose path is not UTF-8", "set --save_dir")
    engine = engine or exporter(file_format)
    form = engine.form(model, section, labels, uint8)
    prepare_folder(folder)
    _remove_leftovers(folder)
    with tempfile.TemporaryDirectory(prefix=_temporary(), dir=folder) as unfinished:
        engine.write(form.layer, f"{unfinished}/{form.name}", form.shape)
        files = sorted(file for file in os.listdir(unfinished) if not file.endswith(".info"))
        with tempfile.TemporaryDirectory() as elsewhere:
            for file in files:  # links, so that files which an engine compiles are not exported
                os.symlink(os.path.join(unfinished, file), os.path.join(elsewhere, file))
            try:
                run, names, words = engine.load(f"{elsewhere}/{form.name}")
            except RuntimeError as error:  # Paddle does not notice a full disk when it writes
                raise UserError(
                    f"the exported model cannot be loaded, perhaps the disk is full: {last_line(error)}"
                ) from error
            files += form.companions
            facts = description(form, model, section, labels, files, names)
            exported = DeployedEngine(run, model.config.MODEL, facts, words)
            deviation = largest_deviation(exported, model, section, form.shape[1] is None)
        if not deviation <= (1 if form.precision else TOLERANCE):  # its validation report bounds it
            raise UserError(f"the exported model deviates by {deviation:.2g} from the network: nothing was written")
        for name, content in form.companions.items():
            _write_yaml(f"{unfinished}/{name}", content)
        if rejection:
            digest = digest_of([f"{unfinished}/{name}" for name in files])
            facts["reject"] = {**rejection._asdict(), "sha256": digest, "meaning": UNKNOWN_IF}
        _write_yaml(f"{unfinished}/{FILE}", facts)
        put_in_place(unfinished, folder, [*files, FILE])
    return deviation, [*files, FILE]


def _write_yaml(path: str, content: dict[str, Any]) -> None:
    with open(path, "w", encoding="utf-8") as target:
        yaml.safe_dump(content, target, allow_unicode=True, sort_keys=False)


def put_in_place(unfinished: str, folder: str, names: Sequence[str]) -> None:
    """Move an export from `unfinished`, inside of `folder`, into `folder`. Raises UserError.

    deploy.yaml is moved last, so that a folder with one holds a whole export. To replace an export, a second folder is
    filled with the new one and links to the other files, and the two folders are exchanged.
    """
    if not os.path.exists(f"{folder}/{FILE}"):
        _move(unfinished, folder, names)
        return
    try:
        if os.path.realpath(os.getcwd()) == folder:
            raise OSError(errno.EBUSY, "it is the working directory")
        second = tempfile.mkdtemp(prefix=f".{os.path.basename(folder)}{_temporary()}", dir=os.path.dirname(folder))
        try:
            replaced = {*names, *_model_files(folder)}

            def left_out(parent: str, entries: list[str]) -> list[str]:
                top = parent == folder  # files in subfolders are the user's, whatever their names
                return [name for name in entries if top and (name in replaced or name.startswith(_EXPORTING))]

            shutil.copytree(folder, second, symlinks=True, ignore=left_out, copy_function=os.link, dirs_exist_ok=True)
            _move(unfinished, second, names)
            exchange(folder, second)
            sync_folder(os.path.dirname(folder))
        finally:
            shutil.rmtree(second, ignore_errors=True)
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"the export in {folder} cannot be replaced as a whole ({reason}): it is as it was",
            hint="delete it, or set --save_dir to another folder",
        ) from None


def _model_files(folder: str) -> list[str]:
    """Names of the files of the export in a folder, by its deploy.yaml."""
    try:
        names = parse_yaml(read_regular(f"{folder}/{FILE}", MAX_YAML))["model"]["files"]
        return [name for name in names if isinstance(name, str) and os.path.basename(name) == name]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _move(source: str, folder: str, names: Sequence[str]) -> None:
    with os_errors_as_user_errors(folder):
        for name in names:
            with open(f"{source}/{name}", "rb+") as file:
                os.fsync(file.fileno())
            os.replace(f"{source}/{name}", f"{folder}/{name}")
        sync_folder(folder)


def _temporary() -> str:
    return f"{_EXPORTING}{os.getpid()}-"


def _remove_leftovers(folder: str) -> None:
    """Delete leftovers of killed exports in a folder and next to it."""
    outside = re.compile(rf"\.{re.escape(os.path.basename(folder))}{re.escape(_EXPORTING)}(\d+)-.*")
    inside = re.compile(rf"{re.escape(_EXPORTING)}(\d+)-.*")
    for parent, pattern in ((os.path.dirname(folder), outside), (folder, inside)):
        for match in filter(None, map(pattern.fullmatch, os.listdir(parent))):
            if not Process(int(match[1])).is_alive():
                shutil.rmtree(os.path.join(parent, match[0]), ignore_errors=True)


def largest_deviation(engine: DeployedEngine, model: Model, section: ReaderSection, any_seg_num: bool) -> float:
    """Largest difference of probabilities of an export and the network, on random clips of two shapes; may be NaN."""
    settings = model.config.MODEL
    network = Dygraph(model.network, Normalizer(settings.image_mean, settings.image_std))
    own_seg_num, seglen, size = clip_sizes(section)
    deviations = []
    random = np.random.RandomState(0)
    for batch, seg_num in ((1, own_seg_num), (2, 3 if any_seg_num else own_seg_num)):
        clips = random.randint(0, 256, (batch, seg_num, 3 * seglen, size, size)).astype(np.uint8)
        expected, answer = (F.softmax(paddle.to_tensor(compute(clips))).numpy() for compute in (network, engine))
        deviations.append(np.abs(answer - expected).max())
    return float(np.max(deviations))
