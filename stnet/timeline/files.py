"""Files of a timeline: scores of windows, events, subtitles, a figure. Each is written atomically."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np

from stnet.inference.result import Result
from stnet.metrics.rejection import UNKNOWN, Judgement
from stnet.timeline.events import Event, cells_of
from stnet.timeline.windows import Window
from stnet.utils.atomic import write_atomically, write_csv
from stnet.utils.files import StrPath
from stnet.utils.fonts import drawable, drawing

_CURVES = 8  # classes in the figure besides those of events, at most
_GAP = 2  # strides between windows at which a curve is interrupted
_NAME = 40  # characters of a class name in the figure


def write_windows_jsonl(
    path: StrPath,
    windows: Sequence[Window],
    probabilities: np.ndarray,
    labels: Sequence[str],
    topk: int,
    judged: Sequence[Judgement] = (),
) -> None:
    """Write one JSON object for each window: time, frames, and the most probable classes in order.

    Args:
        judged: whether each window is unknown; empty without rejection.
    """

    def lines() -> Iterable[str]:
        for window, row, judgement in zip(windows, probabilities, judged or repeat(None)):
            best = Result.of(row, labels, topk, input_path=None, judged=judgement)
            facts = {
                "start": round(window.start, 3),
                "end": round(window.end, 3),
                "frames": [window.first_frame, window.first_frame + window.frames],
                "class_ids": best.class_ids,
                "scores": best.scores,
                "label_names": best.label_names,
                **best.reject_facts,
            }
            yield json.dumps(facts, ensure_ascii=False) + "\n"

    _write_text(path, lines())


def write_windows_csv(
    path: StrPath,
    windows: Sequence[Window],
    probabilities: np.ndarray,
    labels: Sequence[str],
    judged: Sequence[Judgement] = (),
) -> None:
    """Write one row for each window: start and end in seconds, then the probability of every class.

    Args:
        judged: whether each window is unknown, for two columns before the classes; empty without rejection.
    """
    facts = [[f"{window.scaled_probability:.6g}", window.is_unknown] for window in judged] or [[]] * len(windows)
    rows = (
        [f"{w.start:.3f}", f"{w.end:.3f}", *about, *(f"{p:.6g}" for p in row)]
        for w, about, row in zip(windows, facts, probabilities)
    )
    write_csv(path, ["start", "end", *(["scaled_probability", "is_unknown"] if judged else []), *labels], rows)


def write_events_csv(path: StrPath, events: Sequence[Event], labels: Sequence[str]) -> None:
    """Write one row for each event: start, end, class, probability."""
    rows = ([f"{e.start:.3f}", f"{e.end:.3f}", labels[e.class_id], f"{e.probability:.6g}"] for e in events)
    write_csv(path, ["start", "end", "class", "probability"], rows)


def write_webvtt(path: StrPath, events: Sequence[Event], labels: Sequence[str]) -> None:
    """Write subtitles for a browser's video element."""
    cues = [
        f"{_clock(event.start, '.')} --> {_clock(event.end, '.')}\n{html.escape(caption(event, labels), quote=False)}\n"
        for event in events
    ]
    _write_text(path, ["\n".join(["WEBVTT\n", *cues])])


def write_srt(path: StrPath, events: Sequence[Event], labels: Sequence[str]) -> None:
    """Write subtitles for video players."""
    cues = [
        f"{number}\n{_clock(event.start, ',')} --> {_clock(event.end, ',')}\n{caption(event, labels)}\n"
        for number, event in enumerate(events, start=1)
    ]
    _write_text(path, ["\n".join(cues)])


def caption(event: Event, labels: Sequence[str]) -> str:
    """Format an event on one line."""
    return f"{' '.join(labels[event.class_id].split())} {event.probability:.0%}"


def write_picture(
    path: StrPath,
    windows: Sequence[Window],
    probabilities: np.ndarray,
    events: Sequence[Event],
    labels: Sequence[str],
    title: str = "",
    judged: Sequence[Judgement] = (),
) -> None:
    """Draw a PNG: probabilities over time of the main classes, and their events below; grey where it is unknown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, no global state
    from matplotlib.figure import Figure

    shown = _main_classes(probabilities, events)
    names, title = [drawable(labels[class_id], _NAME) for class_id in shown], drawable(title)
    with drawing("".join([title, *names])):
        figure = Figure(figsize=(12, 3.2 + 0.3 * len(shown)), layout="constrained")
        curves, bars = figure.subplots(2, 1, sharex=True, height_ratios=[2.4, 0.6 + 0.3 * len(shown)])
        starts = np.array([window.start for window in windows])
        centres = (starts + [window.end for window in windows]) / 2
        distances = np.diff(starts)
        gaps = np.flatnonzero(distances > _GAP * np.median(distances)) + 1 if len(distances) else []
        times = np.insert(centres, gaps, np.nan)
        for row, (class_id, name) in enumerate(zip(shown, names)):
            colour = f"C{row}"
            curve = np.insert(probabilities[:, class_id].astype(float), gaps, np.nan)
            curves.plot(times, curve, color=colour, label=name, marker=".", markersize=3)
            spans = [(event.start, event.end - event.start) for event in events if event.class_id == class_id]
            bars.broken_barh(spans, (row - 0.4, 0.8), color=colour)
        cells = cells_of([(window.start, window.end) for window in windows])
        unknown = [cell for cell, judgement in zip(cells, judged) if judgement.is_unknown]
        for number, (start, end) in enumerate(unknown):
            curves.axvspan(start, end, color="0.9", linewidth=0, label="" if number else UNKNOWN)
        curves.set(ylim=(-0.02, 1.02), ylabel="probability", title=title)
        curves.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        bars.set(yticks=range(len(shown)), ylim=(len(shown) - 0.4, -0.6), xlabel="seconds")
        bars.set_yticklabels(names)
        bars.set_xlim(windows[0].start, windows[-1].end)
        FigureCanvasAgg(figure)
        write_atomically(path, lambda temporary: figure.savefig(temporary, format="png", dpi=100))


def _main_classes(probabilities: np.ndarray, events: Sequence[Event]) -> list[int]:
    """Classes of events, the longest first, then those with the largest probability in any window."""
    length: dict[int, float] = {}
    for event in events:
        length[event.class_id] = length.get(event.class_id, 0) + event.end - event.start
    likely = np.argsort(-probabilities.max(axis=0), kind="stable").tolist()
    ordered = [*sorted(length, key=lambda class_id: -length[class_id]), *(i for i in likely if i not in length)]
    return ordered[: max(min(len(length), 20), _CURVES)]


def _clock(seconds: float, point: str) -> str:
    """Format seconds as 00:00:00.000."""
    whole = round(1000 * round(seconds, 3))  # rounded as in the tables
    return f"{whole // 3600000:02d}:{whole // 60000 % 60:02d}:{whole // 1000 % 60:02d}{point}{whole % 1000:03d}"


def _write_text(path: StrPath, pieces: Iterable[str]) -> None:
    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(pieces)

    write_atomically(path, write)
