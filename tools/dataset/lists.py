"""Shared by the list-making commands: flags, official split files, and writing lists, labels and the report."""

from __future__ import annotations

import argparse
import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from stnet.tools.dataset.videos import Entry, FoundClips, VideoIndex, check_files, plain, shown
from stnet.utils.atomic import write_atomically, write_json
from stnet.utils.errors import UserError
from stnet.utils.schema import SCHEMA
from stnet.weights.labels import load_labels

LISTS = ("train.list", "val.list", "test.list", "infer.list")


def add_parser(
    commands: argparse._SubParsersAction, name: str, description: str | None, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a subparser with the flags of all list-making commands; the description's first line is its help."""
    summary = (description or "").splitlines()[0]
    parser = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where lists, labels.json and lists_report.json go")
    parser.add_argument("--relative", action="store_true", help="write paths relative to the lists, not absolute")
    parser.add_argument("--probe", action="store_true", help="open every video and decode one frame")
    parser.add_argument("--debug", action="store_true", help="show the traceback of a user error, too")
    parser.set_defaults(run=run)
    return parser


def add_split_flags(parser: argparse.ArgumentParser) -> None:
    """--videos, --splits and --split, for data sets with official split files."""
    parser.add_argument("--videos", required=True, metavar="DIR", help="class folders of videos, or one flat folder")
    parser.add_argument("--splits", required=True, metavar="DIR", help="folder of the official split files")
    parser.add_argument("--split", type=int, choices=(1, 2, 3), required=True, help="which of the official splits")


def split_file(folder: str, pattern: str) -> str:
    """Find the first file of this name (or glob pattern) in a folder or one folder below it.

    Raises:
        UserError: there is none.
    """
    for below in ("", "*"):
        paths = sorted(glob.glob(os.path.join(glob.escape(folder), below, pattern)))
        if paths:
            return paths[0]
    raise UserError(f"--splits {folder}: expected the official split files, found no {pattern}")


def text_lines(path: str) -> list[tuple[str, str]]:
    """Read ("FILE, line N", stripped line) of the lines that are not blank. Raises UserError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return [(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1) if line]


def write_split(args: argparse.Namespace, clips: Iterable[Entry], labels: Sequence[str]) -> None:
    """Find the clips of an official split and write all lists; the test split is the validation set, too.

    Args:
        args: the command's arguments: videos, probe, and those of write_data_set.
        clips: entries without paths, named by their files, of the parts train and test.
        labels: class names in the order of their numbers.

    Raises:
        UserError: as write_data_set and VideoIndex.
    """
    index = VideoIndex(args.videos)
    classes = set(map(plain, labels))
    entries = []
    for entry in dict.fromkeys(clips):
        stem = os.path.splitext(os.path.basename(entry.name))[0]
        entries.append(entry._replace(path=index.find(stem, labels[entry.label], classes=classes)))
    found = check_files(entries, args.probe)
    train = [entry for entry in found.present if entry.part == "train"]
    test = [entry for entry in found.present if entry.part == "test"]
    lists = {"train.list": train, "val.list": test, "test.list": test, "infer.list": test}
    example = os.path.relpath(index.paths[0], args.videos)
    write_data_set(args, found, labels, lists, example, split=args.split)


def write_data_set(
    args: argparse.Namespace,
    found: FoundClips,
    labels: Sequence[str],
    lists: Mapping[str, Sequence[Entry]],
    example: str = "",
    **facts: Any,
) -> None:
    """Write the lists, labels.json and lists_report.json, and print what was found.

    Args:
        args: the command's arguments: command, out, relative.
        found: of check_files.
        labels: class names in the order of their numbers; empty: unknown, no file is written.
        lists: from one of LISTS to its entries; infer.list is written without labels.
        example: a path to show if no entry has a usable file.
        facts: more plain data for the report.

    Raises:
        UserError: no entry has a usable file, the folder cannot be written, or it holds another data set's lists.
    """
    if not found.present:
        raise UserError(_nothing(found, example))
    labels = [shown(label) for label in labels]
    _refuse_mixture(args.out, lists, labels)
    if labels:
        write_json(os.path.join(args.out, "labels.json"), labels)
    for name, entries in lists.items():
        _write_list(os.path.join(args.out, name), entries, name != "infer.list", args.relative)
    counts = _count(found)
    report = {
        "schema": SCHEMA,
        "command": args.command,
        "classes": len(labels),
        "clips": counts,
        "lists": {name: len(entries) for name, entries in lists.items()},
        **facts,
        "missing": [{"part": entry.part, "name": shown(entry.name)} for entry in found.missing],
        "unreadable": [
            {"part": entry.part, "path": shown(entry.path), "reason": reason} for entry, reason in found.unreadable
        ],
    }
    write_json(os.path.join(args.out, "lists_report.json"), report)
    print(_table(counts))
    written = ", ".join(f"{name} ({len(entries)})" for name, entries in lists.items())
    print(
        f"wrote {written}, lists_report.json to {args.out}"
        + (f"; {len(labels)} classes in labels.json" if labels else "")
    )


def _nothing(found: FoundClips, example: str) -> str:
    """Message for a data set without a usable clip."""
    counts = f"{len(found.missing)} missing, {len(found.unreadable)} unreadable"
    if found.missing:
        expected, instead = found.missing[0], f", found for example {shown(example)}" if example else ""
    else:
        expected, reason = found.unreadable[0]
        instead = f", but {reason}"
    return f"no usable clip: {counts}; expected for example {shown(expected.name)}{instead}"


def _refuse_mixture(out: str, lists: Iterable[str], labels: list[str]) -> None:
    """Raise UserError where lists of an earlier run stay that have other class numbers."""
    stale = [name for name in LISTS if name not in lists and os.path.exists(os.path.join(out, name))]
    path = os.path.join(out, "labels.json")
    if stale and labels and os.path.exists(path) and load_labels(path, None) != labels:
        raise UserError(
            f"{out} holds {', '.join(stale)} made with other class numbers than this run's; "
            "make all lists in one command, or set --out to another folder"
        )


def _write_list(path: str, entries: Iterable[Entry], labelled: bool, relative: bool) -> None:
    folder = os.path.dirname(os.path.abspath(path))

    def line(entry: Entry) -> str:
        name = os.path.abspath(entry.path)
        if relative:
            name = os.path.relpath(name, folder)
            name = os.path.join(os.curdir, name) if name[0].isspace() or name[0] == "#" else name
        return f"{name} {entry.label}\n" if labelled else f"{name}\n"

    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(line(entry) for entry in entries)

    write_atomically(path, write)


def _count(found: FoundClips) -> dict[str, dict[str, int]]:
    """Numbers of clips of each part, in the order train, val, test."""
    parts_of = {
        "present": Counter(entry.part for entry in found.present),
        "missing": Counter(entry.part for entry in found.missing),
        "unreadable": Counter(entry.part for entry, _ in found.unreadable),
    }
    counts = {}
    for part in ("train", "val", "test", "all"):
        of_part = {state: parts[part] for state, parts in parts_of.items()}
        if any(of_part.values()):
            counts[part] = {"clips": sum(of_part.values()), **of_part}
    return counts


def _table(counts: dict[str, dict[str, int]]) -> str:
    rows: list[tuple] = [("", "clips", "present", "missing", "unreadable")]
    rows += [(part, *numbers.values()) for part, numbers in counts.items()]
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows)]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in rows)
