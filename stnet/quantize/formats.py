"""Number formats below float32: files, runtimes, and checks that they work here."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from stnet import runtime
from stnet.backends.deploy_yaml import Form, form_of_clips
from stnet.backends.engines import Loaded, OnnxRuntime
from stnet.backends.program import Exportable, Scorer, Shape, clip_sizes
from stnet.quantize.calibrate import Quantizer
from stnet.quantize.report import this_processor
from stnet.utils.errors import INSTALL_ONNX, INSTALL_OPENVINO, UserError, last_line
from stnet.utils.files import sha256_of

if TYPE_CHECKING:
    from stnet.config import ReaderSection
    from stnet.models.model import Model

logger = logging.getLogger("stnet")
FLOAT32 = "fp32.onnx"  # source of the other files, with a free batch size


class LowPrecisionFormat:
    """Base class. A folder holds FLOAT32 and, after `prepare`, the file of the format."""

    name: str
    file: str
    runtime: str  # the package that runs it
    hint: str  # for users who lack it
    calibrated = False

    def check(self) -> None:
        """Raise UserError where the format cannot be computed."""
        import paddle

        self._need(self.runtime, self.hint)
        try:
            self.runtimes()
        except Exception as error:  # a broken package may raise anything
            raise UserError(
                f"precision {self.name} is not available: {self.runtime} does not work ({last_line(error)})", self.hint
            ) from None
        if paddle.get_device().startswith("gpu"):
            raise UserError(f"precision {self.name} is computed by the processor, and a GPU is in use")

    def check_making(self) -> None:
        """Raise UserError where the files cannot be made."""
        for package in ("onnxruntime", "paddle2onnx"):
            self._need(package, INSTALL_ONNX)

    def _need(self, package: str, hint: str) -> None:
        if not importlib.util.find_spec(package):
            raise UserError(f"precision {self.name} is not available: {package} is not installed", hint)

    def runtimes(self) -> dict[str, str]:
        """Versions of the packages that compute it."""
        return {self.runtime: str(importlib.import_module(self.runtime).__version__)}

    def prepare(self, folder: str, clips: Iterator[np.ndarray]) -> int:
        """Write the file, calibrated on `clips`, each uint8 [1, T, 3 * seglen, H, W]. Returns the number of clips."""
        return 0

    def fp32_layers(self, folder: str) -> Iterator[list[str]]:
        """Rewrite the file with more and more layers in float32; yield their names each time."""
        yield from ()

    def load(self, folder: str, shape: Sequence[int]) -> Loaded:
        """Load the file for clips of a shape."""
        raise NotImplementedError


class BFloat16(LowPrecisionFormat):
    """bfloat16 by OpenVINO, from the float32 file."""

    name, file, runtime, hint = "bf16", FLOAT32, "openvino", INSTALL_OPENVINO

    def check(self) -> None:
        """Raise UserError where OpenVINO or the processor does not support it."""
        if not this_processor().bf16:
            raise UserError("precision bf16 is not available: the processor has neither avx512_bf16 nor amx_bf16")
        super().check()

    def load(self, folder: str, shape: Sequence[int]) -> Loaded:
        """Load the float32 file in OpenVINO, on the CPU. Raises UserError where it is not installed."""
        try:
            import openvino
        except ImportError:
            raise UserError("openvino is not installed", hint=INSTALL_OPENVINO) from None
        core = openvino.Core()
        model = core.read_model(os.path.join(folder, self.file))
        model.reshape(list(shape))
        settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": runtime.threads(), "NUM_STREAMS": 1}
        request = core.compile_model(model, "CPU", settings).create_infer_request()
        names = model.inputs[0].get_any_name(), model.outputs[0].get_any_name()

        def run(clips: np.ndarray) -> np.ndarray:
            return np.array(request.infer([clips])[0])  # a copy: the next call overwrites it

        return run, names, "OpenVINO in bf16"


class Int8(LowPrecisionFormat):
    """int8 by ONNX Runtime: static quantization, per channel."""

    name, file, runtime, hint = "int8", "int8.onnx", "onnxruntime", INSTALL_ONNX
    calibrated = True
    _shares = (0.1, 0.25, 0.5)  # of the layers in float32, one after the other

    def __init__(self) -> None:
        self.quantizer: Quantizer | None = None

    def prepare(self, folder: str, clips: Iterator[np.ndarray]) -> int:
        """Calibrate and quantize."""
        vnni = this_processor().vnni
        if not vnni:
            logger.info("int8: this processor lacks VNNI: weights of seven bits, and less to gain")
        self.quantizer = Quantizer(os.path.join(folder, FLOAT32), reduced=not vnni)
        self.quantizer.calibrate(clips)
        self.quantizer.write(os.path.join(folder, self.file))
        return self.quantizer.clips

    def fp32_layers(self, folder: str) -> Iterator[list[str]]:
        """Keep the layers in float32 whose quantization changes the logits most."""
        assert self.quantizer is not None
        worst, count = self.quantizer.worst_first(), len(self.quantizer.layers())
        for share in self._shares:
            names = worst[: max(2, round(share * count))]
            self.quantizer.write(os.path.join(folder, self.file), names)
            yield names

    def load(self, folder: str, shape: Sequence[int]) -> Loaded:
        """Load the int8 file in ONNX Runtime."""
        run, names, words = OnnxRuntime().load(os.path.join(folder, self.file[: -len(".onnx")]))
        return run, names, f"{words} in int8"


class QuantisedOnnx(OnnxRuntime):
    """Exports a validated int8 file: uint8 in, logits out.

    Args:
        file: int8 ONNX file.
        record: its validation report as plain data, for deploy.yaml.
    """

    def __init__(self, file: str, record: dict[str, Any]) -> None:
        self.file, self.record = file, record

    def form(self, model: Model, section: ReaderSection, labels: Sequence[str], uint8: bool) -> Form:
        """Inputs and outputs of the int8 file, whatever `uint8` says."""
        settings, (seg_num, seglen, size) = model.config.MODEL, clip_sizes(section)
        form = form_of_clips(model, section, uint8=True)
        scorer = Scorer(model.network, settings.image_mean, settings.image_std, seglen)
        shape = [None, seg_num, 3 * seglen, size, size]
        meaning = form.meaning.replace("batch and seg_num", "batch")
        return form._replace(layer=scorer, shape=shape, meaning=meaning, output="logits", precision=self.record)

    def write(self, layer: Exportable, prefix: str, shape: Shape) -> None:
        """Copy the file to PREFIX.onnx. Raises UserError where it is no longer the validated one."""
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
    """Make the format called `name`. Raises UserError where it does not work here."""
    kind = LOW_PRECISION[name]()
    kind.check()
    return kind
