"""Make lists and labels of UCF101 from its official split files and a folder of videos.

python -m tools.dataset ucf101 --videos UCF-101/ --splits ucfTrainTestlist/ --split 1 --out data/dataset/ucf101

Reads classInd.txt, trainlist0N.txt and testlist0N.txt. The test split is written as val.list and test.list, and
without labels as infer.list.
"""

from __future__ import annotations

import argparse
import os

from stnet.tools.dataset import lists
from stnet.tools.dataset.videos import Entry, plain
from stnet.utils.errors import UserError


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's flags."""
    lists.add_split_flags(lists.add_parser(commands, "ucf101", __doc__, run))


def run(args: argparse.Namespace) -> int:
    """Make the lists. Returns the exit code; raises UserError, also when none of the clips is found."""
    labels = read_classes(lists.split_file(args.splits, "classInd.txt"))
    entries = read_split(lists.split_file(args.splits, f"trainlist0{args.split}.txt"), "train", labels)
    entries += read_split(lists.split_file(args.splits, f"testlist0{args.split}.txt"), "test", labels)
    lists.write_split(args, entries, labels)
    return 0


def read_classes(path: str) -> list[str]:
    """Class names of classInd.txt ("1 ApplyEyeMakeup"), in the order of their numbers.

    Raises:
        UserError: the file cannot be read, or the numbers are not 1, 2, 3, ...
    """
    labels: list[str] = []
    for where, line in lists.text_lines(path):
        number, _, name = line.partition(" ")
        if number != str(len(labels) + 1) or not name.strip():
            raise UserError(f"{where}: expected '{len(labels) + 1} CLASS', found {line!r}")
        labels.append(name.strip())
    return labels


def read_split(path: str, part: str, labels: list[str]) -> list[Entry]:
    """Clips of a split file: "CLASS/NAME.avi", in training lists with the class's number from 1 behind it.

    Returns:
        entries without paths.

    Raises:
        UserError: the file cannot be read, or a class or number is not that of classInd.txt.
    """
    numbers = {plain(label): number for number, label in enumerate(labels)}
    entries = []
    for where, line in lists.text_lines(path):
        name, _, number = line.rpartition(" ") if line.rpartition(" ")[2].isdigit() else (line, "", "")
        name = name.strip()
        label = numbers.get(plain(os.path.dirname(name)))
        if label is None:
            raise UserError(f"{where}: expected 'CLASS/VIDEO' with a class of classInd.txt, found {line!r}")
        if number and int(number) != label + 1:
            raise UserError(f"{where}: expected {label + 1}, the class's number in classInd.txt, found {number}")
        entries.append(Entry(part, name, "", label))
    return entries
