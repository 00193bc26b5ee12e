"""Section of a page about the data, data.html: few-shot accuracy, copies across lists, doubtful labels, balance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stnet.metrics.fewshot import METHODS, Shots
from stnet.metrics.neighbors import FEW, Balance, Duplicate, Suspect
from stnet.report.charts import Chart, Series, line_chart
from stnet.report.page import Table, plain, shown


@dataclass
class DataSection:
    """Contents of data.html; a page passes it as `data`, and the names of the classes as `names`."""

    shots_chart: Chart | None  # None: nothing was measured
    shots: Table
    copies: Table
    suspects: Table
    balance: Table
    balance_note: str


def data_section(
    shots: Sequence[Shots],
    copies: Sequence[Duplicate],
    suspects: Sequence[Suspect],
    balance: Balance,
    train_paths: Sequence[str],
    valid_paths: Sequence[str],
) -> DataSection:
    """Make the section.

    Args:
        shots: of stnet.metrics.fewshot.learning_curve.
        copies: of near_duplicates(validation, training): clips of the validation list that are training clips, too.
        suspects: of suspicious_labels of the training clips.
        balance: of class_balance of the training clips.
        train_paths: of the training clips, in the order of their features.
        valid_paths: of the validation clips.
    """
    series = [
        Series(method, [(s.clips, s.mean) for s in shots if s.method == method], dots=True, second=number > 0)
        for number, method in enumerate(METHODS)
    ]
    names = [("Method", "text"), ("Clips of each class", "count"), ("Accuracy", "share"), ("Spread", "share")]
    pairs = [[shown(valid_paths[c.clip]), shown(train_paths[c.other]), plain(c.similarity)] for c in copies]
    doubts = [[shown(train_paths[s.clip]), s.label, s.suggested, plain(s.score)] for s in suspects]
    doubt_columns = [("Training clip", "text"), ("Label", "class"), ("Neighbours' label", "class")]
    return DataSection(
        shots_chart=line_chart("Accuracy by training clips", series, "clips of each class", is_share=True),
        shots=Table("shots", names, [[s.method, s.clips, plain(s.mean), plain(s.spread)] for s in shots]),
        copies=Table(
            "copies", [("Validation clip", "text"), ("Training clip", "text"), ("Similarity", "number")], pairs
        ),
        suspects=Table("suspects", [*doubt_columns, ("Of the neighbours", "share")], doubts),
        balance=Table(
            "balance", [("Class", "class"), ("Clips", "count")], [[*row] for row in enumerate(balance.counts)]
        ),
        balance_note=_balance_note(balance),
    )


def _balance_note(balance: Balance) -> str:
    some = [count for count in balance.counts if count]
    if not some:
        return "No clip has a label."
    note = f"{min(some):,} to {max(some):,} clips of a class, a ratio of {balance.ratio:.1f}."
    return f"{note} Classes of fewer than {FEW}: {len(balance.small):,}." if balance.small else note
