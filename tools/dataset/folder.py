"""Make lists and labels of your own videos: one sub-folder a class, or a CSV file of paths and labels.

python -m tools.dataset folder --videos videos/ --out data/dataset/mine --ratio 0.8 --seed 0
python -m tools.dataset folder --csv clips.csv --out data/dataset/mine

The clips of every class are divided at random, always the same way for one seed; a class of two or more clips has
at least one for training and one held out. --group_by keeps clips of one recording on one side. The held-out clips
are written as val.list and test.list, and without labels as infer.list.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from stnet.reader.lists import VIDEO_SUFFIXES
from stnet.tools.dataset import groups, lists
from stnet.tools.dataset.videos import Entry, check_files, find_videos, shown
from stnet.utils.errors import UserError

logger = logging.getLogger("stnet")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's flags."""
    parser = lists.add_parser(commands, "folder", __doc__, run)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--videos", metavar="DIR", help="folder with one sub-folder a class")
    source.add_argument("--csv", metavar="FILE", help="lines PATH,LABEL; paths relative to the file, or absolute")
    parser.add_argument("--ratio", type=share, default=0.8, help="share of training clips (default: %(default)s)")
    parser.add_argument(
        "--group_by",
        default="",
        metavar="GROUP",
        help="clips of one group stay on one side: parent, the folder within the class's folder; or a regular "
        "expression that finds the group in the path, as '_(g[0-9]+)_' in UCF101's",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another division (default: %(default)s)")


def share(text: str) -> float:
    """A number between 0 and 1, both excluded."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a number between 0 and 1, found {text}")
    return value


def run(args: argparse.Namespace) -> int:
    """Make the lists. Returns the exit code; raises UserError, also when no clip can be used."""
    clips = read_csv(args.csv) if args.csv else read_folders(args.videos)
    labels = sort_labels({label for _, _, label in clips})
    warn_of_other_numbers(labels)
    numbers = {label: number for number, label in enumerate(labels)}
    found = check_files([Entry("all", name, path, numbers[label]) for name, path, label in clips], args.probe)
    facts = {"ratio": args.ratio, "seed": args.seed}
    if args.group_by and found.present:
        of_clip = groups.groups_of(found.present, labels, args.group_by)
        train, held_out = groups.divide_groups(found.present, of_clip, args.ratio, args.seed)
        groups.check_classes(train, held_out)
        facts.update(group_by=args.group_by, groups=len(set(of_clip.values())))
    else:
        train, held_out = divide(found.present, args.ratio, args.seed)
        groups.warn_of_shared_groups(train, held_out, labels)
    entries = {"train.list": train, "val.list": held_out, "test.list": held_out, "infer.list": held_out}
    lists.write_data_set(args, found, labels, entries, **facts)
    return 0


def read_folders(folder: str) -> list[tuple[str, str, str]]:
    """Find (name, path, label) of the videos in a folder's sub-folders, at any depth; sorted.

    Raises:
        UserError: no such folder, or no video in a sub-folder.
    """
    clips = []
    for path in find_videos(folder):
        name = os.path.relpath(path, folder)
        label, inside, _ = name.partition(os.sep)
        if inside:
            clips.append((name, path, shown(label)))
    if not clips:
        raise UserError(f"--videos {folder}: expected one sub-folder a class, found videos in the folder itself only")
    return clips


def read_csv(path: str) -> list[tuple[str, str, str]]:
    """Read (name, path, label) of a CSV file with lines PATH,LABEL, with or without a header.

    Equal lines count once; the path is empty where there is no file.

    Raises:
        UserError: the file cannot be read or is empty, a line is of another form, or a clip has two labels.
    """
    labels: dict[str, str] = {}
    folder = os.path.dirname(os.path.abspath(path))
    for where, cells in _without_header(_csv_lines(path), folder):
        if len(cells) != 2 or not all(cells):
            raise UserError(f"{where}: expected PATH,LABEL, found {','.join(cells)!r}")
        name, label = cells
        if shown(label) != label:
            raise UserError(f"{where}: the label is not in UTF-8: {shown(label)}")
        if labels.setdefault(name, label) != label:
            raise UserError(f"{where}: {name} has the label {label!r} here, {labels[name]!r} before")
    clips, taken = [], dict[str, tuple[str, str]]()
    for name, label in labels.items():
        file = os.path.join(folder, name)
        real = os.path.realpath(file)
        first, of_first = taken.setdefault(real, (name, label))
        if of_first != label:
            raise UserError(f"--csv {path}: {name} has the label {label!r}, and is the file {first} of {of_first!r}")
        if first != name:
            continue
        clips.append((name, file if os.path.lexists(file) else "", label))
    if not clips:
        raise UserError(f"--csv {path}: expected lines PATH,LABEL, found none")
    return clips


def _csv_lines(path: str) -> list[tuple[str, list[str]]]:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.reader(file)
            rows = [(f"{path}, line {reader.line_num}", [cell.strip() for cell in row]) for row in reader if any(row)]
    except FileNotFoundError:
        raise UserError(f"--csv {path}: no such file") from None
    except (OSError, csv.Error) as error:
        raise UserError(f"--csv {path} cannot be read: {error}") from None
    if any("\0" in cell for _, cells in rows for cell in cells):
        raise UserError(f"--csv {path} cannot be read: it is not text in UTF-8")
    return rows


def _without_header(rows: list[tuple[str, list[str]]], folder: str) -> list[tuple[str, list[str]]]:
    """Drop the header: the first row, and equal rows further down, where files were concatenated.

    Its path neither exists nor has a video suffix, and its label is no whole number and no other row's. A spreadsheet's
    line "sep=," before it is dropped, too.
    """
    if rows and ",".join(rows[0][1]) == "sep=,":
        rows = rows[1:]
    if not rows or len(rows[0][1]) != 2:
        return rows
    where, (name, label) = rows[0]
    others = [row for row in rows if row[1] != rows[0][1]]
    is_clip = os.path.isfile(os.path.join(folder, name)) or name.lower().endswith(VIDEO_SUFFIXES)
    if is_clip or whole_number(label) is not None or any(label in cells[1:] for _, cells in others):
        return rows
    if [name.lower(), label.lower()] != ["path", "label"]:
        logger.warning("%s: %s,%s is taken for a header: there is no such file", where, shown(name), shown(label))
    return others


def whole_number(label: str) -> int | None:
    """Value of a label that is a whole number, as tables write it: 7, +7, 7.0; None for any other."""
    match = re.fullmatch(r"([+-]?\d+)(?:\.0*)?", label)
    return int(match[1]) if match else None


def sort_labels(labels: Iterable[str]) -> list[str]:
    """Sort class names: by value if all are whole numbers, else by name."""
    values = {label: whole_number(label) for label in labels}
    numeric = None not in values.values()
    return sorted(values, key=lambda label: (values[label], label) if numeric else label)


def warn_of_other_numbers(labels: Sequence[str]) -> None:
    """Warn where class names that are whole numbers get other class numbers."""
    values = [whole_number(label) for label in labels]
    moved = [(label, number) for number, label in enumerate(labels) if values[number] not in (None, number)]
    if not moved:
        return
    words = [label for label, value in zip(labels, values) if value is None]
    why = f"{words[0]!r} is no whole number, so that all are sorted by name" if words else "they are not 0, 1, 2, ..."
    logger.warning(
        "%d of the %d labels that are whole numbers get another class number, for example label %s the number %d: %s; "
        "labels.json has the labels in the order of their numbers",
        len(moved),
        len(labels) - len(words),
        *moved[0],
        why,
    )


def divide(entries: list[Entry], ratio: float, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Divide clips into training and held-out ones, class by class.

    The division of a class depends on its own clips' names and the seed alone.

    Args:
        entries: the clips.
        ratio: share of training clips.
        seed: of the division.

    Returns:
        (train, held_out), in the order given.
    """
    by_label = defaultdict(list)
    for entry in entries:
        by_label[entry.label].append(entry)
    train: set[Entry] = set()
    for members in by_label.values():
        members.sort(key=lambda entry: entry.name)
        random.Random(seed).shuffle(members)
        count = max(1, min(len(members) - 1, round(len(members) * ratio)))
        train.update(members[:count])
    return [e for e in entries if e in train], [e for e in entries if e not in train]
