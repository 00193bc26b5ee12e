"""An ONNX file in OpenVINO, in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stnet import runtime
from stnet.utils.errors import INSTALL_OPENVINO, UserError

if TYPE_CHECKING:
    from stnet.backends.engines import Loaded


def load(path: str, shape: Sequence[int]) -> Loaded:
    """An ONNX file for clips of a shape, on the CPU. Raises UserError where OpenVINO is not installed."""
    try:
        import openvino
    except ImportError:
        raise UserError("openvino is not installed", hint=INSTALL_OPENVINO) from None
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(shape))
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": runtime.threads(), "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    names = model.inputs[0].get_any_name(), model.outputs[0].get_any_name()

    def run(clips: np.ndarray) -> np.ndarray:
        return np.array(request.infer([clips])[0])  # a copy: the next call writes over it

    return run, names, "OpenVINO in bf16"
