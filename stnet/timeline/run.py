"""Timeline of a video: windows, events, and their files."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from stnet.metrics.probabilities import softmax
from stnet.metrics.rejection import Rejection
from stnet.reader.errors import ClipError
from stnet.timeline import files
from stnet.timeline.events import HOLD, THRESHOLD, Event, Events, counted, events_of, unknown_note
from stnet.timeline.render import check_target, render
from stnet.timeline.windows import Timeline, Window
from stnet.utils.atomic import check_name
from stnet.utils.errors import UserError
from stnet.utils.progress import hours

if TYPE_CHECKING:
    from stnet.backends.stages import StagedNetwork
    from stnet.config import ReaderSection

logger = logging.getLogger("stnet")
_LOG_EVERY = 60.0  # seconds of video between lines of the log


class Unreadable(UserError):
    """A video cannot be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.reason = reason


class Settings(NamedTuple):
    """Settings of a timeline."""

    window: float = 10.0  # seconds
    stride: float = 2.0
    threshold: float = THRESHOLD  # probabilities, see stnet.timeline.events
    hold: float = HOLD
    shortest: float | None = None  # seconds; None: half a window
    render: str = ""  # mp4 file with the events drawn into the picture; "": none
    overwrite: bool = False  # let `render` replace any file


def make_timeline(
    stages: StagedNetwork,
    path: str,
    section: ReaderSection,
    labels: Sequence[str],
    topk: int,
    name: str,
    settings: Settings,
    rejection: Rejection | None = None,
) -> Events:
    """Score the windows of a video, and write the files of its timeline.

    These are NAME.windows.jsonl and .csv (scores), NAME.events.csv, NAME.vtt, NAME.srt and NAME.timeline.png.

    Args:
        stages: the network.
        path: the video.
        section: sizes of the clips.
        labels: names of all classes.
        topk: classes of a window in NAME.windows.jsonl.
        name: path without suffix of the files.
        settings: of the windows and events.
        rejection: which windows are unknown, and count for no class; None: none.

    Raises:
        Unreadable: the video cannot be read.
        UserError: a file cannot be written, or a setting is invalid.
    """
    try:
        check_name(f"{name}.windows.jsonl")  # the longest name
        events_of([], np.zeros((0, 1)), settings.threshold, settings.hold)  # refuse invalid settings first
        if settings.render:
            check_target(path, settings.render, settings.overwrite)
        with closing(Timeline(stages, path, section, settings.window, settings.stride)) as timeline:
            windows = _scored(timeline)
        for note in timeline.notes[1:]:
            logger.warning("%s: %s", path, note)
        logits = np.stack([window.logits for window in windows])
        judged = rejection.judge(logits) if rejection else []
        probabilities = softmax(logits)
        of_known = counted(probabilities, judged)
        spans = [(window.start, window.end) for window in windows]
        shortest = settings.window / 2 if settings.shortest is None else settings.shortest
        events = events_of(spans, of_known, settings.threshold, settings.hold, shortest)
        files.write_windows_jsonl(f"{name}.windows.jsonl", windows, probabilities, labels, topk, judged)
        files.write_windows_csv(f"{name}.windows.csv", windows, probabilities, labels, judged)
        files.write_events_csv(f"{name}.events.csv", events, labels)
        files.write_webvtt(f"{name}.vtt", events, labels)
        files.write_srt(f"{name}.srt", events, labels)
        title = os.path.basename(path)
        files.write_picture(f"{name}.timeline.png", windows, probabilities, events, labels, title, judged)
        if settings.render:
            for note in render(path, settings.render, events, labels):
                logger.warning("%s: %s", path, note)
    except ClipError as error:
        raise Unreadable(path, str(error)) from None
    ranked = of_known if of_known.any() else probabilities
    window, class_id = np.unravel_index(ranked.argmax(), ranked.shape)
    highest = Event(*spans[window], int(class_id), float(ranked[window, class_id]))
    return Events((event.named(labels[event.class_id]) for event in events), highest, unknown_note(judged))


def _scored(timeline: Timeline) -> list[Window]:
    """Compute all windows, and log the progress."""
    logger.info("%s: %s", timeline.path, timeline.notes[0])
    windows: list[Window] = []
    logged = 0.0
    for window in timeline.windows():
        windows.append(window)
        if window.end - logged >= _LOG_EVERY:
            logged = window.end
            logger.info("timeline: %s of video, %d windows", hours(logged), len(windows))
    return windows
