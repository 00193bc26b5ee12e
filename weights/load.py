"""Weights into a network. Nothing loads by halves: every tensor is found with the right shape, or nothing is set."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from core.errors import UserError
from core.files import StrPath
from weights.formats import Weights, read_weights

if TYPE_CHECKING:
    import paddle

logger = logging.getLogger("stnet")

# Names of a backbone, structured or original. Whatever else an ImageNet file holds (its fc) is not used.
_BACKBONE = re.compile(r"(conv1|bn1|layer\d)\.|(res|bn)\d|(bn_)?conv1_")
_OTHER_BN_NAMES = {"running_mean": "_mean", "running_var": "_variance"}


def load_weights(network: paddle.nn.Layer, path: StrPath, names: Mapping[str, str]) -> None:
    """Set every tensor of a network from a file of any format.

    Args:
        path: file or folder.
        names: original name -> structured name of the network's tensors.

    Raises:
        UserError: listing missing, unexpected and mismatched tensors; the network is then unchanged.
    """
    tensors = structured_tensors(read_weights(path), names, path)
    _refuse(path, _differences(_shapes(network), tensors))
    _set(network, tensors)


def load_for_finetuning(network: paddle.nn.Layer, path: StrPath, names: Mapping[str, str], head: str = "fc.") -> None:
    """As load_weights, but a head for another number of classes keeps its initial values, which the log says."""
    tensors = structured_tensors(read_weights(path), names, path)
    shapes = _shapes(network)
    other = [n for n in shapes if n.startswith(head) and n in tensors and list(tensors[n].shape) != shapes[n]]
    if other:
        classes = tensors[other[-1]].shape[-1:]
        logger.info("%s is for %s classes: %s start anew", path, *classes, ", ".join(other))
        shapes = {n: shape for n, shape in shapes.items() if not n.startswith(head)}
        tensors = {n: tensor for n, tensor in tensors.items() if not n.startswith(head)}
    _refuse(path, _differences(shapes, tensors))
    _set(network, tensors)


def load_pretrained(network: paddle.nn.Layer, path: StrPath, names: Mapping[str, str]) -> None:
    """Start training from ImageNet's ResNet, or from StNet itself.

    From a ResNet come the convolutions and batch norms of the backbone; conv1 [64, 3, 7, 7] is inflated to the
    network's 3 * seglen channels. The temporal blocks, the Xception block and fc keep their initial values.

    Args:
        network, path, names: as load_weights. The file may have original names, or the structured names that
            paddle.vision and torchvision share.
    """
    weights = read_weights(path)
    tensors = structured_tensors(weights, names, path)
    if any(name.startswith("temporal") for name in tensors):
        load_for_finetuning(network, path, names)
        logger.info("starting from the StNet in %s", path)
        return
    shapes = {name: shape for name, shape in _shapes(network).items() if _BACKBONE.match(name)}
    strange = [name for name in tensors if name not in shapes and _BACKBONE.match(name)]
    tensors = {name: tensor for name, tensor in tensors.items() if name in shapes}
    if "conv1.weight" in tensors:
        tensors["conv1.weight"] = inflate(tensors["conv1.weight"], shapes["conv1.weight"][1])
    _refuse(path, _differences(shapes, {**tensors, **dict.fromkeys(strange)}))
    _set(network, tensors)
    logger.info("starting from the ResNet in %s: %d tensors of the backbone; all else is new", path, len(tensors))


def inflate(weight: np.ndarray, channels: int) -> np.ndarray:
    """conv1 of ImageNet [C, 3, h, w] for super-images [C, channels, h, w]: the mean colour, spread over the frames."""
    if weight.ndim != 4 or weight.shape[1] == channels:
        return weight
    seglen = channels // 3
    return np.repeat(weight.mean(axis=1, keepdims=True) / seglen, channels, axis=1).astype(weight.dtype)


def structured_tensors(weights: Weights, names: Mapping[str, str], path: StrPath) -> dict[str, np.ndarray]:
    """Structured name -> array, whatever names the file uses; original names that no table knows stay as they are.

    Raises:
        UserError: a combined file for another depth, or a negative variance.
    """
    tensors = weights.tensors
    if weights.format == "combined":
        if len(tensors) != len(names):
            raise UserError(
                f"weights {path}: the file holds {len(tensors)} tensors, this model has {len(names)}; "
                "is it for another depth (MODEL.num_layers)?"
            )
        tensors = {name: tensors[i] for i, name in enumerate(sorted(names))}
    tensors = {names.get(name) or _paddle_name(name): tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        if name.endswith("_variance") and (tensor < 0).any():
            raise UserError(f"weights {path}: tensor {name} holds variances below 0")
    return tensors


def _paddle_name(name: str) -> str:
    start, _, last = name.rpartition(".")
    return f"{start}.{_OTHER_BN_NAMES[last]}" if last in _OTHER_BN_NAMES else name


def _shapes(network: paddle.nn.Layer) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in network.state_dict().items()}


def _differences(shapes: Mapping[str, list[int]], tensors: Mapping[str, Any]) -> list[str]:
    """Messages: what is missing, unexpected, or of another shape."""
    missing = [name for name in shapes if name not in tensors]
    unexpected = [name for name in tensors if name not in shapes]
    wrong = [
        f"{name} is {list(tensors[name].shape)}, expected {shape}"
        for name, shape in shapes.items()
        if name in tensors and list(tensors[name].shape) != shape
    ]
    return [
        f"{len(items)} {word}: {', '.join(items[:4])}{', ...' if len(items) > 4 else ''}"
        for word, items in (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        if items
    ]


def _refuse(path: StrPath, problems: Sequence[str]) -> None:
    if problems:
        raise UserError(f"weights {path} do not fit the model: {'; '.join(problems)}")


def _set(network: paddle.nn.Layer, tensors: Mapping[str, np.ndarray]) -> None:
    for name, value in network.state_dict().items():
        if name in tensors:
            value.set_value(np.ascontiguousarray(tensors[name]).astype(str(value.dtype).rsplit(".", 1)[-1]))
