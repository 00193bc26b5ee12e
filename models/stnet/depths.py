"""Residual networks that StNet is built on."""

from __future__ import annotations

from typing import NamedTuple


class Depth(NamedTuple):
    """Blocks of a residual network."""

    blocks: tuple[int, ...]  # residual blocks in each of the four stages
    bottleneck: bool  # bottleneck (three convolutions) or basic (two) blocks

    @property
    def convs(self) -> int:
        """Convolutions on the main path of a block."""
        return 3 if self.bottleneck else 2

    @property
    def expansion(self) -> int:
        """Output channels of a block / its width."""
        return 4 if self.bottleneck else 1


DEPTHS = {
    18: Depth((2, 2, 2, 2), False),
    34: Depth((3, 4, 6, 3), False),
    50: Depth((3, 4, 6, 3), True),
    101: Depth((3, 4, 23, 3), True),
    152: Depth((3, 8, 36, 3), True),
}
WIDTHS = (64, 128, 256, 512)
