"""report.html: scores of an evaluation, with the clips that it scores worst."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stnet.config import TestSection
from stnet.evaluation.files import worst_first
from stnet.evaluation.results import Evaluation
from stnet.metrics.calibration import COLDEST, HOTTEST
from stnet.metrics.confusion import class_accuracy, most_confused
from stnet.report import charts
from stnet.report.charts import Chart
from stnet.report.page import Facts, Table, as_yaml, picture, plain, shown, versions, write_page
from stnet.utils.files import StrPath

if TYPE_CHECKING:
    from PIL import Image

    from stnet.config import Config
    from stnet.reader.dataset import VideoListDataset
    from stnet.report.data import DataSection

STRIPS = 12  # clips shown
STRIP, TILE = 300, 56  # pixels: width of a row of frames, least side of a frame
MOST_TILES, COLUMNS = 16, 8  # frames of a clip, and in a row
CELLS = 30  # classes up to which the confusion matrix has numbers
_RIGHT, _WRONG = (60, 130, 185), (205, 105, 60)
_TITLES = {"TOP1_ACC": "Top-1", "TOP5_ACC": "Top-5", "loss": "Loss", "count": "Clips"}


@dataclass
class Scores:
    """Contents of clips.html."""

    class_chart: Chart
    classes: Table
    cells: list[list[tuple[int, float]]]  # [C][C] clips and their share of the row; [] for many classes
    picture: str  # of the confusion matrix, for many classes
    pairs: Table
    reliability_chart: Chart
    confidence_chart: Chart
    coverage_chart: Chart | None  # with a threshold for unknown clips
    temperature: str
    halves: Table
    clips: Table
    unread: Table


class Strip(NamedTuple):
    """Frames of a clip, with label and prediction."""

    picture: str
    width: int
    height: int
    path: str
    label: str
    prediction: str
    probability: str
    is_right: bool


def write_report(
    path: StrPath,
    evaluation: Evaluation,
    totals: Mapping[str, float],
    facts: Facts,
    config: Config,
    dataset: VideoListDataset,
    data: DataSection | None = None,
) -> None:
    """Write the page of an evaluation, atomically.

    Args:
        path: of the page.
        evaluation: of every clip.
        totals: scores by name, of stnet.evaluation.loop.evaluate.
        facts: further (name, value).
        config: of the run.
        dataset: from which the clips shown are read again.
        data: section about the clips of the lists.

    Raises:
        UserError: it cannot be written.
    """
    of_views = f", {config.TEST.views} views of each clip" if config.TEST.views > 1 else ""
    write_page(
        path,
        "report.html",
        title="StNet evaluation",
        subtitle=f"{len(evaluation.paths):,} clips, {len(evaluation.names):,} classes{of_views}",
        views=config.TEST.views,
        totals=total_texts(totals, evaluation),
        facts=[(name, shown(value)) for name, value in [*facts, *versions()]],
        config=as_yaml(config),
        names=[shown(name) for name in evaluation.names],
        scores=scores_of(evaluation),
        strips=_strips(evaluation, dataset),
        data=data,
    )


def total_texts(totals: Mapping[str, float], evaluation: Evaluation) -> list[tuple[str, str]]:
    """The scores, ECE and counts as a page shows them."""
    texts = []
    for name, value in totals.items():
        if name != "count":
            text = f"{100 * value:.2f}%" if name.endswith("_ACC") else f"{value:.4g}"
            texts.append((_TITLES.get(name, name), text))
    ece = plain(evaluation.reliability.ece)
    counts = [("Clips", f"{len(evaluation.paths):,}"), ("Unread", f"{len(evaluation.unread):,}")]
    return [*texts, ("ECE", "–" if ece is None else f"{ece:.4f}"), *counts]


def scores_of(evaluation: Evaluation) -> Scores:
    """The tables and charts of an evaluation."""
    names = [shown(name) for name in evaluation.names]
    accuracy, curve = class_accuracy(evaluation.matrix), evaluation.reliability
    temperature, halves = _temperatures(evaluation)
    has_cells = len(names) <= CELLS
    return Scores(
        class_chart=charts.class_chart(accuracy.tolist(), names),
        classes=_classes(evaluation, accuracy),
        cells=_cells(evaluation.matrix) if has_cells else [],
        picture="" if has_cells else _matrix_picture(evaluation.matrix),
        pairs=_pairs(evaluation),
        reliability_chart=charts.reliability_chart(curve),
        confidence_chart=charts.confidence_chart(curve),
        coverage_chart=_coverage_chart(evaluation),
        temperature=temperature,
        halves=halves,
        clips=_clips(evaluation),
        unread=Table(
            "unread", [("Clip", "text"), ("Reason", "text")], [list(map(shown, row)) for row in evaluation.unread]
        ),
    )


def _classes(evaluation: Evaluation, accuracy: np.ndarray) -> Table:
    matrix = evaluation.matrix
    clips, given = np.bincount(evaluation.labels, minlength=len(matrix)), matrix.sum(axis=0)
    wrong = matrix - np.diag(matrix.diagonal())
    rows = []
    for i in range(len(matrix)):
        precision = plain(matrix[i, i] / given[i]) if given[i] else None
        other = int(wrong[i].argmax())
        taken = [other, int(wrong[i, other])] if wrong[i, other] else [None, None]
        rows.append([i, int(clips[i]), plain(accuracy[i]), precision, *taken])
    columns = [("Class", "class"), ("Clips", "count"), ("Accuracy", "share"), ("Precision", "share")]
    return Table("classes", [*columns, ("Most often taken for", "class"), ("Times", "count")], rows)


def _pairs(evaluation: Evaluation) -> Table:
    clips = np.bincount(evaluation.labels, minlength=len(evaluation.names))
    rows = [[i, j, count, plain(count / clips[i])] for i, j, count in most_confused(evaluation.matrix)]
    columns = [("True class", "class"), ("Predicted", "class"), ("Clips", "count"), ("Of the class", "share")]
    return Table("pairs", columns, rows)


def _temperatures(evaluation: Evaluation) -> tuple[str, Table]:
    """The fitted temperature as text, "" if there is none, and the table of its halves."""
    names = ["Temperature", "ECE before", "ECE after", "Loss before", "Loss after"]
    columns = [("Fitted on", "text"), *((name, "number") for name in names)]
    fitted = evaluation.temperature
    if fitted is None:
        return "", Table("halves", columns, [])
    rows = [[which, *map(plain, half)] for which, half in zip(("one half", "the other"), fitted.halves)]
    at_bound = fitted.temperature in (COLDEST, HOTTEST)
    note = ", the bound of the search: no temperature to use" if at_bound else ""
    return f"{fitted.temperature:.4f}{note}", Table("halves", columns, rows)


def _coverage_chart(evaluation: Evaluation) -> Chart | None:
    fitted = evaluation.fitted_rejection
    if fitted is None:
        return None
    return charts.coverage_chart(fitted.curve, fitted.rejection.threshold, fitted.kept, fitted.accuracy)


def _clips(evaluation: Evaluation) -> Table:
    rows = []
    for i in worst_first(evaluation):
        label, prediction = int(evaluation.labels[i]), int(evaluation.predictions[i])
        scores = evaluation.probabilities[i]
        given = [prediction, plain(scores[prediction])] if prediction >= 0 else [None, None]
        rows.append([shown(evaluation.paths[i]), label, *given, plain(scores[label])])
    columns = [("Clip", "text"), ("Label", "class"), ("Prediction", "class"), ("Probability", "number")]
    return Table("clips", [*columns, ("Label's probability", "number")], rows, differ=(1, 2), search=True)


def _cells(matrix: np.ndarray) -> list[list[tuple[int, float]]]:
    shares = (matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)).round(3)
    return [list(zip(*rows)) for rows in zip(matrix.tolist(), shares.tolist())]


def _matrix_picture(matrix: np.ndarray) -> str:
    """Draw a pixel for each cell, of an opacity by its share of the true class's clips, for light and dark pages."""
    from PIL import Image

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    pixels = np.empty((*matrix.shape, 4), np.uint8)
    pixels[..., :3] = _WRONG
    np.einsum("iic->ic", pixels)[:, :3] = _RIGHT
    pixels[..., 3] = np.round(255 * np.sqrt(shares))  # square root: single clips of many are visible
    return picture(Image.fromarray(pixels), "PNG")


def _strips(evaluation: Evaluation, dataset: VideoListDataset) -> list[Strip]:
    """The worst clips that can be read again, in one view."""
    if isinstance(dataset.section, TestSection):
        dataset = copy.copy(dataset)
        dataset.section, dataset.reader = replace(dataset.section, num_clips=1, num_crops=1), None
    indices = {clip.name: index for index, clip in enumerate(dataset.clips)}
    strips = []
    for i in worst_first(evaluation)[:STRIPS]:
        clip = dataset[0, indices[evaluation.paths[i]]].clip
        if clip is not None:
            strips.append(_strip(evaluation, i, middle_frames(clip)))
    if dataset.reader:
        dataset.reader.close()
    return strips


def _strip(evaluation: Evaluation, i: int, frames: np.ndarray) -> Strip:
    label, prediction, names = int(evaluation.labels[i]), int(evaluation.predictions[i]), evaluation.names
    probability = f"{evaluation.probabilities[i, prediction]:.3f}" if prediction >= 0 else ""
    predicted = names[prediction] if prediction >= 0 else "nothing"
    image = _tiled(frames)
    path, label_name, predicted = map(shown, (evaluation.paths[i], names[label], predicted))
    jpeg, is_right = picture(image, "JPEG"), prediction == label
    return Strip(jpeg, image.width, image.height, path, label_name, predicted, probability, is_right)


def middle_frames(clip: np.ndarray) -> np.ndarray:
    """The middle frame of each segment, uint8 [T, H, W, 3], of a clip [T, 3 * seglen, H, W]."""
    middle = 3 * (clip.shape[1] // 3 // 2)
    return clip[:, middle : middle + 3].transpose(0, 2, 3, 1)


def _tiled(frames: np.ndarray) -> Image.Image:
    """Tile frames into one image, at most MOST_TILES of them."""
    from PIL import Image

    chosen = np.linspace(0, len(frames) - 1, min(len(frames), MOST_TILES)).round().astype(int)
    columns = min(len(chosen), COLUMNS)
    side = max(TILE, STRIP // max(columns, 3))
    image = Image.new("RGB", (columns * side, -(-len(chosen) // columns) * side), (128, 128, 128))
    for number, segment in enumerate(chosen):
        tile = Image.fromarray(np.ascontiguousarray(frames[segment])).resize((side, side), Image.BILINEAR)
        row, column = divmod(number, columns)
        image.paste(tile, (column * side, row * side))
    return image
