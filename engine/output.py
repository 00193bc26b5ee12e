"""Predictions as a table that grows row by row: results.jsonl or results.csv, whole after a kill, gone on with later.

Beside it lies NAME.run.json, which says what made it: weights and configuration must be the same to go on. It has size
and time of each video's file, too: the row of a video that was replaced is made again.
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

from core.atomic import check_name, csv_line, finite, write_atomically, write_json, writing
from core.errors import UserError
from core.files import read_regular
from core.parsing import parse_json
from core.schema import SCHEMA, refuse_newer

if TYPE_CHECKING:
    from engine.result import Result

logger = logging.getLogger("stnet")
SUFFIXES = (".jsonl", ".csv")
Row = tuple[str, Optional[int], str, bytes]  # path, label, error, and its bytes in the file
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
        inputs: path as it is shown, label, and file of all videos, in order.
        facts: plain data that must be the same for a run that goes on: weights, their digest, configuration.
        topk: classes a row.
        resume: go on with an existing file, which may lack any of the videos; one that is not there is begun.
        overwrite: replace an existing file.

    Attributes:
        rest: numbers of the inputs that the file does not hold, or whose files were replaced since.
        failed: how many of those that it holds could not be read.

    Raises:
        UserError: the file exists and neither is set; it was made by something else, or of other videos; it cannot be
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
        self.path, self.topk = path, topk
        self._given, self.failed, self.rest = len(inputs), 0, list(range(len(inputs)))
        stamps: dict[str, list[list[int]]] = {}  # of a name: two lists may have files of one name
        for shown, _, file in inputs:
            stamps.setdefault(shown, []).append(_stamp(file))
        facts = json.loads(json.dumps(finite({**facts, "topk": topk})))
        with writing(path):
            os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        self._open()
        if os.path.getsize(path) and resume:
            self._read([(shown, label) for shown, label, _ in inputs], facts, stamps)
        with writing(path):
            if not self.done:
                self.file.truncate(0)
            write_json(facts_path(path), {"schema": SCHEMA, **facts, "stamps": stamps})  # once no older row is left
        if path.endswith(".csv") and not os.path.getsize(path):
            self._append(csv_rows([], topk))

    @property
    def done(self) -> int:
        """How many of the inputs the file held at the start."""
        return self._given - len(self.rest)

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

    def _open(self) -> None:
        with writing(self.path):
            self.file = open(self.path, "a", **_NAMES)  # noqa: SIM115
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed, or its process ends
        except OSError:
            raise UserError(f"another run is writing {self.path}") from None

    def _append(self, text: str) -> None:
        with writing(self.path):
            self.file.write(text)
            self.file.flush()

    def _read(
        self, inputs: Sequence[tuple[str, int | None]], facts: dict[str, Any], stamps: dict[str, list[list[int]]]
    ) -> None:
        """Compare what made the file, and find which rows can stay: whole ones of videos that are as they were."""
        then = _read_facts(self.path)
        before = then.pop("stamps")
        other = sorted(key for key in {*then, *facts} - {"weights"} if then.get(key) != facts.get(key))
        other = ["weights" if key == "sha256" else key for key in other]  # wherever their file lies now
        if other:
            raise UserError(f"{self.path} was made with other {', '.join(other)}", "output of others")
        header, rows = _whole_rows(self.path, self.topk)
        places: dict[tuple[str, int | None], list[int]] = {}
        for number in self.rest:
            places.setdefault(inputs[number], []).append(number)
        done, kept = set(), []
        for path, label, error, content in rows:
            if not places.get((path, label)):
                there = repr(path) + ("" if label is None else f" with label {label}")
                raise UserError(
                    f"{self.path} has a row of {there}, which is not among the videos given now", "output of others"
                )
            number = places[path, label].pop(0)
            if all(then == now for then, now in zip(before.get(path, stamps[path]), stamps[path])):
                done.add(number)
                kept.append(content)
                self.failed += bool(error)
        self.rest = [number for number in self.rest if number not in done]
        if len(kept) < len(rows):
            logger.info("videos that were replaced since, and are read again: %d", len(rows) - len(kept))
        self._keep(header + b"".join(kept), as_it_is=len(kept) == len(rows))

    def _keep(self, content: bytes, as_it_is: bool) -> None:
        """Let the file have this content alone: its beginning, if `as_it_is`."""

        def write(temporary: str) -> None:
            with open(temporary, "wb") as file:
                file.write(content)

        if as_it_is:
            with writing(self.path):
                os.truncate(self.path, len(content))
        else:
            write_atomically(self.path, write)
            self.file.close()
            self._open()


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
        facts = parse_json(read_regular(facts_path(path), 1 << 30))  # a line a video
        refuse_newer(facts, facts_path(path))
        del facts["schema"]
        facts["stamps"] = dict(facts.get("stamps", {}))  # tables of 0.2.0 have none
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(
            f"{facts_path(path)}, which says what made {path}, cannot be read", "output of others"
        ) from None
    return facts


def _stamp(file: str) -> list[int]:
    """Size and time of a file, or of those in a folder of frames; [] where there is none."""
    try:
        with os.scandir(file) if os.path.isdir(file) else contextlib.nullcontext([file]) as files:
            states = [os.stat(entry) for entry in files]
    except OSError:
        return []
    return [sum(state.st_size for state in states), max((state.st_mtime_ns for state in states), default=0)]


def _whole_rows(path: str, topk: int) -> tuple[bytes, list[Row]]:
    """The header and the rows that are whole."""
    with writing(path), open(path, "rb") as file:
        content = file.read()
    content = content[: content.rfind(b"\n") + 1]
    try:
        if path.endswith(".csv"):
            return _whole_csv_rows(content, topk)
        lines = content.splitlines(keepends=True)
        return b"", [_row_of(json.loads(line), line) for line in lines]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error):
        raise UserError(f"{path} is not a table of predictions", "output of others") from None


def _row_of(facts: dict[str, Any], line: bytes) -> Row:
    path, label = facts["input_path"], facts.get("label")
    if not isinstance(path, str) or type(label) not in (int, type(None)):
        raise TypeError("another kind of row")
    return path, label, facts.get("error", ""), line


def _whole_csv_rows(content: bytes, topk: int) -> tuple[bytes, list[Row]]:
    mark = codecs.BOM_UTF8 if content.startswith(codecs.BOM_UTF8) else b""  # of a spreadsheet that saved it
    text = content[len(mark) :].decode("utf-8", "surrogateescape")
    lines = io.StringIO(text, newline="").readlines()
    rows, begin, table = [], 0, csv.reader(lines, strict=True)
    try:
        for row in table:
            text = "".join(lines[begin : table.line_num])
            rows.append((row, text.encode("utf-8", "surrogateescape")))
            begin = table.line_num
    except csv.Error:  # a name with a line end in it, cut at that
        if not rows:
            raise
    if not rows:
        return b"", []
    (columns_there, header), *rows = rows
    if columns_there != columns(topk):
        raise ValueError("another header")
    return mark + header, [(row[0], int(row[1]) if row[1] else None, row[2], text) for row, text in rows]
