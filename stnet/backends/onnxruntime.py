"""An ONNX file in ONNX Runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stnet import runtime
from stnet.utils.errors import INSTALL_ONNX, UserError

if TYPE_CHECKING:
    from stnet.backends.engines import Loaded


def load(prefix: str) -> Loaded:
    """PREFIX.onnx, on the CPU. Raises UserError where ONNX Runtime is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed", hint=INSTALL_ONNX) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = runtime.threads()
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(f"{prefix}.onnx", options, providers=["CPUExecutionProvider"])
    names = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda clips: session.run(None, {names[0]: clips})[0], names, "ONNX Runtime"
