"""Normalize uint8 clips to the network's input."""

from __future__ import annotations

from collections.abc import Sequence

import paddle


class Normalizer:
    """`(clip / 255 - mean) / std` per colour, on the device that holds the clip.

    Args:
        mean, std: three numbers each, R, G, B.
        dtype: of the result.

    In float32 the result equals the original's NumPy arithmetic bit for bit.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], dtype: str = "float32") -> None:
        self.dtype = dtype
        self.white = paddle.to_tensor(255.0, dtype)  # a tensor: Paddle 2.6 multiplies by 1/255 for a number
        self.mean = paddle.to_tensor(mean, dtype).reshape([1, 1, 1, 3, 1, 1])
        self.std = paddle.to_tensor(std, dtype).reshape([1, 1, 1, 3, 1, 1])

    def __call__(self, clips: paddle.Tensor) -> paddle.Tensor:
        """uint8 [B, seg_num, 3 * seglen, H, W] -> `dtype`, same shape."""
        b, t, c, h, w = clips.shape
        x = clips.reshape([b, t, c // 3, 3, h, w]).astype(self.dtype)  # in place below, to save memory
        return x.divide_(self.white).subtract_(self.mean).divide_(self.std).reshape_([b, t, c, h, w])
