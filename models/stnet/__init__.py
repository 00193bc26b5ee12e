"""StNet (arXiv 1811.01549)."""

from stnet.models.stnet.stnet import STNET

__all__ = ["STNET"]
