"""Groups of clips from one recording, person or location, which training and validation must not share."""

from __future__ import annotations

import logging
import random
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from stnet.tools.dataset.videos import Entry, shown
from stnet.utils.errors import UserError

logger = logging.getLogger("stnet")

PARENT = "parent"
# Groups in names, the surest first: folders in the class's folder, UCF101's groups, Kinetics' ids, numbered names.
SUGGESTED = (PARENT, r"_(g\d+)_c\d+", r"([\w-]{11})_\d{6}_\d{6}", r"([^/]*[^/\d])\d+\.\w+$")
GroupOf = Callable[[str, str], str]  # a clip's name and class -> its group, "" for none


def group_function(group_by: str) -> GroupOf:
    """Build the function that gives a clip's group: its folder, or the match of a regular expression in its name.

    Groups are shared across classes, as persons and recordings often are.

    Args:
        group_by: "parent", the folders between the class's folder and the clip; or a regular expression, whose
            parentheses, or else the whole match, are the group.

    Raises:
        UserError: no regular expression.
    """
    if group_by == PARENT:
        return lambda name, label: "/".join(folder for folder in name.split("/")[:-1] if folder != label)
    try:
        pattern = re.compile(group_by)
    except re.error as error:
        raise UserError(f"--group_by {group_by!r}: expected {PARENT} or a regular expression: {error}") from None

    def found(name: str, label: str) -> str:
        match = pattern.search(name)
        return "/".join(filter(None, match.groups())) or match[0] if match else ""

    return found


def groups_of(entries: Sequence[Entry], labels: Sequence[str], group_by: str) -> dict[Entry, str]:
    """Group of each clip; a clip without one is a group of its own.

    Raises:
        UserError: no regular expression, or no clip has a group.
    """
    group_of = group_function(group_by)
    groups = {entry: group_of(shown(entry.name), labels[entry.label]) for entry in entries}
    alone = [entry for entry, group in groups.items() if not group]
    if len(alone) == len(entries):
        where = "in a folder within its class's folder" if group_by == PARENT else "whose name it matches"
        raise UserError(f"--group_by {group_by!r}: found no clip {where}; the first is {shown(entries[0].name)}")
    if alone:
        example = shown(alone[0].name)
        logger.warning("--group_by: %d clips have no group and count alone, for example %s", len(alone), example)
    return {entry: group or f"\0{entry.name}" for entry, group in groups.items()}


def divide_groups(
    entries: Sequence[Entry], groups: Mapping[Entry, str], ratio: float, seed: int
) -> tuple[list[Entry], list[Entry]]:
    """Divide clips into training and held-out ones, each group as a whole.

    Groups are visited at random, larger ones first. One is held out where that brings its classes closer to the share
    of held-out clips, and each of them keeps another group for training; then one more for each class that has none
    held out.

    Args:
        entries: the clips.
        groups: the group of each.
        ratio: share of training clips.
        seed: of the division.

    Returns:
        (train, held_out), in the order given.
    """
    counts: defaultdict[str, Counter[int]] = defaultdict(Counter)  # group -> class -> clips
    for entry in entries:
        counts[groups[entry]][entry.label] += 1
    clips = Counter(entry.label for entry in entries)
    in_training = Counter(label for classes in counts.values() for label in classes)  # class -> groups
    held: Counter[int] = Counter()  # class -> clips
    held_groups: set[str] = set()
    sizes = Counter(groups[entry] for entry in entries)

    def gain(group: str) -> float:
        missing = {label: (1 - ratio) * clips[label] - held[label] for label in counts[group]}
        return sum((missing[k] ** 2 - (missing[k] - n) ** 2) / clips[k] ** 2 for k, n in counts[group].items())

    def hold_out(group: str) -> None:
        held_groups.add(group)
        held.update(counts[group])
        in_training.subtract(counts[group].keys())

    def is_free(group: str) -> bool:
        return group not in held_groups and all(in_training[label] > 1 for label in counts[group])

    order = sorted(counts)
    random.Random(seed).shuffle(order)
    order.sort(key=lambda group: -sizes[group])
    for group in order:
        if is_free(group) and gain(group) > 0:
            hold_out(group)
    for label in sorted(clips):
        free = [group for group in order if label in counts[group] and is_free(group)]
        if not held[label] and free:
            hold_out(max(free, key=gain))
    train = [entry for entry in entries if groups[entry] not in held_groups]
    return train, [entry for entry in entries if groups[entry] in held_groups]


def check_classes(train: Sequence[Entry], held_out: Sequence[Entry]) -> None:
    """Warn of classes of several clips with none held out. Raises UserError if no clip is held out."""
    if not held_out:
        raise UserError("--group_by: no group can be held out: each is the only one of a class")
    clips, held = Counter(entry.label for entry in train), {entry.label for entry in held_out}
    lacking = [label for label, count in clips.items() if count > 1 and label not in held]
    if lacking:
        logger.warning(
            "--group_by: %d classes of several clips have none held out: few groups, or shared ones",
            len(lacking),
        )


def warn_of_shared_groups(train: Sequence[Entry], held_out: Sequence[Entry], labels: Sequence[str]) -> None:
    """Warn where names suggest that clips of one recording are on both sides, once for each way of naming."""
    reported: set[Entry] = set()
    for group_by in SUGGESTED:
        group_of = group_function(group_by)

        def key(entry: Entry, group_of: GroupOf = group_of) -> tuple[int, str]:
            return entry.label, group_of(shown(entry.name), labels[entry.label])

        sizes = Counter(key(entry) for entry in (*train, *held_out))
        several = {key: size for key, size in sizes.items() if key[1] and size > 1}
        if max(Counter(label for label, _ in several).values(), default=0) < 2:
            continue  # one group a class, or none of two clips: numbered clips
        trained = {key(entry): entry for entry in train}
        shared = [e for e in held_out if e not in reported and key(e) in trained and key(e) in several]
        if shared:
            logger.warning(
                "%d of the %d held-out clips seem to be cut from recordings that are trained on, too, for example %s "
                "and %s: scores would be too good; --group_by=%s keeps each recording on one side",
                len(shared),
                len(held_out),
                shown(shared[0].name),
                shown(trained[key(shared[0])].name),
                shlex.quote(group_by),
            )
            reported.update(entry for entry in held_out if key(entry) in several)
