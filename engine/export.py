"""The network as a static program for paddle.inference."""

import os

import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

from core.errors import UserError


class _Probabilities(nn.Layer):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, clips):
        return F.softmax(self.network(clips))


def export(network, section, prefix):
    """Write PREFIX.* for paddle.inference and check it against the network.

    Args:
        network: StNet in evaluation mode.
        section: core.config.ReaderSection; its batch_size, seg_num, seglen and target_size fix the input shape
            [batch_size, seg_num, 3 * seglen, target_size, target_size], normalised float32.
        prefix: path without suffix.

    Returns:
        largest difference of the probabilities on a random clip.

    Raises:
        UserError: the folder cannot be written, or the export computes something else.
    """
    size = section.target_size
    shape = [section.batch_size, section.seg_num, 3 * section.seglen, size, size]
    layer = _Probabilities(network)
    layer.eval()
    try:
        os.makedirs(os.path.dirname(os.path.abspath(prefix)), exist_ok=True)
        paddle.jit.save(layer, prefix, input_spec=[paddle.static.InputSpec(shape, "float32", "clips")])
    except OSError as error:
        raise UserError(f"cannot write {prefix}: {error.strerror or error}") from None
    clips = paddle.to_tensor(np.random.RandomState(0).randn(*shape).astype("float32"))
    with paddle.no_grad():
        deviation = float((paddle.jit.load(prefix)(clips) - layer(clips)).abs().max())
    if not deviation < 1e-4:
        raise UserError(f"{prefix}: the exported model deviates by {deviation} from the original")
    return deviation
