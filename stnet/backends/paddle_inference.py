"""An exported program in paddle.inference."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import numpy as np
import paddle

from stnet import runtime
from stnet.backends.program import program_files

if TYPE_CHECKING:
    from stnet.backends.engines import Loaded


def load(prefix: str) -> Loaded:
    """A program that runs by OpenVINO where Paddle brings it, else by oneDNN; or on the GPU."""
    if paddle.get_device().startswith("gpu"):
        backend, predictor = "GPU", _predictor(prefix, "GPU")
    else:
        try:
            backend, predictor = "OpenVINO", _predictor(prefix, "OpenVINO")
        except Exception:  # an older Paddle, or one built without it; each says so in its own way
            backend, predictor = "oneDNN", _predictor(prefix, "oneDNN")
    names = predictor.get_input_names()[0], predictor.get_output_names()[0]
    source, result = predictor.get_input_handle(names[0]), predictor.get_output_handle(names[1])

    def run(clips: np.ndarray) -> np.ndarray:
        source.reshape(clips.shape)
        source.copy_from_cpu(clips)
        predictor.run()
        return result.copy_to_cpu()

    return run, names, f"paddle.inference with {backend}"


def _predictor(prefix: str, backend: str) -> paddle.inference.Predictor:
    from paddle import inference

    config = inference.Config(*program_files(prefix))
    config.disable_glog_info()
    if backend == "GPU":
        config.enable_use_gpu(256, 0)
    else:
        config.disable_gpu()
        config.set_cpu_math_library_num_threads(runtime.threads())
    if backend == "OpenVINO":
        config.enable_openvino_engine(inference.PrecisionType.Float32)
    if backend == "oneDNN":
        config.enable_mkldnn()
    with tempfile.TemporaryDirectory() as compiled:  # OpenVINO writes its code anew at every start
        config.set_optim_cache_dir(compiled)
        return inference.create_predictor(config)
