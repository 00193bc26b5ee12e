"""Every file format that StNet weights were published in, detected by content, not by name.

- combined (release 1.6): one LoDTensor after another, sorted by original name, no names in the file;
- pickle (1.7 and later, and today's paddle.save): a dict from name to array, names original or structured;
- folder (1.5, ResNet50_pretrained): one LoDTensor per file, the file's name is the original name;
- folder `model` of a PaddleHub module (stnet_kinetics400): the same, each name behind @HUB_stnet_kinetics400@.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from stnet.utils.errors import UserError
from stnet.utils.files import StrPath, read_regular
from stnet.utils.safe_pickle import load_plain
from stnet.weights.lod_tensor import HEADER, LodTensorError, read_tensor, tensor_bytes

MAX_BYTES = 2 << 30  # of a file or folder; a StNet of 152 layers takes 0.3 GB
_MAX_TENSORS = 10_000  # or files of a folder; a StNet of 152 layers has 811
_MAX_RECORD = 4 << 20  # bytes
_PADDLE_KEY = "StructuredToParameterName@@"
_HUB_PREFIX = re.compile(r"@HUB_[^@]+@")  # of every name in a PaddleHub module
_HUB_FOLDER = "model"  # of a module's tensors
_OTHER_BN_NAMES = {"running_mean": "_mean", "running_var": "_variance"}  # PyTorch's -> Paddle's

Names = Mapping[str, str]  # original name -> structured name
Tensors = dict[Any, np.ndarray]
Describe = Callable[[str, str], Optional[dict[str, Any]]]  # (path, digest) -> metadata


@dataclass(frozen=True)
class Weights:
    """Content of a file or folder of weights, read once and hashed once."""

    path: str
    format: str  # "combined", "pickle" or "folder"
    digests: Mapping[str, str]  # SHA-256 of each file of a folder by name; of a single file by the name ""
    tensors: Tensors  # floats, by structured name, or by the name in the file if it is unknown
    description: Mapping[str, Any] | None = None  # metadata of a checkpoint

    @property
    def digest(self) -> str:
        """SHA-256 of the file or folder."""
        return digest_of(self.digests)


def read_weights(path: StrPath, names: Names | None = None, describe: Describe | None = None) -> Weights:
    """Read a file or folder of weights.

    Args:
        path: file or folder, also that of a PaddleHub module.
        names: of the network's tensors; None keeps the names in the file, or numbers (0, 1, 2, ...) where it has none.
        describe: reads the metadata of the weights, before they are parsed; may raise UserError.

    Raises:
        UserError: missing, larger than any StNet, damaged, of unknown format, not of its recorded SHA-256, not finite
            in float32; or without names, and of another number of tensors than `names`. Names the file and, if known,
            the tensor and the offset.
    """
    path, contents = _read(os.fspath(path))
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    recorded = verify(path, digests)
    description = describe(path, digest_of(digests)) if describe else None
    file_format, tensors = _parse(path, contents, recorded)
    for name, tensor in tensors.items():
        with np.errstate(over="ignore"):
            fits_float32 = np.isfinite(tensor.astype("float32", copy=False)).all()
        if not fits_float32:
            what = "beyond the range of float32" if np.isfinite(tensor).all() else "that are not finite"
            raise UserError(f"weights {path}: tensor {name} holds values {what}")
    if names is not None:
        tensors = _structured(tensors, names, path, file_format)
    return Weights(path, file_format, digests, tensors, description)


def _read(path: str) -> tuple[str, dict[str, bytes]]:
    """(file or folder with tensors, its contents by file name); the name of a single file is ""."""
    if not os.path.isdir(path):
        return path, {"": _read_file(path)}
    contents, inner = _read_folder(path), os.path.join(path, _HUB_FOLDER)
    if os.path.isdir(inner) and not any(data.startswith(HEADER) for data in contents.values()):
        return inner, _read_folder(inner)
    return path, contents


def digest_of(digests: Mapping[str, str]) -> str:
    """SHA-256 of a folder, from those of its files; of a single file, its own."""
    return digests[""] if list(digests) == [""] else hashlib.sha256(record_text(digests).encode()).hexdigest()


def _parse(path: str, contents: Mapping[str, bytes], recorded: set[str] | None) -> tuple[str, Tensors]:
    """(format, tensors by their names in the file)."""
    if list(contents) != [""]:
        return "folder", _parse_folder(path, contents, recorded)
    data = contents[""]
    if data[:1] == b"\x80":
        return "pickle", _parse_pickle(data, path)
    if data[: len(HEADER)] == HEADER:
        return "combined", _parse_combined(data, path)
    raise UserError(f"weights {path}: {_unknown_format(data)}")


def _structured(tensors: Tensors, names: Names, path: str, file_format: str) -> Tensors:
    """Structured name -> array, for original and structured names; unknown original names are kept."""
    if file_format == "combined":
        if len(tensors) != len(names):
            raise UserError(
                f"weights {path}: the file holds {len(tensors)} tensors, this model has {len(names)}"
                if names
                else f"weights {path}: the file holds tensors without names, and this model has no order of them",
                "set the sizes in MODEL, such as the depth, to those that the weights were made for",
            )
        tensors = {name: tensors[i] for i, name in enumerate(sorted(names))}
    found: Tensors = {}
    for given, tensor in tensors.items():
        plain = _HUB_PREFIX.sub("", given)
        layer, _, last = plain.rpartition(".")
        structured = f"{layer}.{_OTHER_BN_NAMES[last]}" if last in _OTHER_BN_NAMES else plain
        name = names.get(plain) or structured
        if name in found:
            raise UserError(f"weights {path}: there are two tensors {name}, one of them named {given}")
        if name.endswith("_variance") and (tensor < 0).any():
            raise UserError(f"weights {path}: tensor {name} holds variances below 0")
        found[name] = tensor
    return found


def _read_file(path: str) -> bytes:
    try:
        return read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        raise UserError(f"weights {path}: no such file") from None
    except OSError as error:
        raise UserError(f"weights {path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise UserError(f"weights {path}: {error}") from None


def _unknown_format(data: bytes) -> str:
    if not data:
        return "the file is empty"
    if data[:2] == b"PK":
        return (
            "a zip archive, as PyTorch writes; convert it where PyTorch is installed: pickle.dump("
            "{k: v.numpy() for k, v in torch.load(FILE).items()}, open(OUT, 'wb'), protocol=4)"
        )
    if data[:2] == b"\x1f\x8b":
        return "a gzip archive; unpack it and give the folder"
    return f"neither Paddle tensors nor a pickle (it starts with {data[:8]!r}, at offset 0)"


def _parse_combined(data: bytes, path: str) -> Tensors:
    tensors: Tensors = {}
    offset = 0
    while offset < len(data):
        if len(tensors) == _MAX_TENSORS:
            raise UserError(f"weights {path}: more than {_MAX_TENSORS} tensors, at offset {offset}")
        tensors[len(tensors)], offset = _read_tensor(data, offset, path, f"tensor {len(tensors)}")
    return tensors


def _read_tensor(data: bytes, offset: int, path: str, what: str) -> tuple[np.ndarray, int]:
    try:
        return read_tensor(data, offset)
    except LodTensorError as error:
        raise UserError(f"weights {path}, {what}: {error}") from None


def _read_folder(path: str) -> dict[str, bytes]:
    names = sorted(os.listdir(path))
    if len(names) > _MAX_TENSORS:
        raise UserError(f"weights {path}: a folder of {len(names)} files is no folder of weights")
    files = {name: os.path.join(path, name) for name in names if os.path.isfile(os.path.join(path, name))}
    total = sum(os.path.getsize(file) for file in files.values())
    if total > MAX_BYTES:
        raise UserError(f"weights {path}: a folder of {total} bytes is no folder of weights")
    return {name: _read_file(file) for name, file in files.items()}


def _parse_folder(path: str, contents: Mapping[str, bytes], recorded: set[str] | None) -> Tensors:
    tensors: Tensors = {}
    for name, content in contents.items():
        file = os.path.join(path, name)
        if not content or not HEADER.startswith(content[: len(HEADER)]):
            continue  # another file, such as a script; a cut header is a damaged parameter
        array, end = _read_tensor(content, 0, file, f"tensor {name}")
        if end != len(content):
            raise UserError(f"weights {file}, tensor {name}: {len(content) - end} bytes follow at offset {end}")
        tensors[name] = array
        if recorded is not None and name not in recorded:
            raise UserError(f"weights {file}: {path}.sha256 does not record it", hint="delete one of the two")
    if not tensors:
        checkpoints = sorted(name for name in os.listdir(path) if name.endswith(".pdparams"))
        held = f"; it holds {', '.join(checkpoints)}: name one of them" if checkpoints else ""
        raise UserError(f"weights {path}: the folder holds no Paddle tensors{held}")
    return tensors


def _parse_pickle(data: bytes, path: str) -> Tensors:
    try:
        value = load_plain(data)
    except ValueError as error:
        raise UserError(f"weights {path}: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"weights {path}: expected a dict of parameters, found a {type(value).__name__}")
    value = value.get("model", value.get("state_dict", value)) if _PADDLE_KEY not in value else value
    if not isinstance(value, dict):
        raise UserError(f"weights {path}: expected a dict of parameters, found a {type(value).__name__}")
    tensors = {}
    for name, tensor in value.items():
        if name == _PADDLE_KEY or str(name).endswith("num_batches_tracked"):
            continue
        if isinstance(tensor, tuple) and len(tensor) == 2:
            tensor = tensor[1]  # paddle.save writes (Paddle's own name, array) under some settings  # noqa: PLW2901
        if not isinstance(name, str) or not isinstance(tensor, np.ndarray) or tensor.dtype.kind != "f":
            raise UserError(f"weights {path}: {name!r:.80} is not an array of floats")
        tensors[name] = tensor
    return tensors


# Recorded SHA-256 -----------------------------------------------------------------------------------------------


def verify(path: str, digests: Mapping[str, str]) -> set[str] | None:
    """Compare with PATH.sha256, if there is one (as sha256sum writes it: `digest  name`, a line for each file).

    Args:
        path: file or folder.
        digests: by relative name; "" is the file itself.

    Returns:
        the recorded names, or None if there is no record.

    Raises:
        UserError: a digest differs, a listed file is missing, or the record is damaged.
    """
    record = f"{path.rstrip('/')}.sha256"
    lines = _read_record(record)
    if lines is None:
        return None
    whole = list(digests) == [""]
    for digest, recorded_name in lines:
        name = "" if whole else recorded_name
        if digests.get(name) != digest.lower():
            at = path if whole else os.path.join(path, name)
            raise UserError(
                f"weights {at}: the content is not what {record} records",
                hint="delete both to fetch them again, or the record alone if you changed the file yourself",
            )
    return {name for _, name in lines}


def _read_record(record: str) -> list[tuple[str, str]] | None:
    """(digest, name) of each line, or None if there is no such file."""
    try:
        text = read_regular(record, _MAX_RECORD).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return None
        raise UserError(f"{record} cannot be read: {error}") from None
    lines = [line for line in text.splitlines() if line.strip()]
    matches = [match for line in lines if (match := re.fullmatch(r"([0-9a-fA-F]{64})(?: [ *](.+))?", line))]
    if not matches or len(matches) < len(lines):
        raise UserError(
            f"{record} is no record of SHA-256 digests, as sha256sum writes it", hint="delete it, or mend it"
        )
    return [(match[1], match[2] or "") for match in matches]


def record_text(digests: Mapping[str, str]) -> str:
    """The text of a .sha256 record for digests by relative name, as sha256sum writes it."""
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


# Writing --------------------------------------------------------------------------------------------------------


def combined_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Encode {original name: float32 array} as release 1.6 did: sorted by name, without names."""
    return b"".join(tensor_bytes(tensors[name]) for name in sorted(tensors))


def pickle_bytes(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Encode {name: float32 array} as releases 1.7 and 1.8 did."""
    return pickle.dumps({name: np.ascontiguousarray(tensors[name], "float32") for name in sorted(tensors)}, protocol=2)
