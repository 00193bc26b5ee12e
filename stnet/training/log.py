"""Log of a training run: train_log.jsonl and VisualDL scalars."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from typing import Any

from stnet.utils.atomic import write_text
from stnet.utils.files import StrPath

logger = logging.getLogger("stnet")
Row = dict[str, Any]
RESERVED = ("kind", "step", "epoch", "top1", "top5")  # keys of a validation's row that are not names of other metrics
_LARGEST = 1e30  # number that can be drawn


class Journal:
    """Appends one JSON line per log interval and validation to FOLDER/train_log.jsonl.

    Args:
        folder: of the run.
        step: from which training resumes; later lines, of a killed run, are dropped.
    """

    def __init__(self, folder: str, step: int = 0) -> None:
        self.path = os.path.join(folder, "train_log.jsonl")
        if step or os.path.exists(self.path):
            rows = [row for row in read_journal(self.path) if row["step"] <= step]
            write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self.file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115 (open as long as the run)
        self.scalars = _visualdl_writer(folder)

    def write(self, kind: str, step: int, **values: float) -> None:
        """Write a line: kind ("train" or "valid"), step, and numbers."""
        self.file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self.file.flush()
        if self.scalars:
            for name, value in values.items():
                self.scalars.add_scalar(tag=f"{kind}/{name}", step=step, value=value)

    def close(self) -> None:
        """Flush and close."""
        self.file.close()
        if self.scalars:
            self.scalars.close()


def read_journal(path: StrPath) -> list[Row]:
    """Read the rows of a train_log.jsonl, if it exists; warns of unfinished or damaged lines."""
    if not os.path.exists(path):
        return []
    rows: list[Row] = []
    damaged = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict) and type(row.get("step")) is int and isinstance(row.get("kind"), str):
                rows.append(row)
            else:
                damaged += 1
    if damaged:
        logger.warning("%s: %d unfinished or damaged lines are left out", path, damaged)
    return rows


def points(rows: Sequence[Row], kind: str, key: str) -> list[tuple[int, float]]:
    """(step, value) of the rows of a kind whose value of a key is a finite number, by ascending step."""
    pairs: list[tuple[int, Any]] = [(row["step"], row.get(key)) for row in rows if row["kind"] == kind]
    numbers = [(step, float(value)) for step, value in pairs if _can_be_drawn(step) and _can_be_drawn(value)]
    return sorted(numbers, key=lambda pair: pair[0])


def _can_be_drawn(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < _LARGEST


def _visualdl_writer(folder: str) -> Any:
    try:
        from visualdl import LogWriter
    except ImportError:
        return None
    return LogWriter(logdir=os.path.join(folder, "visualdl"))
