"""Table of predictions, results.jsonl or results.csv, that grows row by row and can be resumed.

NAME.run.json next to it records weights and configuration, which must be the same to resume, and size and time of each
video's file: the row of a video that has changed is computed again.
"""

from __future__ import annotations

import codecs
import contextlib
import csv
import fcntl
import io
import json
import logging
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional

from stnet.metrics.rejection import FACTS
from stnet.utils.atomic import check_name, csv_line, finite, os_errors_as_user_errors, write_atomically, write_json
from stnet.utils.errors import UserError
from stnet.utils.files import read_regular
from stnet.utils.parsing import parse_json
from stnet.utils.schema import SCHEMA, refuse_newer

if TYPE_CHECKING:
    from stnet.inference.result import Result

logger = logging.getLogger("stnet")
_OTHER_TABLE = "set --overwrite to replace it, or --output to another file"
SUFFIXES = (".jsonl", ".csv")
Row = tuple[str, Optional[int], str, bytes]  # path, label, error, and its bytes in the file
_NAMES: dict[str, Any] = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}


def columns(topk: int, reject: bool = False) -> list[str]:
    """Columns of the CSV file, which has one row for each video; `reject`: with whether it is unknown."""
    tops = [f"{name}_{rank}" for rank in range(1, topk + 1) for name in ("class_id", "label_name", "score")]
    return ["input_path", "label", "error", *tops, *(FACTS if reject else ())]


def csv_rows(results: Iterable[Result], topk: int, header: bool = True, reject: bool = False) -> str:
    """Format results as CSV; `reject`: see `columns`."""
    lines = [csv_line(columns(topk, reject))] if header else []
    for result in results:
        tops = [value for row in zip(result.class_ids, result.label_names, result.scores) for value in row]
        label = "" if result.label is None else result.label
        row = [result.input_path or "", label, result.error, *tops, *[""] * (3 * topk - len(tops))]
        row += [result.reject_facts.get(key, "") for key in FACTS] if reject else []
        lines.append(csv_line(row))
    return "".join(lines)


class ResultTable:
    """An open table of predictions.

    Args:
        path: .jsonl or .csv.
        inputs: (path to display, label, file) of all videos, in order.
        facts: plain data that must be the same to resume: weights, their digest, configuration; with "reject", rows
            say whether a video is unknown.
        topk: classes in a row.
        resume: continue an existing file, which may lack any of the videos.
        overwrite: replace an existing file.

    Attributes:
        rest: numbers of the inputs that the file does not hold, or whose files have changed.
        failed: number of videos in the file that could not be read.

    Raises:
        UserError: the file exists and neither is set; it was made with other settings or of other videos; it cannot be
            written.
    """

    def __init__(
        self,
        path: str,
        inputs: Sequence[tuple[str, int | None, str]],
        facts: dict[str, Any],
        topk: int,
        resume: bool,
        overwrite: bool,
    ) -> None:
        check_path(path, resume or overwrite)
        self.path, self.topk, self.reject = path, topk, "reject" in facts
        self._given, self.failed, self.rest = len(inputs), 0, list(range(len(inputs)))
        stamps: dict[str, list[list[int]]] = {}  # by displayed path, which several inputs may share
        for shown, _, file in inputs:
            stamps.setdefault(shown, []).append(_stamp(file))
        facts = json.loads(json.dumps(finite({**facts, "topk": topk})))
        with os_errors_as_user_errors(path):
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        self._open()
        if os.path.getsize(path) and resume:
            self._read([(shown, label) for shown, label, _ in inputs], facts, stamps)
        with os_errors_as_user_errors(path):
            if not self.done:
                self.file.truncate(0)
            write_json(facts_path(path), {"schema": SCHEMA, **facts, "stamps": stamps})  # after older rows are removed
        if path.endswith(".csv") and not os.path.getsize(path):
            self._append(csv_rows([], topk, reject=self.reject))

    @property
    def done(self) -> int:
        """Number of the inputs that the file held at the start."""
        return self._given - len(self.rest)

    def add(self, result: Result) -> None:
        """Append a row and flush it, so that a killed run loses none."""
        if self.path.endswith(".csv"):
            self._append(csv_rows([result], self.topk, header=False, reject=self.reject))
        else:
            self._append(json.dumps(finite(result.json)) + "\n")

    def close(self) -> None:
        """Sync and close the file."""
        with os_errors_as_user_errors(self.path):
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()

    def _open(self) -> None:
        with os_errors_as_user_errors(self.path):
            self.file = open(self.path, "a", **_NAMES)  # noqa: SIM115
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed, or its process ends
        except OSError:
            raise UserError(f"another run is writing {self.path}") from None

    def _append(self, text: str) -> None:
        with os_errors_as_user_errors(self.path):
            self.file.write(text)
            self.file.flush()

    def _read(
        self, inputs: Sequence[tuple[str, int | None]], facts: dict[str, Any], stamps: dict[str, list[list[int]]]
    ) -> None:
        """Check that the file was made in the same way, and keep the whole rows of unchanged videos."""
        recorded = _read_facts(self.path)
        old_stamps = recorded.pop("stamps")
        other = sorted(key for key in {*recorded, *facts} - {"weights"} if recorded.get(key) != facts.get(key))
        other = ["weights" if key == "sha256" else key for key in other]  # their path may change
        if other:
            raise UserError(f"{self.path} was made with other {', '.join(other)}", _OTHER_TABLE)
        header, rows = _whole_rows(self.path, columns(self.topk, self.reject))
        numbers: dict[tuple[str, int | None], list[int]] = {}
        for number in self.rest:
            numbers.setdefault(inputs[number], []).append(number)
        done, kept = set(), []
        for path, label, error, content in rows:
            if not numbers.get((path, label)):
                there = repr(path) + ("" if label is None else f" with label {label}")
                raise UserError(
                    f"{self.path} has a row of {there}, which is not among the videos given now", _OTHER_TABLE
                )
            number = numbers[path, label].pop(0)
            if all(old == new for old, new in zip(old_stamps.get(path, stamps[path]), stamps[path])):
                done.add(number)
                kept.append(content)
                self.failed += bool(error)
        self.rest = [number for number in self.rest if number not in done]
        if len(kept) < len(rows):
            logger.info("videos that were replaced since, and are read again: %d", len(rows) - len(kept))
        self._replace(header + b"".join(kept), only_truncate=len(kept) == len(rows))

    def _replace(self, content: bytes, only_truncate: bool) -> None:
        """Replace the file's content; `only_truncate`: the file begins with it already."""

        def write(temporary: str) -> None:
            with open(temporary, "wb") as file:
                file.write(content)

        if only_truncate:
            with os_errors_as_user_errors(self.path):
                os.truncate(self.path, len(content))
        else:
            write_atomically(self.path, write)
            self.file.close()
            self._open()


def check_path(path: str, may_exist: bool) -> None:
    """Raise UserError for a suffix that is not in SUFFIXES, or a file that must not exist."""
    if not path.endswith(SUFFIXES):
        raise UserError(f"output {path}: expected a name that ends with {' or '.join(SUFFIXES)}")
    check_name(facts_path(path))
    if os.path.exists(path) and not may_exist:
        raise UserError(
            f"{path} exists", "set --resume to go on with it, --overwrite to replace it, or --output to another file"
        )


def facts_path(path: str) -> str:
    """Path of the file that records the settings of a table."""
    return f"{path}.run.json"


def _read_facts(path: str) -> dict[str, Any]:
    try:
        facts = parse_json(read_regular(facts_path(path), 1 << 30))  # bytes
        refuse_newer(facts, facts_path(path))
        del facts["schema"]
        facts["stamps"] = dict(facts.get("stamps", {}))  # tables of 0.2.0 have none
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{facts_path(path)}, which says what made {path}, cannot be read", _OTHER_TABLE) from None
    return facts


def _stamp(file: str) -> list[int]:
    """Total size and latest time of a file or a folder of frames; [] where it cannot be read."""
    try:
        with os.scandir(file) if os.path.isdir(file) else contextlib.nullcontext([file]) as files:
            states = [os.stat(entry) for entry in files]
    except OSError:
        return []
    return [sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)]


def _whole_rows(path: str, expected: list[str]) -> tuple[bytes, list[Row]]:
    """Read the header, which must have the expected columns, and the whole rows."""
    with os_errors_as_user_errors(path), open(path, "rb") as file:
        content = file.read()
    content = content[: content.rfind(b"\n") + 1]
    try:
        if path.endswith(".csv"):
            return _whole_csv_rows(content, expected)
        rows: list[Row] = []
        for line in content.splitlines(keepends=True):
            facts = json.loads(line)
            video, label = facts["input_path"], facts.get("label")
            if not isinstance(video, str) or type(label) not in (int, type(None)):
                raise TypeError("another kind of row")
            rows.append((video, label, facts.get("error", ""), line))
        return b"", rows
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error):
        raise UserError(f"{path} is not a table of predictions", _OTHER_TABLE) from None


def _whole_csv_rows(content: bytes, expected: list[str]) -> tuple[bytes, list[Row]]:
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""  # of a spreadsheet program
    text = content[len(mark) :].decode("utf-8", "surrogateescape")
    lines = io.StringIO(text, newline="").readlines()
    rows, begin, table = [], 0, csv.reader(lines, strict=True)
    try:
        for row in table:
            text = "".join(lines[begin : table.line_num])
            rows.append((row, text.encode("utf-8", "surrogateescape")))
            begin = table.line_num
    except csv.Error:  # the last row is cut inside quotes
        if not rows:
            raise
    if not rows:
        return b"", []
    (columns_there, header), *rows = rows
    if columns_there != expected:
        raise ValueError("another header")
    return mark + header, [(row[0], int(row[1]) if row[1] else None, row[2], text) for row, text in rows]
