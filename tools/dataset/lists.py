"""What the list-making commands share: flags, official split files, and writing lists, labels and the report."""

import argparse
import glob
import json
import os
from collections import Counter

from core.atomic import write_atomically, write_json
from core.errors import UserError
from core.schema import SCHEMA
from engine.labels import load_labels
from tools.dataset.videos import VideoIndex, plain, shown, sort_out

LISTS = ("train.list", "val.list", "test.list", "infer.list")


def add_parser(commands, name, description, run):
    """A subparser with the flags that all list-making commands have; the first line of the description is its help."""
    summary = description.splitlines()[0]
    made = commands.add_parser(
        name,
        help=summary[0].lower() + summary[1:].rstrip("."),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--out", required=True, metavar="DIR", help="where lists, labels.json and lists_report.json go")
    made.add_argument("--relative", action="store_true", help="write paths relative to the lists, not absolute")
    made.add_argument("--probe", action="store_true", help="open every video with OpenCV and decode one frame")
    made.add_argument("--debug", action="store_true", help="show the traceback of a user error, too")
    made.set_defaults(run=run)
    return made


def add_split_flags(made):
    """--videos, --splits and --split, for data sets with official split files."""
    made.add_argument("--videos", required=True, metavar="DIR", help="class folders of videos, or one flat folder")
    made.add_argument("--splits", required=True, metavar="DIR", help="folder of the official split files")
    made.add_argument("--split", type=int, choices=(1, 2, 3), required=True, help="which of the official splits")


def split_file(folder, pattern):
    """Path of the first file of this name (or glob pattern) in a folder or one folder below it.

    Raises:
        UserError: there is none.
    """
    for below in ("", "*"):
        found = sorted(glob.glob(os.path.join(glob.escape(folder), below, pattern)))
        if found:
            return found[0]
    raise UserError(f"--splits {folder}: expected the official split files, found no {pattern}")


def text_lines(path):
    """Pairs ("FILE, line N", stripped line) of a text file's lines that are not blank. Raises UserError."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return [(f"{path}, line {number}", line) for number, line in enumerate(lines, start=1) if line]


def write_split(args, wanted, labels):
    """Find the clips of an official split and write all lists; the test split is the validation set, too.

    Args:
        args: the command's arguments: videos, probe, and those of write_data_set.
        wanted: list of Entry without paths, named by their files, of the parts train and test.
        labels: class names in the order of their numbers.

    Raises:
        UserError: as write_data_set and VideoIndex.
    """
    index = VideoIndex(args.videos)
    classes = set(map(plain, labels))
    entries = []
    for entry in dict.fromkeys(wanted):
        stem = os.path.splitext(os.path.basename(entry.name))[0]
        entries.append(entry._replace(path=index.find(stem, labels[entry.label], classes=classes)))
    findings = sort_out(entries, args.probe)
    train = [entry for entry in findings.present if entry.part == "train"]
    test = [entry for entry in findings.present if entry.part == "test"]
    lists = {"train.list": train, "val.list": test, "test.list": test, "infer.list": test}
    write_data_set(args, findings, labels, lists, found=os.path.relpath(index.paths[0], args.videos), split=args.split)


def write_data_set(args, findings, labels, lists, found="", **facts):
    """Write the lists, labels.json and lists_report.json, and print what was found.

    Args:
        args: the command's arguments: command, out, relative.
        findings: what sort_out returned.
        labels: class names in the order of their numbers; empty: unknown, no file is written.
        lists: dict from one of LISTS to its entries; infer.list is written without labels.
        found: a path to show as an example if no entry has a usable file.
        facts: more plain data for the report.

    Raises:
        UserError: no entry has a usable file, the folder cannot be written, or it holds another data set's lists.
    """
    if not findings.present:
        raise UserError(_nothing(findings, found))
    labels = [shown(label) for label in labels]
    _refuse_mixture(args.out, lists, labels)
    if labels:
        write_json(os.path.join(args.out, "labels.json"), labels)
    for name, entries in lists.items():
        _write_list(os.path.join(args.out, name), entries, name != "infer.list", args.relative)
    counts = _count(findings)
    report = {
        "schema": SCHEMA,
        "command": args.command,
        "classes": len(labels),
        "clips": counts,
        "lists": {name: len(entries) for name, entries in lists.items()},
        **facts,
        "missing": [{"part": entry.part, "name": shown(entry.name)} for entry in findings.missing],
        "unreadable": [
            {"part": entry.part, "path": shown(entry.path), "reason": reason} for entry, reason in findings.unreadable
        ],
    }
    write_json(os.path.join(args.out, "lists_report.json"), report)
    print(_table(counts))
    written = ", ".join(f"{name} ({len(entries)})" for name, entries in lists.items())
    print(
        f"wrote {written}, lists_report.json to {args.out}"
        + (f"; {len(labels)} classes in labels.json" if labels else "")
    )


def _nothing(findings, found):
    entry = (findings.missing or [findings.unreadable[0][0]])[0]
    text = f"no usable clip: {len(findings.missing)} missing, {len(findings.unreadable)} unreadable; expected for "
    text += f"example {shown(entry.name)}"
    if not findings.missing:
        return f"{text}, but {findings.unreadable[0][1]}"
    return f"{text}, found for example {shown(found)}" if found else text


def _refuse_mixture(out, lists, labels):
    """Lists that stay from an earlier run must have the same class numbers."""
    stale = [name for name in LISTS if name not in lists and os.path.exists(os.path.join(out, name))]
    path = os.path.join(out, "labels.json")
    if stale and labels and os.path.exists(path) and read_labels(path) != labels:
        raise UserError(
            f"{out} holds {', '.join(stale)} made with other class numbers than this run's; "
            "make all lists in one command, or set --out to another folder"
        )


def read_labels(path):
    """Class names of a labels JSON, however many.

    Raises:
        UserError: the file is missing or of another form.
    """
    try:
        with open(path, encoding="utf-8") as file:
            count = len(json.load(file))
    except (OSError, ValueError, TypeError):
        count = 0  # load_labels says what is wrong
    return load_labels(path, count)


def _write_list(path, entries, labelled, relative):
    folder = os.path.dirname(os.path.abspath(path))

    def line(entry):
        name = os.path.abspath(entry.path)
        if relative:
            name = os.path.relpath(name, folder)
            name = os.path.join(os.curdir, name) if name[0].isspace() or name[0] == "#" else name
        return f"{name} {entry.label}\n" if labelled else f"{name}\n"

    def write(temporary):
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(line(entry) for entry in entries)

    write_atomically(path, write)


def _count(findings):
    """Dict from a part to its numbers of clips, in the order train, val, test."""
    kinds = {
        "present": Counter(entry.part for entry in findings.present),
        "missing": Counter(entry.part for entry in findings.missing),
        "unreadable": Counter(entry.part for entry, _ in findings.unreadable),
    }
    parts = [part for part in ("train", "val", "test", "all") if any(counts[part] for counts in kinds.values())]
    return {
        part: {
            "clips": sum(counts[part] for counts in kinds.values()),
            **{kind: counts[part] for kind, counts in kinds.items()},
        }
        for part in parts
    }


def _table(counts):
    rows = [("", "clips", "present", "missing", "unreadable")]
    rows += [(part, *numbers.values()) for part, numbers in counts.items()]
    widths = [max(len(str(row[i])) for row in rows) for i in range(5)]
    return "\n".join("  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in rows)
