"""The table of number formats below float32: what makes and runs a network in each, and where that works."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stnet.backends.deploy_yaml import Form, form_of_clips
from stnet.backends.engines import Loaded, OnnxRuntime
from stnet.backends.program import Exportable, Scorer, Shape, clip_sizes
from stnet.quantize.processor import this_processor
from stnet.utils.errors import INSTALL_ONNX, INSTALL_OPENVINO, UserError, last_line
from stnet.utils.files import sha256_of

if TYPE_CHECKING:
    from stnet.config import ReaderSection
    from stnet.models.model import Model
    from stnet.quantize.quantize import Quantizer

logger = logging.getLogger("stnet")
FLOAT32 = "fp32.onnx"  # what the others are made of, for any number of clips


class LowPrecisionFormat:
    """Base of the number formats. A folder holds FLOAT32 and, after `prepare`, the file of the format."""

    name: str
    file: str
    runtime: str  # the package that runs it
    hint: str  # where that is missing
    calibrated = False

    def check(self) -> None:
        """Raise UserError where it cannot be computed."""
        import paddle

        self._need(self.runtime, self.hint)
        try:
            self.runtimes()
        except Exception as error:  # a package that is broken raises what it likes
            raise UserError(
                f"precision {self.name} cannot be had: {self.runtime} does not work ({last_line(error)})", self.hint
            ) from None
        if paddle.get_device().startswith("gpu"):
            raise UserError(f"precision {self.name} is computed by the processor, and a GPU is in use")

    def check_making(self) -> None:
        """Raise UserError where its files cannot be made."""
        for package in ("onnxruntime", "paddle2onnx"):
            self._need(package, INSTALL_ONNX)

    def _need(self, package: str, hint: str) -> None:
        if not importlib.util.find_spec(package):
            raise UserError(f"precision {self.name} cannot be had: {package} is not installed", hint)

    def runtimes(self) -> dict[str, str]:
        """Versions of what computes it."""
        return {self.runtime: str(importlib.import_module(self.runtime).__version__)}

    def prepare(self, folder: str, clips: Iterator[np.ndarray]) -> int:
        """Write the file. `clips`: each uint8 [1, T, 3 * seglen, H, W], to calibrate it. Returns how many it took."""
        return 0

    def fp32_layers(self, folder: str) -> Iterator[list[str]]:
        """Write the file with fewer and fewer layers in the format; each time give those that are in float32."""
        yield from ()

    def load(self, folder: str, shape: Sequence[int]) -> Loaded:
        """The file, for clips of a shape."""
        raise NotImplementedError


class BFloat16(LowPrecisionFormat):
    """Half of float32's bits, by OpenVINO: the float32 file as it is."""

    name, file, runtime, hint = "bf16", FLOAT32, "openvino", INSTALL_OPENVINO

    def check(self) -> None:
        """As LowPrecisionFormat's; and the processor must compute in it."""
        if not this_processor().bf16:
            raise UserError("precision bf16 cannot be had: the processor has neither avx512_bf16 nor amx_bf16")
        super().check()

    def load(self, folder: str, shape: Sequence[int]) -> Loaded:
        """See stnet.backends.openvino."""
        from stnet.backends.openvino import load

        return load(os.path.join(folder, self.file), shape)


class Int8(LowPrecisionFormat):
    """Bytes, by ONNX Runtime: static, per channel."""

    name, file, runtime, hint = "int8", "int8.onnx", "onnxruntime", INSTALL_ONNX
    calibrated = True
    _left = (0.1, 0.25, 0.5)  # shares of the layers that are left in float32, one after the other

    def __init__(self) -> None:
        self.quantizer: Quantizer | None = None

    def prepare(self, folder: str, clips: Iterator[np.ndarray]) -> int:
        """Calibrate and quantise."""
        from stnet.quantize.quantize import Quantizer

        vnni = this_processor().vnni
        if not vnni:
            logger.info("int8: this processor lacks VNNI: weights of seven bits, and less to gain")
        self.quantizer = Quantizer(os.path.join(folder, FLOAT32), reduced=not vnni)
        self.quantizer.calibrate(clips)
        self.quantizer.write(os.path.join(folder, self.file))
        return self.quantizer.clips

    def fp32_layers(self, folder: str) -> Iterator[list[str]]:
        """Those layers first whose quantisation moves the logits most."""
        assert self.quantizer is not None
        worst, count = self.quantizer.worst_first(), len(self.quantizer.layers())
        for share in self._left:
            names = worst[: max(2, round(share * count))]
            self.quantizer.write(os.path.join(folder, self.file), names)
            yield names

    def load(self, folder: str, shape: Sequence[int]) -> Loaded:
        """See stnet.backends.onnxruntime."""
        from stnet.backends.onnxruntime import load

        run, names, words = load(os.path.join(folder, self.file[: -len(".onnx")]))
        return run, names, f"{words} in int8"


class QuantisedOnnx(OnnxRuntime):
    """Exports an Int8's file, as it was proven: bytes in, logits out.

    Args:
        file: of the Int8.
        record: as plain data; it goes into deploy.yaml.
    """

    def __init__(self, file: str, record: dict[str, Any]) -> None:
        self.file, self.record = file, record

    def form(self, model: Model, section: ReaderSection, labels: Sequence[str], uint8: bool) -> Form:
        """That of the file."""
        settings, (seg_num, seglen, size) = model.config.MODEL, clip_sizes(section)
        form = form_of_clips(model, section, uint8=True)
        scorer = Scorer(model.network, settings.image_mean, settings.image_std, seglen)
        shape = [None, seg_num, 3 * seglen, size, size]
        meaning = form.meaning.replace("batch and seg_num", "batch")
        return form._replace(layer=scorer, shape=shape, meaning=meaning, output="logits", precision=self.record)

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """PREFIX.onnx. Raises UserError where the file is no longer the proven one."""
        try:
            shutil.copyfile(self.file, f"{prefix}.onnx")
            copied = sha256_of(f"{prefix}.onnx")
        except FileNotFoundError:
            copied = ""
        if copied != self.record["sha256"]:
            raise UserError(f"{self.file} was replaced by another process meanwhile", "run it again")


LOW_PRECISION: dict[str, Callable[[], LowPrecisionFormat]] = {"int8": Int8, "bf16": BFloat16}
PRECISIONS = ("fp32", *LOW_PRECISION, "auto")


def low_precision_format(name: str) -> LowPrecisionFormat:
    """The format of a name, if it works here. Raises UserError."""
    kind = LOW_PRECISION[name]()
    kind.check()
    return kind
