"""StNet (arXiv 1811.01549)."""

from models.stnet.stnet import STNET

__all__ = ["STNET"]
