"""Static programs of the network, for paddle.inference and ONNX."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Optional, Union

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from stnet.utils.errors import INSTALL_ONNX, UserError
from stnet.utils.streams import stdout_held_back

if TYPE_CHECKING:
    from stnet.config import ReaderSection

OPSET = 16  # of ONNX files
Shape = Sequence[Optional[int]]  # of clips; None: any size


class Classifier(nn.Layer):
    """Clips [B, T, 3 * seglen, H, W] -> class probabilities [B, num_classes].

    Args:
        network: returns logits; takes normalised float32 clips, or bytes if it is a Scorer.
    """

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.network = network
        self.input_dtype = "uint8" if isinstance(network, Scorer) else "float32"

    def forward(self, clips: paddle.Tensor) -> paddle.Tensor:
        """The softmax of the network's logits."""
        return F.softmax(self.network(clips))


class Scorer(nn.Layer):
    """The reader's uint8 clips [B, T, 3 * seglen, H, W] -> logits [B, num_classes].

    Args:
        network: returns logits.
        mean, std: of R, G, B, as in the configuration.
        seglen: frames in a super-image.
    """

    input_dtype = "uint8"

    def __init__(self, network: nn.Layer, mean: Sequence[float], std: Sequence[float], seglen: int) -> None:
        super().__init__()
        self.network = network
        scale = 1 / (255 * np.tile(np.asarray(std, np.float64), seglen))
        shift = -np.tile(np.asarray(mean, np.float64), seglen) * 255 * scale
        for name, values in (("scale", scale), ("shift", shift)):
            self.register_buffer(name, paddle.to_tensor(values.astype("float32").reshape(1, 1, -1, 1, 1)))

    def forward(self, clips: paddle.Tensor) -> paddle.Tensor:
        """Logits of the normalised clips."""
        return self.network(clips.astype("float32") * self.scale + self.shift)


class FrameScorer(nn.Layer):
    """Normalised float32 frames [B, T * seglen, 3, H, W], segment by segment -> logits [B, num_classes]."""

    input_dtype = "float32"

    def __init__(self, network: nn.Layer, seglen: int) -> None:
        super().__init__()
        self.network, self.seglen = network, seglen

    def forward(self, frames: paddle.Tensor) -> paddle.Tensor:
        """Logits of the segments that the frames make up."""
        height, width = frames.shape[3:]
        return self.network(frames.reshape([0, -1, 3 * self.seglen, height, width]))  # 0: as many as there are


Exportable = Union[Classifier, Scorer, FrameScorer]


def clip_sizes(section: ReaderSection) -> tuple[int, int, int]:
    """(seg_num, seglen, target_size) of a section from stnet.config.Config.section, which fills in the first two."""
    assert section.seg_num is not None and section.seglen is not None
    return section.seg_num, section.seglen, section.target_size


def write_program(layer: Exportable, prefix: str, shape: Shape) -> None:
    """Write PREFIX.pdmodel and PREFIX.pdiparams (or PREFIX.json, should Paddle no longer write the former).

    Args:
        layer: to export; it is put into evaluation mode.
        prefix: path without suffix, in an existing folder.
        shape: of the clips.

    Raises:
        UserError: the files cannot be written.
    """
    with _program_format():
        _save(layer, prefix, shape)


def write_new_program(layer: Exportable, prefix: str, shape: Shape) -> None:
    """Write PREFIX.json and PREFIX.pdiparams, the format of Paddle 3; arguments as write_program.

    Raises:
        UserError: this Paddle does not write it, or the files cannot be written.
    """
    _save(layer, prefix, shape)
    if not os.path.exists(f"{prefix}.json"):
        raise UserError(f"Paddle {paddle.__version__} writes no {os.path.basename(prefix)}.json: Paddle 3 does")


def program_files(prefix: str) -> tuple[str, str]:
    """(program file, parameter file) of an exported program."""
    program = next(path for path in (f"{prefix}.pdmodel", f"{prefix}.json") if os.path.exists(path))
    return program, f"{prefix}.pdiparams"


def write_onnx(layer: Exportable, path: str, shape: Shape) -> None:
    """Write an ONNX file; arguments as write_program.

    Raises:
        UserError: paddle2onnx is missing, or the file cannot be written.
    """
    try:
        import paddle2onnx
    except ImportError:
        raise UserError("ONNX files need two packages, paddle2onnx and onnxruntime", hint=INSTALL_ONNX) from None
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        _save(layer, f"{folder}/model", shape)
        # Without optimizers, which would install packages; ONNX Runtime optimizes on loading.
        with stdout_held_back():
            paddle2onnx.export(*program_files(f"{folder}/model"), path, opset_version=OPSET, optimize_tool="None")
    if not os.path.exists(path):
        raise UserError(f"paddle2onnx has not written {path}")


def _save(layer: Exportable, prefix: str, shape: Shape) -> None:
    layer.eval()
    spec = [paddle.static.InputSpec(list(shape), layer.input_dtype, "clips")]  # it changes the list
    try:
        with _writable_home():
            paddle.jit.save(layer, prefix, input_spec=spec)
    except OSError as error:
        raise UserError(f"cannot write {prefix}: {error.strerror or error}") from None


@contextlib.contextmanager
def _writable_home() -> Iterator[None]:
    """Set HOME to a folder in which Paddle can write code: the user's, or a temporary one."""
    home, cache = os.environ.get("HOME"), os.path.expanduser("~/.cache/paddle")
    try:
        os.makedirs(cache, exist_ok=True)
        tempfile.TemporaryFile(dir=cache).close()
        made = os.path.expanduser("~")
    except OSError:
        made = tempfile.mkdtemp(prefix="stnet-home-")
        atexit.register(shutil.rmtree, made, ignore_errors=True)
    os.environ["HOME"] = made
    try:
        yield
    finally:
        os.environ.pop("HOME")
        os.environ.update({"HOME": home} if home is not None else {})


def _program_format() -> contextlib.AbstractContextManager[None]:
    """Make Paddle 3 write the format of Paddle 2, which its OpenVINO engine and most servers need."""
    try:
        from paddle.pir_utils import OldIrGuard
    except ImportError:
        return contextlib.nullcontext()
    return OldIrGuard()
