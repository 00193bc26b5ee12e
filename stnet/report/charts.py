"""Charts as plain geometry, in pixels; macros.html draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from stnet.metrics.calibration import Reliability
from stnet.metrics.rejection import Coverage

WIDTH, HEIGHT = 480, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 20, 10, 34
NAMED = 12  # classes up to which the bars have names
WIDEST = 72  # bar
MOST_POINTS = 400  # of a line; neighbours of more are averaged
MOST_OUTLIERS = 20  # marked

Points = Sequence[tuple[float, float]]


class Series(NamedTuple):
    """One line of a chart."""

    name: str
    points: Points  # x ascending
    dots: bool = False  # a dot at each point, for few of them
    second: bool = False  # drawn in the second colour


class Tick(NamedTuple):
    """A labelled position of an axis."""

    place: float
    text: str


class Bar(NamedTuple):
    """An upright bar, with its tooltip."""

    x: float
    y: float
    width: float
    height: float
    says: str
    second: bool = False


class Line(NamedTuple):
    """A line, its dots, and its name in the legend."""

    name: str
    path: str  # of SVG
    dots: list[tuple[float, float, str]]  # x, y, tooltip
    second: bool


@dataclass
class Chart:
    """Bars and lines between two axes."""

    title: str
    x_title: str
    x_ticks: list[Tick] = field(default_factory=list)
    y_ticks: list[Tick] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    diagonal: bool = False
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    top: int = TOP
    bottom: int = BOTTOM
    note: str = ""


class _Axis:
    """Scale from values to pixels, with round numbers as ticks."""

    def __init__(self, low: float, high: float, start: float, end: float, is_share: bool = False) -> None:
        from matplotlib.ticker import MaxNLocator

        if not high > low:
            low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
        self.low, self.high, self.start, self.end = low, high, start, end
        values = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        slack = 1e-9 * (high - low)
        values = [float(value) for value in values if low - slack <= value <= high + slack]
        self.ticks = [Tick(self(value), f"{value:.6g}" if not is_share else f"{100 * value:.4g}%") for value in values]

    def __call__(self, value: float) -> float:
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 2)


def line_chart(title: str, series: Sequence[Series], x_title: str = "step", is_share: bool = False) -> Chart | None:
    """Draw lines over a common axis that contains 0; None if no series has a point.

    Args:
        is_share: values are shares of 1, shown in percent, and the axis ends at 1.
    """
    series = [one for one in series if one.points]
    if not series:
        return None
    xs = [at for one in series for at, _ in one.points]
    x = _Axis(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    low, high = (0.0, 1.0) if is_share else value_range([one.points for one in series])
    y = _Axis(min(0.0, low), high if is_share else max(0.0, high) * 1.05, HEIGHT - BOTTOM, TOP, is_share)
    chart = Chart(title, x_title, x.ticks, y.ticks)
    outliers: list[tuple[float, float]] = []
    for name, points, dots, second in series:
        shown = _thinned([(at, min(max(value, y.low), y.high)) for at, value in points])
        path = "M" + "L".join(f"{x(at):g} {y(value):g}" for at, value in shown)
        beyond = sorted((point for point in points if not y.low <= point[1] <= y.high), key=_size)
        marked = _thinned(points) if dots or len(points) == 1 else beyond[-MOST_OUTLIERS:]
        marks = [
            (x(at), y(min(max(value, y.low), y.high)), f"{name}, {x_title} {at:,.0f}: {value:.4g}")
            for at, value in marked
        ]
        chart.lines.append(Line(name, path, marks, second))
        outliers += beyond
    if outliers:
        at, value = max(outliers, key=_size)
        chart.note = f"beyond the axis: {len(outliers):,}, up to {value:.4g} at {x_title} {at:,.0f}"
    return chart


def value_range(lines: Sequence[Points]) -> tuple[float, float]:
    """Lowest and highest value of lines, without outliers: more than five times 95 % of each line's values."""
    values = [value for points in lines for _, value in points]
    sizes = [sorted(abs(value) for _, value in points) for points in lines]
    usual = max(line[int(0.95 * (len(line) - 1))] for line in sizes)  # of two to twenty, all but the largest
    if usual and len(values) > 2:
        values = [value for value in values if abs(value) <= 5 * usual]
    return min(values), max(values)


def _size(point: tuple[float, float]) -> float:
    return abs(point[1])


def _thinned(points: Points) -> Points:
    """Average neighbours down to MOST_POINTS points."""
    if len(points) <= MOST_POINTS:
        return points
    groups = np.array_split(np.asarray(points, np.float64), MOST_POINTS)
    return [(float(at), float(value)) for at, value in (group.mean(axis=0) for group in groups)]


def reliability_chart(curve: Reliability) -> Chart:
    """Draw the accuracy of clips by their probability, and the diagonal where they are equal."""
    x, y = _Axis(0, 1, LEFT, WIDTH - RIGHT, True), _Axis(0, 1, HEIGHT - BOTTOM, TOP, True)
    chart = Chart(
        "Accuracy by probability (reliability)", "probability of the prediction", x.ticks, y.ticks, diagonal=True
    )
    for i in np.flatnonzero(curve.counts):
        low, high, accuracy = float(curve.edges[i]), float(curve.edges[i + 1]), float(curve.accuracy[i])
        says = (
            f"probability {low:.2f} to {high:.2f}, mean {curve.confidence[i]:.3f}: {curve.counts[i]:,} clips, "
            f"{100 * accuracy:.1f}% right"
        )
        height = max(y(0) - y(accuracy), 1.0)
        chart.bars.append(Bar(x(low) + 1, y(0) - height, x(high) - x(low) - 2, height, says))
    return chart


def confidence_chart(curve: Reliability) -> Chart:
    """Draw the number of clips in each bin of the reliability curve."""
    x = _Axis(0, 1, LEFT, WIDTH - RIGHT, True)
    y = _Axis(0, float(curve.counts.max(initial=1)) * 1.05, HEIGHT - BOTTOM, TOP)
    chart = Chart("Clips by probability", "probability of the prediction", x.ticks, y.ticks)
    for low, high, count in zip(curve.edges, curve.edges[1:], curve.counts):
        says, bar_height = f"probability {low:.2f} to {high:.2f}: {count:,} clips", round(y(0) - y(count), 2)
        chart.bars.append(Bar(x(low) + 1, y(count), x(high) - x(low) - 2, bar_height, says, second=True))
    return chart


def coverage_chart(curve: Coverage, threshold: float, kept: float, accuracy: float) -> Chart:
    """Draw the accuracy of the clips that thresholds keep by their share, and mark the chosen threshold."""
    low = min(0.9, math.floor(10 * min(curve.accuracy)) / 10)
    x, y = _Axis(0, 1, LEFT, WIDTH - RIGHT, True), _Axis(low, 1, HEIGHT - BOTTOM, TOP, True)
    points = [(x(float(share)), y(float(right))) for share, right in zip(curve.kept, curve.accuracy)]
    chart = Chart("Accuracy by coverage", "clips that keep their class", x.ticks, y.ticks)
    path = "M" + "L".join(f"{at:g} {value:g}" for at, value in points)
    chart.note = f"threshold {threshold:.4g}: {100 * kept:.1f}% of the clips stay, {100 * accuracy:.1f}% of them right"
    chart.lines.append(Line("accuracy", path, [(x(kept), y(accuracy), chart.note)], second=False))
    return chart


def class_chart(accuracy: Sequence[float], names: Sequence[str]) -> Chart:
    """Draw the accuracy of each class that has clips, the lowest first; up to NAMED bars have names below them."""
    order = sorted((i for i, value in enumerate(accuracy) if not math.isnan(value)), key=lambda i: accuracy[i])
    width, height = 2 * WIDTH, HEIGHT - 40
    step = (width - LEFT - RIGHT) / max(1, len(order))
    y = _Axis(0, 1, height - BOTTOM, TOP, True)
    chart = Chart("Accuracy per class", "classes, the lowest first", [], y.ticks, width=width, height=height)
    wide = round(min(0.85 * step, WIDEST), 2)
    for number, i in enumerate(order):
        high, middle = max(y(0) - y(accuracy[i]), 1.0), LEFT + (number + 0.5) * step
        says = f"{names[i]}: {100 * accuracy[i]:.1f}%"
        chart.bars.append(Bar(round(middle - wide / 2, 2), round(y(0) - high, 2), wide, round(high, 2), says))
        if len(order) <= NAMED:
            chart.x_ticks.append(Tick(round(middle, 2), _cut(names[i], int(step / 7))))
    return chart


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
