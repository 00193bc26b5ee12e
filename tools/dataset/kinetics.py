"""Make lists and labels of Kinetics-400, -600 or -700 from the official CSV files and a folder of videos.

python -m tools.dataset kinetics --csv train.csv --csv val.csv --videos videos/ --out data/dataset/kinetics

Videos may lie in class folders or in one flat folder, split folders around them or not, and be named
ID_START_END.mp4 (six digits each) or ID.mp4, with any usual video suffix.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from stnet.config import PACKAGE
from stnet.tools.dataset import lists
from stnet.tools.dataset.videos import Entry, VideoIndex, check_files, plain
from stnet.utils.errors import UserError
from stnet.weights.labels import load_labels

LABELS = os.path.join(PACKAGE, "data", "dataset", "kinetics_labels.json")
PARTS = {"train": "train", "val": "val", "validate": "val", "validation": "val", "test": "test"}
COLUMNS = ("youtube_id", "time_start", "time_end", "split")


class Row(NamedTuple):
    """One line of a CSV file; times in seconds."""

    part: str
    label: str  # empty: none given
    id: str
    start: int
    end: int

    @property
    def name(self) -> str:
        """The official file name, without suffix."""
        return f"{self.id}_{self.start:06d}_{self.end:06d}"


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's flags."""
    parser = lists.add_parser(commands, "kinetics", __doc__, run)
    parser.add_argument("--csv", required=True, action="append", metavar="FILE", help="official CSV file; repeatable")
    parser.add_argument("--videos", required=True, metavar="DIR", help="folder that holds the videos, at any depth")
    parser.add_argument(
        "--labels",
        default=LABELS,
        metavar="FILE",
        help="class order to keep if it has all the CSV's classes (default: that of the released weights); "
        "none: the CSV's own classes, sorted",
    )


def run(args: argparse.Namespace) -> int:
    """Make the lists. Returns the exit code; raises UserError, also when none of the clips is found."""
    rows, repeated = read_rows(args.csv)
    labels, order = choose_labels(rows, args.labels)
    numbers = {plain(label): number for number, label in enumerate(labels)}
    index = VideoIndex(args.videos)
    paths = locate(rows, index)
    entries = [
        Entry(row.part, row.name, path, numbers[plain(row.label)] if row.label else -1)
        for row, path in zip(rows, paths)
    ]
    found = check_files(entries, args.probe)
    lists.write_data_set(
        args,
        found,
        labels,
        make_lists(entries, found.present),
        example=os.path.relpath(index.paths[0], args.videos),
        label_order=order,
        repeated_rows=repeated,
        other_videos=len(set(index.paths) - set(paths)),
    )
    return 0


def read_rows(paths: Sequence[str]) -> tuple[list[Row], int]:
    """Read the rows of CSV files, each clip once.

    A clip that a split has with and without a label counts with it.

    Returns:
        (rows in the order of the files, number of repeated lines).

    Raises:
        UserError: a file cannot be read or is not of the official form (naming its line), or holds no clip.
    """
    read = [row for path in paths for row in _read_csv(path)]
    first: dict[Row, Row] = {}
    for row in read:
        first.setdefault(row._replace(label=plain(row.label)), row)
    labelled = {key._replace(label="") for key in first if key.label}
    rows = [row for key, row in first.items() if key not in labelled]
    if not rows:
        raise UserError(f"--csv {', '.join(paths)}: expected one clip a line, found none")
    return rows, len(read) - len(rows)


def _read_csv(path: str) -> list[Row]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            header = [name.strip().lower() for name in next(reader, [])]
            missing = [name for name in COLUMNS if name not in header]
            if missing:
                raise UserError(
                    f"{path}, line 1: expected the columns label,youtube_id,time_start,time_end,split "
                    f"(label may be absent), found no {', '.join(missing)}"
                )
            return [_parse(dict(zip(header, row)), f"{path}, line {reader.line_num}") for row in reader if any(row)]
    except FileNotFoundError:
        raise UserError(f"--csv {path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--csv {path} cannot be read: {error}") from None


def _parse(cells: dict[str, str], where: str) -> Row:
    """Parse a CSV line, column -> text."""
    lacking = [name for name in COLUMNS if not cells.get(name, "").strip()]
    if lacking:
        raise UserError(f"{where}: expected values for {', '.join(COLUMNS)}, found none for {', '.join(lacking)}")
    split = cells["split"].strip().lower()
    if split not in PARTS:
        raise UserError(f"{where}: split: expected one of {', '.join(PARTS)}, found {cells['split']!r}")
    times = []
    for name in ("time_start", "time_end"):
        try:
            times.append(int(float(cells[name])))
        except (ValueError, OverflowError):
            raise UserError(f"{where}: {name}: expected seconds, found {cells[name]!r}") from None
    label = cells.get("label", "").strip()
    if not label and PARTS[split] != "test":
        raise UserError(f"{where}: expected a label, found none; only test clips may be without")
    return Row(PARTS[split], label, cells["youtube_id"].strip(), *times)


def choose_labels(rows: Sequence[Row], path: str) -> tuple[list[str], str]:
    """Choose the class names, in the order of their numbers.

    Args:
        rows: of the CSV files.
        path: labels JSON whose order is kept if it has every class of the rows; "none": no file.

    Returns:
        (labels, order): empty if the rows are without labels and path is "none"; the JSON's path or "sorted".

    Raises:
        UserError: the JSON cannot be read.
    """
    spelled: dict[str, str] = {}
    for row in rows:
        if row.label:
            spelled.setdefault(plain(row.label), row.label)
    if path != "none":
        known = load_labels(path, None)
        if spelled.keys() <= set(map(plain, known)):
            return known, os.path.basename(path)
    return sorted(spelled.values()), "sorted"


def locate(rows: Sequence[Row], index: VideoIndex) -> list[str]:
    """Path of each row's video, or "".

    A file named by the id alone is the one clip with this id; where several clips have it, the one of the class in
    whose folder it is.
    """
    clips_of_id = Counter(row.id for row in rows)
    clips_of_class = Counter((row.id, plain(row.label)) for row in rows)
    paths = []
    for row in rows:
        path = index.find(row.name, row.label, row.part)
        path = path or index.find(f"{row.id}_{row.start}_{row.end}", row.label, row.part)
        if not path and clips_of_id[row.id] == 1:
            path = index.find(row.id, row.label, row.part)
        elif not path and row.label and clips_of_class[row.id, plain(row.label)] == 1:
            path = index.find(row.id, row.label, row.part, inside=True)
        paths.append(path)
    return paths


def make_lists(entries: Sequence[Entry], present: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Entries of each list, for the lists that the data set has, empty ones too."""
    asked = {(entry.part, entry.label >= 0) for entry in entries}
    by_list = {}
    for part in ("train", "val", "test"):
        if (part, True) in asked:
            by_list[f"{part}.list"] = [entry for entry in present if entry.part == part and entry.label >= 0]
    if any(part == "test" for part, _ in asked):
        by_list["infer.list"] = [entry for entry in present if entry.part == "test"]
    return by_list
