"""Explanations of predictions: shares of the segments in a logit, and occlusion maps."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stnet.backends.engines import Run
from stnet.metrics.probabilities import softmax
from stnet.utils.atomic import write_atomically, write_json
from stnet.utils.files import StrPath, file_in
from stnet.utils.fonts import drawable, drawing
from stnet.utils.progress import Progress
from stnet.utils.schema import SCHEMA

if TYPE_CHECKING:
    from stnet.backends.stages import StagedNetwork

_CLIPS_AT_ONCE = 4
_NAME = 40  # characters of a class name in the figure


class ClassReason(NamedTuple):
    """Explanation of one class. The logit is the sum of `shares` and `rest`."""

    class_id: int
    label: str
    score: float  # probability
    logit: float
    shares: list[float]  # contribution of each segment, [T]
    rest: float  # the classifier's bias
    where: list[list[float]]  # fall of the logit when a square is blanked, [grid, grid]; empty: not computed


@dataclass
class Explanation:
    """Explanation of some classes of a clip."""

    input_path: str
    segments: list[list[int]]  # frame numbers
    classes: list[ClassReason]
    frames: np.ndarray = field(repr=False, compare=False)  # uint8 [T, H, W, 3]: the middle one of each segment

    @property
    def json(self) -> dict[str, Any]:
        """Plain data, without the frames."""
        classes = [reason._asdict() for reason in self.classes]
        return {"input_path": self.input_path, "segments": self.segments, "classes": classes}

    def save_to_json(self, path: StrPath) -> str:
        """Write `json` and the schema into a .json file, or into NAME.why.json in a folder; returns its path."""
        path = file_in(path, self.input_path, ".why.json", ".json")
        write_json(path, {"schema": SCHEMA, **self.json})
        return path

    def save_to_img(self, path: StrPath) -> str:
        """Draw middle frames, shares and maps into a .png file, or NAME.why.png in a folder; returns its path."""
        path = file_in(path, self.input_path, ".why.png", ".png")
        write_atomically(path, lambda temporary: _draw(self, temporary))
        return path


def explain(
    stages: StagedNetwork,
    engine: Run,
    clip: np.ndarray,
    segments: Sequence[Sequence[int]],
    labels: Sequence[str],
    class_ids: Sequence[int],
    grid: int = 8,
    blank: Sequence[float] = (0.485, 0.456, 0.406),
    path: str = "",
) -> Explanation:
    """Explain some classes of a clip.

    The classifier takes the maximum of each channel over the segments, so a logit is exactly the sum of their shares
    and the bias; of equal maxima, the first segment gets all. A segment's features depend on up to four neighbours on
    each side, so the shares are accurate to within these.

    Args:
        stages: of the model, by any engine.
        engine: of the same model, for the occlusion maps.
        clip: uint8 [T, 3 * seglen, H, W].
        segments: its frame numbers, for the report.
        labels: names of all classes.
        class_ids: classes to explain.
        grid: squares along a side that are blanked one by one, in all frames; 0: no maps.
        blank: red, green and blue of a blanked square, 0 to 1; default: the mean of the data.
        path: of the video, for the report.
    """
    features = stages.features(clip[None])[0]
    by_segment, rest = stages.streaming.shares(features)
    logits = by_segment.sum(axis=0) + rest
    scores = softmax(logits[None])[0]
    falls = occlusion(engine, clip, grid, blank) if grid else np.zeros((0, 0, len(logits)))
    classes = [
        ClassReason(
            int(class_id),
            labels[class_id],
            float(scores[class_id]),
            float(logits[class_id]),
            by_segment[:, class_id].tolist(),
            float(rest[class_id]),
            falls[..., class_id].tolist(),
        )
        for class_id in class_ids
    ]
    middle = clip.shape[1] // 3 // 2  # of the frames of a segment
    frames = clip[:, 3 * middle : 3 * middle + 3].transpose(0, 2, 3, 1)
    return Explanation(path, [list(segment) for segment in segments], classes, frames)


def occlusion(engine: Run, clip: np.ndarray, grid: int, blank: Sequence[float], log_interval: int = 10) -> np.ndarray:
    """Fall of each logit when a square is blanked in all frames, [grid, grid, num_classes]; arguments as `explain`."""
    seglen, (height, width) = clip.shape[1] // 3, clip.shape[2:]
    colour = np.tile(np.round(255 * np.asarray(blank)), seglen).astype(np.uint8)[None, :, None, None]
    rows, columns = (np.linspace(0, side, grid + 1).round().astype(int) for side in (height, width))
    squares = [(row, column) for row in range(grid) for column in range(grid)]
    batches = [squares[i : i + _CLIPS_AT_ONCE] for i in range(0, len(squares), _CLIPS_AT_ONCE)]
    logits = [engine(clip[None])]
    progress = Progress(len(squares), "blanking squares", len(batches), log_interval)
    with contextlib.closing(progress):
        for batch in batches:
            blanked = np.repeat(clip[None], len(batch), axis=0)
            for copy, (row, column) in zip(blanked, batch):
                copy[:, :, rows[row] : rows[row + 1], columns[column] : columns[column + 1]] = colour
            logits.append(engine(blanked))
            progress.update(len(batch))
    whole, *parts = np.split(np.concatenate(logits), [1])
    return (whole - parts[0]).reshape(grid, grid, -1)


def _draw(explanation: Explanation, path: str) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    classes, frames = explanation.classes, explanation.frames
    title = drawable(os.path.basename(explanation.input_path))
    names = [drawable(reason.label, _NAME) for reason in classes]
    with drawing("".join([title, *names])):
        side, rows = max(0.8, min(2.0, 6 / len(frames))), len(classes)  # inches a frame
        wide = side * len(frames)
        figure = Figure(figsize=(wide + 3.4, side + 0.8 + 1.9 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.add_gridspec(rows + 1, 2, width_ratios=[wide, 2.4], height_ratios=[side, *[1.6] * rows])
        strip = figure.add_subplot(grid[0, 0])
        strip.imshow(np.concatenate(list(frames), axis=1), extent=(-0.5, len(frames) - 0.5, 0, 1), aspect="auto")
        strip.set(yticks=[], xticks=range(len(frames)), title=title, xlabel="frame")
        strip.set_xticklabels([str(segment[len(segment) // 2]) for segment in explanation.segments], fontsize=7)
        for row, (reason, name) in enumerate(zip(classes, names), start=1):
            bars = figure.add_subplot(grid[row, 0])
            bars.bar(range(len(reason.shares)), reason.shares, color=f"C{row - 1}")
            bars.axhline(0, color="black", linewidth=0.5)
            bars.set(xlim=(-0.5, len(frames) - 0.5), ylabel="adds to the logit", xticks=[])
            terms = f"{reason.logit:.2f} = {sum(reason.shares):.2f} {reason.rest:+.2f}"  # the bars, and the bias
            bars.set_title(f"{name} {reason.score:.1%}: {terms}")
            _draw_map(figure.add_subplot(grid[row, 1]), reason, frames)
        figure.savefig(path, format="png", dpi=100)


def _draw_map(axes: Any, reason: ClassReason, frames: np.ndarray) -> None:
    """Draw the middle frame of the segment with the largest share, and the occlusion map over it."""
    frame = frames[int(np.argmax(reason.shares))]
    axes.imshow(frame.mean(axis=2), cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    if reason.where:
        falls = np.asarray(reason.where)
        limit = max(float(np.abs(falls).max()), 1e-9)
        height, width = frame.shape[:2]
        extent = (-0.5, width - 0.5, height - 0.5, -0.5)
        drawn = axes.imshow(falls, cmap="coolwarm", vmin=-limit, vmax=limit, alpha=0.5, extent=extent)
        axes.figure.colorbar(drawn, ax=axes, label="fall of the logit")
