"""Make lists and labels of HMDB51 from its official split files and a folder of videos.

python -m tools.dataset hmdb51 --videos hmdb51/ --splits testTrainMulti_7030_splits/ --split 1 --out data/dataset/hmdb51

Reads CLASS_test_splitN.txt of every class. The test split is written as val.list and test.list, and without labels
as infer.list.
"""

from __future__ import annotations

import argparse
import glob
import os

from stnet.tools.dataset import lists
from stnet.tools.dataset.videos import Entry
from stnet.utils.errors import UserError

PARTS = {"0": None, "1": "train", "2": "test"}


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command's flags."""
    lists.add_split_flags(lists.add_parser(commands, "hmdb51", __doc__, run))


def run(args: argparse.Namespace) -> int:
    """Make the lists. Returns the exit code; raises UserError, also when none of the clips is found."""
    ending = f"_test_split{args.split}.txt"
    folder = os.path.dirname(lists.split_file(args.splits, f"*{ending}"))
    files = glob.glob(os.path.join(glob.escape(folder), f"*{ending}"))
    labels = sorted(os.path.basename(path)[: -len(ending)] for path in files)
    entries: list[Entry] = []
    for number, label in enumerate(labels):
        entries += read_split(os.path.join(folder, label + ending), label, number)
    lists.write_split(args, entries, labels)
    return 0


def read_split(path: str, label: str, number: int) -> list[Entry]:
    """Clips of one class's split file: "NAME.avi FLAG", flag 0 for unused, 1 for train, 2 for test.

    Returns:
        entries without paths, named CLASS/NAME.avi.

    Raises:
        UserError: the file cannot be read, or a line is not of this form.
    """
    entries = []
    for where, line in lists.text_lines(path):
        name, _, flag = line.rpartition(" ")
        if flag not in PARTS or not name.strip():
            raise UserError(f"{where}: expected 'VIDEO FLAG' with flag 0, 1 or 2, found {line!r}")
        part = PARTS[flag]
        if part:
            entries.append(Entry(part, f"{label}/{name.strip()}", "", number))
    return entries
