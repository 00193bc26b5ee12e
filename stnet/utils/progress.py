"""Progress of long work: a tqdm bar on a terminal, plain log lines with rate and time left otherwise; scores."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from tqdm import tqdm

Batch = TypeVar("Batch")

logger = logging.getLogger("stnet")


class Progress:
    """Counts clips.

    Args:
        total: clips expected.
        what: first word of the lines, "eval" for example.
        steps: steps expected; a line is logged every `log_interval` steps and at the last.
        of: suffix of the counts, " of this process" for example.
    """

    def __init__(self, total: int, what: str, steps: int, log_interval: int, of: str = "") -> None:
        self.of = of
        self.total, self.what, self.steps, self.log_interval = total, what, steps, log_interval
        self.done = self.step = 0
        self.started = time.monotonic()
        self.bar = tqdm(total=total, desc=what, unit="clip", leave=False) if on_terminal() else None

    def update(self, clips: int, text: str = "") -> None:
        """One more step of `clips` clips; `text` joins the line."""
        self.done += clips
        self.step += 1
        if self.bar is not None:
            self.bar.update(clips)
            if text:
                self.bar.set_postfix_str(text)
        elif self.step % self.log_interval == 0 or self.step == self.steps:
            seconds = time.monotonic() - self.started
            rate = self.done / seconds if seconds > 0 else 0.0
            left = (self.total - self.done) / rate if rate else 0.0
            text = f", {text}" if text else ""
            logger.info(
                "%s %d/%d clips%s%s, %.2f clips/s, ETA %s",
                self.what, self.done, self.total, self.of, text, rate, hours(left),
            )  # fmt: skip

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()


def on_terminal() -> bool:
    """Check that standard error is a terminal, on which a bar can be drawn."""
    return sys.stderr is not None and sys.stderr.isatty()


def hours(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class Clock:
    """Measures speed and the share of time that training waits for data.

    Args:
        step: steps done before.
        clips: clips of these steps that the first `read` will count, too.
    """

    def __init__(self, step: int, clips: int = 0) -> None:
        self.since, self.step, self.waited, self.clips_before = time.monotonic(), step, 0.0, clips

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, measuring the wait for each."""
        iterator = iter(batches)
        while True:
            began = time.monotonic()
            batch = next(iterator, None)
            self.waited += time.monotonic() - began
            if batch is None:
                return
            yield batch

    def read(self, step: int, clips: int, steps_left: int) -> tuple[float, float, float]:
        """(clips/s, share waited, seconds left) since the last reading."""
        seconds = max(time.monotonic() - self.since, 1e-9)
        rate, share_waited = (clips - self.clips_before) / seconds, min(1.0, self.waited / seconds)
        seconds_left = steps_left * seconds / max(1, step - self.step)
        self.since, self.step, self.waited, self.clips_before = time.monotonic(), step, 0.0, 0
        return rate, share_waited, seconds_left


def format_scores(scores: Mapping[str, float]) -> str:
    """Format scores as one line, the number of clips at its end."""
    shown = [f"{name} {score:.4f}" for name, score in scores.items() if name != "count"]
    return ", ".join([*shown, f"{scores['count']} clips"])
