"""Exports of the network for a fixed number of clips, compared with the network when they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stnet import runtime
from stnet.backends.cache import cached_export, code_of
from stnet.backends.program import Scorer, clip_sizes
from stnet.models.dygraph import Clips, Dygraph
from stnet.models.normalizer import Normalizer
from stnet.utils.errors import UserError

if TYPE_CHECKING:
    from stnet.backends.engines import ExportEngine, Run, Task
    from stnet.config import ReaderSection

TOLERANCE = 1e-4  # of the logits, relative to the largest where that is above 1
_PIXELS_AT_ONCE = 25 * 256 * 256  # fill the processor; one clip of the test setting


class Exported:
    """A program for a fixed number of clips.

    Args:
        run: from uint8 [at_once, seg_num, 3 * seglen, H, W] to logits.
        at_once: that number; a smaller remainder is padded with zeros.
        name: for the log.
    """

    def __init__(self, run: Run, at_once: int, name: str) -> None:
        self.run, self.at_once, self.name = run, at_once, name

    def __call__(self, clips: Clips) -> np.ndarray:
        """uint8 clips -> logits [B, num_classes] float32."""
        clips = np.asarray(clips)
        logits = []
        for start in range(0, len(clips), self.at_once):
            part = clips[start : start + self.at_once]
            padding = np.zeros((self.at_once - len(part), *part.shape[1:]), part.dtype)
            padded = np.concatenate([part, padding]) if len(padding) else part
            logits.append(self.run(np.ascontiguousarray(padded))[: len(part)])
        return np.concatenate(logits)


def clips_at_once(section: ReaderSection) -> int:
    """Clips of an exported program: more than one where a clip is too small to fill the processor."""
    seg_num, _, size = clip_sizes(section)
    pixels = seg_num * size**2
    return max(1, min(section.batch_size, _PIXELS_AT_ONCE // pixels))


def make_exported(engine: ExportEngine, task: Task) -> Exported:
    """Load the export of a task's network from the cache, or make it."""
    model, section = task.model, task.section
    settings, network = model.config.MODEL, model.network
    at_once = min(clips_at_once(section), task.clips or section.batch_size)
    seg_num, seglen, size = clip_sizes(section)
    shape = [at_once, seg_num, 3 * seglen, size, size]
    programs: list[Exported] = []  # one at most: Paddle does not free the memory of further ones

    def program(folder: str) -> Exported:
        if not programs:
            run, _, name = engine.load(f"{folder}/model")
            programs.append(Exported(run, at_once, name))
        return programs[0]

    def export(folder: str) -> None:
        clips = np.random.RandomState(0).randint(0, 256, (1, *shape[1:])).astype(np.uint8)
        expected = Dygraph(network, Normalizer(settings.image_mean, settings.image_std))(clips)
        runtime.release_memory()  # before the next step
        engine.write(Scorer(network, settings.image_mean, settings.image_std, seglen), f"{folder}/model", shape)
        runtime.release_memory()
        check(program(folder)(clips), expected)
        runtime.release_memory()

    code = code_of(type(engine), type(model), *map(type, network.sublayers(include_self=True)))
    own = {**model.own_settings(), "seglen": model.seglen, "seg_num": settings.seg_num}
    dependencies = [code, own, shape, settings.image_mean, settings.image_std]
    return program(cached_export(network, dependencies, export, task.digest))


def check(logits: np.ndarray, expected: np.ndarray) -> None:
    """Compare an engine's logits with the network's.

    Raises:
        UserError: they deviate by more than TOLERANCE.
    """
    if logits.shape != expected.shape:
        raise UserError(f"its logits are of shape {list(logits.shape)}, the network's of {list(expected.shape)}")
    deviation = np.abs(logits - expected).max() / max(1.0, np.abs(expected).max())
    if not deviation <= TOLERANCE:
        raise UserError(f"its logits deviate from the network's by {deviation:.2g}")
