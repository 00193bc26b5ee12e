"""Predictions as a table that grows row by row: results.jsonl or results.csv, whole after a kill, gone on with later.

Beside it lies NAME.run.json, which says what made it: weights and configuration must be the same to go on.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from core.atomic import check_name, csv_line, finite, write_json, writing
from core.errors import UserError
from core.schema import SCHEMA, refuse_newer

if TYPE_CHECKING:
    from engine.result import Result

SUFFIXES = (".jsonl", ".csv")
Row = tuple[str, Optional[int], str]  # path, label, error
_NAMES: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def columns(topk: int) -> list[str]:
    """Of the CSV file: a row a video."""
    tops = [f"{name}_{rank}" for rank in range(1, topk + 1) for name in ("class_id", "label_name", "score")]
    return ["input_path", "label", "error", *tops]


def csv_rows(results: Iterable[Result], topk: int, header: bool = True) -> str:
    """CSV text of results."""
    lines = [csv_line(columns(topk))] if header else []
    for result in results:
        tops = [value for row in zip(result.class_ids, result.label_names, result.scores) for value in row]
        label = "" if result.label is None else result.label
        row = [result.input_path or "", label, result.error, *tops, *[""] * (3 * topk - len(tops))]
        lines.append(csv_line(row))
    return "".join(lines)


class Output:
    """An open table of predictions.

    Args:
        path: .jsonl or .csv.
        inputs: path and label of all videos, in order.
        facts: plain data that must be the same for a run that goes on: weights, their digest, configuration.
        topk: classes a row.
        resume: go on with an existing file; one that is not there is begun.
        overwrite: replace an existing file.

    Attributes:
        done: how many of the inputs the file holds already.
        failed: how many of these could not be read.

    Raises:
        UserError: the file exists and neither is set; it was made by something else; it cannot be written.
    """

    def __init__(
        self,
        path: str,
        inputs: Sequence[tuple[str, int | None]],
        facts: dict[str, Any],
        topk: int,
        resume: bool,
        overwrite: bool,
    ) -> None:
        check_path(path, resume or overwrite)
        self.path, self.topk = path, topk
        self.done = self.failed = 0
        facts = json.loads(json.dumps(finite({**facts, "topk": topk})))
        with writing(path):
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
            self.file = open(path, "a", **_NAMES)  # noqa: SIM115
        self._lock()
        if os.path.getsize(path) and resume:
            self._read(inputs, facts)
        with writing(path):
            if not self.done:
                self.file.truncate(0)
                write_json(facts_path(path), {"schema": SCHEMA, **facts})
        if path.endswith(".csv") and not os.path.getsize(path):
            self._append(csv_rows([], topk))

    def add(self, result: Result) -> None:
        """Append a row, and give it to the system at once: a kill loses none."""
        if self.path.endswith(".csv"):
            self._append(csv_rows([result], self.topk, header=False))
        else:
            self._append(json.dumps(finite(result.json)) + "\n")

    def close(self) -> None:
        """Sync and close the file."""
        with writing(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed, or its process ends
        except OSError:
            raise UserError(f"another run is writing {self.path}") from None

    def _append(self, text: str) -> None:
        with writing(self.path):
            self.file.write(text)
            self.file.flush()

    def _read(self, inputs: Sequence[tuple[str, int | None]], facts: dict[str, Any]) -> None:
        """Count the whole rows, cut off a half one, and compare what made them."""
        then = _read_facts(self.path)
        other = sorted(key for key in {*then, *facts} if then.get(key) != facts.get(key))
        if other:
            raise UserError(f"{self.path} was made with other {', '.join(other)}", "output of others")
        rows, size = _whole_rows(self.path, self.topk)
        for number, (row, (path, label)) in enumerate(zip(rows, inputs), start=1):
            if row[:2] != (path, label):
                there = f"{row[0]!r} with label {row[1]}"
                given = f"{path!r} with label {label}"
                raise UserError(f"{self.path} has {there} as video {number}, and not {given}", "output of others")
        if len(rows) > len(inputs):
            raise UserError(f"{self.path} has {len(rows)} videos, and {len(inputs)} are given", "output of others")
        self.done, self.failed = len(rows), sum(bool(error) for _, _, error in rows)
        with writing(self.path):
            os.truncate(self.path, size)


def check_path(path: str, may_exist: bool) -> None:
    """Raise UserError where the suffix is none of SUFFIXES, or a file is there that must not be."""
    if not path.endswith(SUFFIXES):
        raise UserError(f"output {path}: expected a name that ends with {' or '.join(SUFFIXES)}")
    check_name(facts_path(path))
    if os.path.exists(path) and not may_exist:
        raise UserError(f"{path} exists", "output")


def facts_path(path: str) -> str:
    """The file beside a table that says what made it."""
    return f"{path}.run.json"


def _read_facts(path: str) -> dict[str, Any]:
    try:
        with open(facts_path(path), encoding="utf-8") as file:
            facts = json.load(file)
        refuse_newer(facts, facts_path(path))
        del facts["schema"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{facts_path(path)}, which says what made {path}, cannot be read", "output of others"
        ) from None
    return facts


def _whole_rows(path: str, topk: int) -> tuple[list[Row], int]:
    """(rows, bytes) of those that are whole."""
    with writing(path), open(path, "rb") as file:
        content = file.read()
    content = content[: content.rfind(b"\n") + 1]
    try:
        if path.endswith(".csv"):
            return _whole_csv_rows(content, topk)
        rows = [json.loads(line) for line in content.splitlines()]
        return [(row["input_path"], row.get("label"), row.get("error", "")) for row in rows], len(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error):
        raise UserError(f"{path} is not a table of predictions", "output of others") from None


def _whole_csv_rows(content: bytes, topk: int) -> tuple[list[Row], int]:
    text = content.decode("utf-8", "surrogateescape")
    lines = io.StringIO(text, newline="").readlines()
    rows, ends, table = [], [0], csv.reader(lines, strict=True)
    try:
        for row in table:
            rows.append(row)
            ends.append(table.line_num)
    except csv.Error:  # a name with a line end in it, cut at that
        if not rows:
            raise
    if rows and rows[0] != columns(topk):
        raise ValueError("another header")
    size = len("".join(lines[: ends[len(rows)]]).encode("utf-8", "surrogateescape"))
    return [(row[0], int(row[1]) if row[1] else None, row[2]) for row in rows[1:]], size
