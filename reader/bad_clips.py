"""Clips that cannot be read: their allowed number, their reasons, and the quarantine file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence

from stnet.reader.lists import Clip
from stnet.utils.errors import UserError

logger = logging.getLogger("stnet")


def allowed_bad(ratio: float, clips: int) -> float:
    """Number of a list's clips that may be bad: the share `ratio`, and, unless that is 0, at least one."""
    return max(1, ratio * clips) if ratio else 0


class BadClips:
    """Logs each clip that cannot be read once, counts them, and ends the run when they are too many.

    Args:
        clips: the list.
        allowed_ratio: share of the list that may be bad; infinity: all of it.
        quarantine: file that keeps the clips which hung or crashed the decoder, `PATH<tab>REASON` a line, or "".
    """

    def __init__(self, clips: Sequence[Clip], allowed_ratio: float, quarantine: str = "") -> None:
        self.clips = clips
        self.allowed = allowed_bad(allowed_ratio, len(clips))
        self.quarantine = quarantine
        self.reasons: dict[int, str] = {}

    def add(self, index: int, reason: str, quarantine: bool = False) -> None:
        """Note a bad clip. Raises UserError when more than the allowed share of the list is bad."""
        if index in self.reasons:
            return
        self.reasons[index] = reason
        logger.warning("skipped %s: %s", self.clips[index].name, reason)
        if quarantine and self.quarantine:
            with open(self.quarantine, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"{self.clips[index].name}\t{reason}\n")
        self._refuse_too_many()

    def merge(self, of_ranks: Iterable[dict[int, str]]) -> None:
        """Merge the `reasons` of all ranks. Raises UserError when they are too many, or no clip is left."""
        self.reasons = dict(sorted(item for reasons in of_ranks for item in reasons.items()))
        self._refuse_too_many()
        if len(self.reasons) == len(self.clips):
            raise self.none_read()

    def none_read(self) -> UserError:
        """Error for a list none of whose clips could be read."""
        index, reason = next(iter(self.reasons.items()))
        return UserError(f"no clip could be read; the first: {self.clips[index].name}: {reason}")

    def _refuse_too_many(self) -> None:
        if len(self.reasons) > self.allowed:
            index, reason = next(reversed(self.reasons.items()))
            raise UserError(
                f"{len(self.reasons)} of the {len(self.clips)} clips in the list cannot be read, more than "
                f"max_bad_ratio allows; the last one: {self.clips[index].name}: {reason}"
            )

    def quarantined(self) -> dict[int, str]:
        """Index -> reason of the clips in the quarantine file."""
        if not self.quarantine or not os.path.exists(self.quarantine):
            return {}
        with open(self.quarantine, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = dict(line.rstrip("\n").partition("\t")[::2] for line in file if line.strip())
        kept = {i: f"in quarantine: {lines[clip.name]}" for i, clip in enumerate(self.clips) if clip.name in lines}
        if kept:
            logger.info("%s: %d clips of the list are left out", self.quarantine, len(kept))
        return kept

    def log_total(self) -> None:
        """Log the number of bad clips."""
        logger.info("clips that could not be read: %d of %d", len(self.reasons), len(self.clips))

    def summary(self) -> list[dict[str, str]]:
        """Path and reason of each bad clip, for result files."""
        return [{"path": self.clips[i].name, "reason": reason} for i, reason in sorted(self.reasons.items())]
