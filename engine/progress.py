"""Progress of long work: a tqdm bar on a terminal, plain log lines with rate and time left otherwise."""

import logging
import sys
import time

from tqdm import tqdm

logger = logging.getLogger("stnet")


class Progress:
    """Counts clips.

    Args:
        total: clips expected.
        what: word for the lines, "eval" for example.
        steps: steps expected; lines come every `log_interval` steps and at the last.
    """

    def __init__(self, total, what, steps, log_interval):
        self.total, self.what, self.steps, self.log_interval = total, what, steps, log_interval
        self.done = self.step = 0
        self.started = time.monotonic()
        self.bar = tqdm(total=total, desc=what, unit="clip", leave=False) if sys.stderr.isatty() else None

    def update(self, clips, text=""):
        """One more step of `clips` clips; `text` joins the line."""
        self.done += clips
        self.step += 1
        if self.bar is not None:
            self.bar.update(clips)
            if text:
                self.bar.set_postfix_str(text)
        elif self.step % self.log_interval == 0 or self.step == self.steps:
            logger.info(
                "%s %d/%d clips%s, %s",
                self.what,
                self.done,
                self.total,
                f", {text}" if text else "",
                pace(self.done, self.total, time.monotonic() - self.started),
            )

    def close(self):
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()


def pace(done, total, seconds):
    """'12.3 clips/s, ETA 0:01:05' from the clips done, all clips, and the seconds taken."""
    rate = done / seconds if seconds > 0 else 0.0
    left = (total - done) / rate if rate else 0.0
    return f"{rate:.2f} clips/s, ETA {hours(left)}"


def hours(seconds):
    """Seconds as h:mm:ss."""
    seconds = int(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
