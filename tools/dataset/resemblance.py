"""Findings of `check` by features: near-duplicates, labels that do not fit, and the balance of classes."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stnet.metrics.neighbors import (
    FEW,
    NEIGHBORS,
    class_balance,
    duplicate_threshold,
    groups_of,
    near_duplicates,
    suspicious_labels,
)
from stnet.reader.feature_file import FeatureFile, read_features
from stnet.reader.lists import list_folder
from stnet.reader.spans import named
from stnet.tools.dataset.findings import PROBLEMS, Finding, ListLine, Record
from stnet.utils.errors import UserError
from stnet.utils.files import find_file


class Known(NamedTuple):
    """Features of clips by the place of their files."""

    path: str  # of the features file
    file: FeatureFile
    rows: dict[str, int]  # real path of a clip -> its row


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add --features, --features_against and --similarity."""
    parser.add_argument(
        "--features",
        default="",
        metavar="FILE",
        help="features of the list's clips, by predict --features: note near-duplicates and labels that do not fit",
    )
    parser.add_argument(
        "--features_against",
        default="",
        metavar="FILE",
        help="features of clips that must not be in this list, such as those of the validation list",
    )
    parser.add_argument(
        "--similarity",
        type=float,
        metavar="S",
        help="cosine similarity from which clips count as the same (default: by the distances of all clips)",
    )


def read_known(args: argparse.Namespace) -> list[Known]:
    """Read the files of --features and --features_against; none without --features.

    Raises:
        UserError: a file cannot be read, they are of different weights, or a flag is without effect.
    """
    if not args.features:
        for name in ("features_against", "similarity"):
            if getattr(args, name):
                raise UserError(f"--{name} is without effect unless --features is given")
        return []
    if args.similarity is not None and not 0 < args.similarity <= 1:
        raise UserError(f"--similarity: expected a number above 0, at most 1, found {args.similarity:g}")
    known = []
    for path in filter(None, (args.features, args.features_against)):
        file, folder = read_features(path, segments=False), list_folder(args.list)
        known.append(Known(path, file, {_place(clip, folder): row for row, clip in enumerate(file.paths)}))
    if len({each.file.digest for each in known}) > 1 or len({each.file.clips.shape[1] for each in known}) > 1:
        raise UserError(
            f"{args.features} and {args.features_against} are of different weights", "make one of them again"
        )
    return known


def _place(path: str, folder: str) -> str:
    return os.path.realpath(find_file(path, folder))


def resembling(
    entries: Sequence[ListLine],
    records: Mapping[str, Record],
    judged: Sequence[Finding],
    known: Sequence[Known],
    similarity: float | None,
    num_classes: int | None,
) -> tuple[list[Finding], dict[str, Any]]:
    """Find, among the clips without a problem, those that resemble another or have the label of no neighbour.

    Args:
        entries: of the list.
        records: by the entry's file.
        judged: findings so far: clips with a problem are left out, leaks are not named again.
        known: features of the list, and perhaps those of another.
        similarity: from which clips count as the same; None: by the features.
        num_classes: None: as the labels say.

    Returns:
        further findings, and facts of the report.

    Raises:
        UserError: the features hold none of the list's clips.
    """
    bad = {finding.entry.number for finding in judged if finding.problem in PROBLEMS}
    fine = [entry for entry in entries if entry.number not in bad]
    places = {entry.number: os.path.realpath(named(entry.file, entry.span)) for entry in fine}
    ours, *others = known
    there = [entry for entry in fine if places[entry.number] in ours.rows]
    if fine and not there:
        raise UserError(f"{ours.path} holds none of the list's clips; its first is {ours.file.paths[0]}")
    rows = [ours.rows[places[entry.number]] for entry in there]
    labels = np.array([_label(entry, records) for entry in there], np.int64)
    features = ours.file.clips[rows]
    threshold = similarity or duplicate_threshold(features)
    found, groups = _copies(there, features, labels, threshold)
    found += _unfitting(there, features, labels, groups)
    leaks = {finding.entry.number for finding in judged if finding.problem == "leak"}
    for other in others:
        found += [leak for leak in _leaks(there, features, other, threshold) if leak.entry.number not in leaks]
    all_labels = np.array([_label(entry, records) for entry in fine], np.int64)
    lacking = [entry.path for entry in fine if places[entry.number] not in ours.rows]
    everywhere = {os.path.realpath(named(entry.file, entry.span)) for entry in entries}
    facts = {
        "file": os.path.abspath(ours.path),
        "against": [os.path.abspath(other.path) for other in others],
        "weights_sha256": ours.file.digest,
        "similarity": threshold,
        "lacking": lacking,
        "not_in_list": sum(place not in everywhere for place in ours.rows),
        "balance": class_balance(all_labels, num_classes or 0)._asdict(),
    }
    return found, facts


def _label(entry: ListLine, records: Mapping[str, Record]) -> int:
    """The label of the list, or else the one inside the file; -1: none."""
    inside = records[entry.key].get("label")
    return inside if entry.label < 0 and inside is not None else entry.label


def _copies(
    there: Sequence[ListLine], features: np.ndarray, labels: np.ndarray, threshold: float
) -> tuple[list[Finding], np.ndarray]:
    """Near-duplicates within the list, and the group of each clip."""
    duplicates = near_duplicates(features, threshold=threshold)
    found = []
    for clip, other, similarity in duplicates:
        differs = labels[clip] != labels[other]
        reason = f"similarity {similarity:.4f} to line {there[other].number}: {there[other].path}"
        reason += f", which has label {labels[other]}, not {labels[clip]}" if differs else ""
        found.append(Finding(there[clip], "near_duplicate", reason))
    return found, groups_of(len(there), duplicates)


def _unfitting(
    there: Sequence[ListLine], features: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> list[Finding]:
    """Clips whose neighbours have another label."""
    found = []
    for clip, label, suggested, score in suspicious_labels(features, labels, NEIGHBORS, groups):
        reason = f"label {label}, but {100 * score:.0f}% of its nearest neighbours have label {suggested}"
        found.append(Finding(there[clip], "suspect_label", reason))
    return found


def _leaks(there: Sequence[ListLine], features: np.ndarray, other: Known, threshold: float) -> list[Finding]:
    """Clips that are nearly the same as one of other features."""
    found = []
    for clip, row, similarity in near_duplicates(features, other.file.clips, threshold):
        reason = f"similarity {similarity:.4f} to {other.file.paths[row]} of {other.path}"
        found.append(Finding(there[clip], "near_leak", reason))
    return found


def lines_about(facts: Mapping[str, Any]) -> list[str]:
    """The facts of `resembling` as lines to print."""
    lacking, balance = facts["lacking"], facts["balance"]
    lines = [f"features: clips count as the same from similarity {facts['similarity']:.4f}"]
    if lacking or facts["not_in_list"]:
        first = f", the first: {lacking[0]}" if lacking else ""
        gap = f"{len(lacking)} clips of the list are not in it{first}"
        lines.append(f"{facts['file']}: {gap}; {facts['not_in_list']} of its clips are not in the list")
    some = [count for count in balance["counts"] if count]
    if some:
        lines.append(f"clips of a class: {min(some)} to {max(some)}, a ratio of {balance['ratio']:.1f}")
    if some and balance["small"]:
        shown = ", ".join(map(str, balance["small"][:10])) + (", ..." if len(balance["small"]) > 10 else "")
        lines.append(f"classes of fewer than {FEW} clips: {len(balance['small'])}: {shown}")
    return lines
