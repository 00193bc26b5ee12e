"""Files of an evaluation: tables of classes, pairs and clips, a picture of the confusion matrix, calibration."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from stnet.metrics.confusion import most_confused
from stnet.utils.atomic import write_atomically, write_csv, write_json
from stnet.utils.errors import UserError
from stnet.utils.files import StrPath
from stnet.utils.fonts import drawable, drawing
from stnet.utils.schema import SCHEMA
from stnet.weights.rejection import write_rejection

if TYPE_CHECKING:
    from stnet.config import Config
    from stnet.evaluation.results import Evaluation

logger = logging.getLogger("stnet")
_NUMBERED = 30  # classes up to which the picture has the shares as numbers
_NAME = 30  # characters of a class name in the picture


def write_files(evaluation: Evaluation, folder: StrPath, topk: int) -> list[str]:
    """Write the files of an evaluation, each atomically, and return their names.

    Args:
        evaluation: of a list.
        folder: of the files; those of another evaluation are replaced.
        topk: classes in a row of predictions.csv.

    Raises:
        UserError: a file cannot be written.
    """
    writers = {
        "per_class.csv": lambda path: _write(path, *_per_class(evaluation)),
        "confusion.csv": lambda path: _write(path, *_confusion(evaluation)),
        "confusion.png": lambda path: draw_confusion(path, evaluation.matrix, evaluation.names),
        "confused_pairs.csv": lambda path: _write(path, *_confused_pairs(evaluation)),
        "predictions.csv": lambda path: _write(path, *_predictions(evaluation, topk)),
        "calibration.json": lambda path: write_json(path, calibration(evaluation)),
    }
    for name, write in writers.items():
        write(os.path.join(folder, name))
    return list(writers)


def keep_rejection(evaluation: Evaluation, weights: StrPath, digest: str, config: Config) -> bool:
    """Write the fitted threshold beside the weights, and log it. False where there is none, or it cannot be written.

    Args:
        digest: SHA-256 of the weights.
        config: of the evaluation.
    """
    fitted, filelist = evaluation.fitted_rejection, config.TEST.filelist
    if fitted is None:
        logger.warning("no clip has finite logits: no threshold was fitted")
        return False
    if os.path.realpath(filelist) == os.path.realpath(config.TRAIN.filelist):
        logger.warning(
            "the threshold is fitted on %s, the list of training, of whose clips the network is surer than of others: "
            "set -o TEST.filelist to clips that it was not trained on", filelist,
        )  # fmt: skip
    logger.info(
        "below %.6g, with temperature %.4g, a clip is unknown: %.1f%% of %d clips keep their class, %.1f%% of these "
        "are right", fitted.rejection.threshold, fitted.rejection.temperature, 100 * fitted.kept, fitted.clips,
        100 * fitted.accuracy,
    )  # fmt: skip
    try:
        path = write_rejection(weights, digest, fitted.rejection, fitted.share, fitted.clips, filelist)
    except UserError as error:
        logger.warning("the threshold is in the results alone: %s", error)
        return False
    logger.info("the threshold is kept in %s", path)
    return True


def worst_first(evaluation: Evaluation) -> list[int]:
    """Indices of the clips: wrong ones by falling probability, those without finite logits, right ones by rising."""
    predictions = evaluation.predictions
    top = evaluation.probabilities.max(axis=1)
    right = predictions == evaluation.labels
    key = np.where(right, top, np.where(predictions < 0, 0, -top))
    return np.lexsort((key, right)).tolist()


def calibration(evaluation: Evaluation) -> dict[str, Any]:
    """Plain data of calibration.json: reliability curve, ECE, temperature and its two halves; the threshold, if any."""
    curve = evaluation.reliability
    fitted = evaluation.temperature
    columns = (curve.edges[:-1], curve.edges[1:], curve.counts, curve.accuracy, curve.confidence)
    keys = ("lower", "upper", "clips", "accuracy", "confidence")
    bins = [dict(zip(keys, row)) for row in zip(*(column.tolist() for column in columns))]
    return {
        "schema": SCHEMA,
        "ece": curve.ece,
        "bins": bins,
        "temperature": fitted and fitted.temperature,
        "halves": [half._asdict() for half in fitted.halves] if fitted else [],
        **_rejection(evaluation),
    }


def _rejection(evaluation: Evaluation) -> dict[str, Any]:
    """The key "reject" of calibration.json; nothing where no threshold was fitted."""
    fitted = evaluation.fitted_rejection
    if fitted is None:
        return {}
    columns = (column.tolist() for column in fitted.curve)
    curve = [dict(zip(("threshold", "kept", "accuracy"), row)) for row in zip(*columns)]
    return {"reject": {**fitted.facts, "curve": curve}}


def draw_confusion(path: StrPath, matrix: np.ndarray, names: list[str]) -> None:
    """Draw a PNG of the classes with clips or predictions: each row has the shares of a true class's clips.

    Colours show the square root of a share, so that single clips of many are visible.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts = matrix.sum(axis=0) + matrix.sum(axis=1)
    shown = np.flatnonzero(counts) if counts.any() else np.arange(len(counts))
    shares = matrix[np.ix_(shown, shown)] / np.maximum(matrix[shown].sum(axis=1, keepdims=True), 1)
    labels = [drawable(names[i], _NAME) for i in shown]
    cell = min(0.6, max(0.1, 12 / len(shown)), 100 / len(shown))  # inches
    side, size = cell * len(shown), min(10.0, 60 * cell)
    with drawing("".join(labels)):
        figure = Figure(figsize=(side + 3.5, side + 2.8), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        edges = np.arange(len(shown) + 1) - 0.5
        axes.pcolormesh(edges, edges, np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)  # imshow takes 0.7 GB for 400
        axes.invert_yaxis()
        axes.set_xticks(range(len(shown)), labels, rotation=90, fontsize=size)
        axes.set_yticks(range(len(shown)), labels, fontsize=size)
        title = "shares of each true class's clips"
        axes.set(xlabel="predicted class", ylabel="true class", title=title, aspect="equal")
        if len(shown) <= _NUMBERED:
            for row, column in zip(*np.nonzero(shares)):
                share = shares[row, column]
                colour = "white" if share > 0.3 else "black"
                axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour, fontsize=size * 0.9)
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=100))


Table = tuple[list[str], Iterable[list[Any]]]  # header, rows


def _per_class(evaluation: Evaluation) -> Table:
    header = ["class", "name", "clips", "correct", "accuracy"]
    header += ["confused_with", "confused_with_name", "confused_clips", "precision"]
    clips = np.bincount(evaluation.labels, minlength=len(evaluation.names))
    given, wrong = evaluation.matrix.sum(axis=0), evaluation.matrix.copy()
    np.fill_diagonal(wrong, 0)
    rows = []
    for i, name in enumerate(evaluation.names):
        correct, other = int(evaluation.matrix[i, i]), int(wrong[i].argmax())
        accuracy = f"{correct / clips[i]:.6g}" if clips[i] else ""
        taken_for = [other, evaluation.names[other], wrong[i, other]] if wrong[i, other] else [""] * 3
        precision = f"{correct / given[i]:.6g}" if given[i] else ""
        rows.append([i, name, clips[i], correct, accuracy, *taken_for, precision])
    return header, rows


def _confusion(evaluation: Evaluation) -> Table:
    rows = ([name, *row] for name, row in zip(evaluation.names, evaluation.matrix.tolist()))
    return ["true class", *evaluation.names], rows


def _confused_pairs(evaluation: Evaluation) -> Table:
    names, clips = evaluation.names, np.bincount(evaluation.labels, minlength=len(evaluation.names))
    pairs = most_confused(evaluation.matrix)
    rows = [[i, names[i], j, names[j], count, f"{count / clips[i]:.6g}"] for i, j, count in pairs]
    return ["label", "label_name", "prediction", "prediction_name", "clips", "share_of_label"], rows


def _predictions(evaluation: Evaluation, topk: int) -> Table:
    names, topk = evaluation.names, min(topk, len(evaluation.names))
    header = ["input_path", "label", "label_name", "prediction", "prediction_name", "label_score", "error"]
    header += [f"{name}_{rank}" for rank in range(1, topk + 1) for name in ("class_id", "label_name", "score")]

    def rows() -> Iterable[list[Any]]:
        for position in worst_first(evaluation):
            path, label = evaluation.paths[position], int(evaluation.labels[position])
            row = [path, label, names[label]]
            if evaluation.predictions[position] < 0:
                yield [*row, "", "", "", "its logits are not finite", *[""] * (3 * topk)]
                continue
            scores = evaluation.probabilities[position]
            best = np.argsort(-evaluation.logits[position], kind="stable")[:topk].tolist()
            tops = [value for i in best for value in (i, names[i], f"{scores[i]:.6g}")]
            yield [*row, best[0], names[best[0]], f"{scores[label]:.6g}", "", *tops]
        for path, reason in evaluation.unread:
            yield [path, *[""] * 5, reason, *[""] * (3 * topk)]

    return header, rows()


def _write(path: StrPath, header: list[str], rows: Iterable[list[Any]]) -> None:
    write_csv(path, header, rows, errors="surrogateescape")
