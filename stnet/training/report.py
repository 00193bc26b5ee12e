"""training.html: curves of a training run, and its last validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from stnet.evaluation.report import scores_of
from stnet.evaluation.results import Evaluation
from stnet.report.charts import Chart, Series, line_chart
from stnet.report.page import Facts, as_yaml, shown, versions, write_page
from stnet.training.log import Row, points
from stnet.utils.files import StrPath

if TYPE_CHECKING:
    from stnet.config import Config

_KNOWN = {"kind", "step", "epoch", "loss", "top1", "top5"}


def write_training_report(
    path: StrPath, rows: Sequence[Row], evaluation: Evaluation | None, facts: Facts, config: Config
) -> None:
    """Write the page of a training run, atomically.

    Args:
        path: of the page.
        rows: of its journal, also from before it was resumed.
        evaluation: of the last validation, if any.
        facts: further (name, value).
        config: of the run.

    Raises:
        UserError: it cannot be written.
    """
    write_page(
        path,
        "training.html",
        title="StNet training",
        subtitle=_subtitle(rows),
        totals=_totals(rows),
        facts=[(name, shown(value)) for name, value in [*facts, *versions()]],
        config=as_yaml(config),
        names=[shown(name) for name in evaluation.names] if evaluation else [],
        charts=training_charts(rows),
        scores=scores_of(evaluation) if evaluation and evaluation.paths else None,
        strips=[],
    )


def training_charts(rows: Sequence[Row]) -> list[Chart]:
    """Charts over steps: loss, accuracy, other metrics, learning rate, speed, share of time waiting for data."""
    rate, speed = points(rows, "train", "lr"), points(rows, "train", "clips_per_s")
    wait = points(rows, "train", "data_wait")
    others = sorted({key for row in rows if row["kind"] == "valid" for key in row} - _KNOWN)
    charts = [
        line_chart("Loss", _both(rows, "loss", "")),
        line_chart("Accuracy", [*_both(rows, "top1", " top-1"), *_both(rows, "top5", " top-5")], is_share=True),
        *(line_chart(shown(key), [Series("validation", points(rows, "valid", key), True)]) for key in others),
        line_chart("Learning rate", [Series("learning rate", rate)]),
        line_chart("Clips per second", [Series("clips per second", speed)]),
        line_chart("Waiting for data, share of time", [Series("waiting", wait)], is_share=True),
    ]
    return [chart for chart in charts if chart]


def _both(rows: Sequence[Row], key: str, suffix: str) -> list[Series]:
    training = Series(f"training{suffix}", points(rows, "train", key), False)
    return [training, Series(f"validation{suffix}", points(rows, "valid", key), True)]


def _subtitle(rows: Sequence[Row]) -> str:
    steps = [at for kind in ("train", "valid") for at, _ in points(rows, kind, "loss")]
    return f"{max(steps):,.0f} steps" if steps else "no step"


def _totals(rows: Sequence[Row]) -> list[tuple[str, str]]:
    top1, top5 = ([value for _, value in points(rows, "valid", key)] for key in ("top1", "top5"))
    texts = []
    if top1:
        texts += [("Best top-1", f"{100 * max(top1):.2f}%"), ("Last top-1", f"{100 * top1[-1]:.2f}%")]
    if top5:
        texts.append(("Last top-5", f"{100 * top5[-1]:.2f}%"))
    for name, kind in (("Validation loss", "valid"), ("Training loss", "train")):
        losses = points(rows, kind, "loss")
        texts += [(name, f"{losses[-1][1]:.4g}")] if losses else []
    speeds = [value for _, value in points(rows, "train", "clips_per_s")]
    wait = share_waited(rows)
    texts += [("Clips/s, median", f"{np.median(speeds):.1f}")] if speeds else []
    texts += [("Data wait", f"{100 * wait:.1f}%")] if wait is not None else []
    return texts


def share_waited(rows: Sequence[Row]) -> float | None:
    """Share of the training time spent waiting for data: the mean over rows, weighted by their time."""
    speeds = dict(points(rows, "train", "clips_per_s"))
    shares = [(step, share) for step, share in points(rows, "train", "data_wait") if speeds.get(step, 0) > 0]
    if not shares:
        return None
    steps = np.diff([0, *(step for step, _ in shares)])
    seconds = np.maximum(steps, 0) / [speeds[step] for step, _ in shares]
    return float(np.average([share for _, share in shares], weights=seconds)) if seconds.sum() > 0 else None
