"""What `check` finds about the lines of a list, and the files that say so."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from stnet.reader import lists
from stnet.reader.formats import FORMATS, Clip, Format, split_label
from stnet.utils.atomic import write_atomically, write_json
from stnet.utils.errors import UserError
from stnet.utils.files import find_file, stem_of
from stnet.utils.schema import SCHEMA

PROBLEMS = {
    "missing": "no such file",
    "empty": "0 bytes",
    "no_video_stream": "a media file without video",
    "undecodable": "no frame, or not the frames the reader asks for, can be decoded",
    "short_of_header": "fewer frames than the file's header says",
    "duplicate": "the content of a clip further up",
    "label": "missing, not a number or out of range",
    "hang": "decoding took too long and was stopped",
    "crash": "decoding crashed",
}
NOTES = {
    "leak": "the content of a clip that is trained on, or of another list of --against",
    "short_clip": "fewer frames than seg_num x seglen: the reader repeats some",
    "edit_list": "parts of the file are not shown, as of a cut by copying",
    "open_gop": "frames before a key frame that need it",
    "variable_rate": "frames at uneven distances",
    "header_count": "other frames than the file's header says, and rightly",
    "lost_packets": "packets are missing, as of a recording over a network",
    "damaged": "data that is not whole; OpenCV decodes it in order, as the original",
    "decoder_lost": "another decoder hung or crashed; OpenCV reads it after that",
}


_EXAMPLES = 3  # clips of a kind that are shown; report.json has all
Record = dict[str, Any]  # what decoding a file showed, as check.examine says; plain data, kept as JSON


class Entry(NamedTuple):
    """One line of a list."""

    number: int  # of the line
    line: str
    path: str  # as the list has it
    file: str  # where it was looked up
    label: int  # -1: none, or inside the file
    label_error: str


class Finding(NamedTuple):
    """One thing wrong with, or to know about, one entry."""

    entry: Entry
    problem: str
    reason: str


def read_entries(filelist: str, format: str, labelled: bool, num_classes: int | None) -> list[Entry]:
    """Entries of a list, wrong labels included. Raises UserError if it cannot be read or is empty."""
    folder, clip_format = lists.list_folder(filelist), FORMATS.get(format)()
    entries = []
    for number, line in lists.clip_lines(filelist):
        error = ""
        try:
            clip = clip_format.parse_line(line, folder, labelled, num_classes)
        except UserError as refusal:
            error = str(refusal)
            clip = _without_label(line, folder, clip_format)
        entries.append(Entry(number, line, clip.path, find_file(clip.path, folder), clip.label, error))
    return entries


def _without_label(line: str, folder: str, clip_format: Format) -> Clip:
    """The clip of a line whose label is wrong: a last word is taken for the label where the rest is a file."""
    path = split_label(line)[0]
    if path and not os.path.exists(find_file(line, folder)) and os.path.exists(find_file(path, folder)):
        return Clip(path, -1)
    return clip_format.parse_line(line, folder, False, None)


def judge(
    entries: Iterable[Entry],
    records: Mapping[str, Record],
    needed: int,
    num_classes: int | None,
    elsewhere: Mapping[str, str] = {},  # noqa: B006 (it is not changed)
) -> list[Finding]:
    """What there is to say, in the order of the list.

    Args:
        entries: of the list.
        records: by the entry's file.
        needed: seg_num x seglen.
        num_classes: labels inside pickles must be below it; None: not looked at.
        elsewhere: SHA-256 of content that must not be in this list -> where it is.
    """
    findings: list[Finding] = []
    first: dict[str, Entry] = {}
    for entry in entries:
        record = records[entry.file]
        of_entry = []
        if entry.label_error:
            of_entry.append(Finding(entry, "label", entry.label_error))
        if record["problem"]:
            of_entry.append(Finding(entry, record["problem"], record["reason"]))
        inside = record.get("label")
        if inside is not None and num_classes is not None and not 0 <= inside < num_classes:
            of_entry.append(Finding(entry, "label", f"label {inside} is outside 0..{num_classes - 1}"))
        if not of_entry:
            earlier = first.setdefault(record["sha256"], entry)
            if earlier is not entry:
                of_entry.append(Finding(entry, "duplicate", f"same content as line {earlier.number}: {earlier.path}"))
        if record["sha256"] in elsewhere:
            of_entry.append(Finding(entry, "leak", f"same content as {elsewhere[record['sha256']]}"))
        if not record["problem"] and record["frames"] < needed:
            of_entry.append(Finding(entry, "short_clip", f"{record['frames']} frames, the reader wants {needed}"))
        of_entry += [Finding(entry, note, f"read by {record['decoder']}") for note in record["notes"]]
        findings += of_entry
    return findings


def write_results(
    out: str, filelist: str, entries: Sequence[Entry], findings: Sequence[Finding], **facts: Any
) -> dict[str, Any]:
    """Write the clean list, the quarantine list and report.json into a folder.

    Returns:
        the report: facts, counts by problem and by note, and every finding.
    """
    bad: dict[int, list[Finding]] = {}
    for finding in findings:
        if finding.problem in PROBLEMS:
            bad.setdefault(finding.entry.number, []).append(finding)
    good = [entry for entry in entries if entry.number not in bad]
    kept = {entry.path for entry in good}
    name = list_name(filelist)
    _write_lines(os.path.join(out, f"{name}.clean.list"), [_clean_line(entry, filelist, out) for entry in good])
    _write_lines(os.path.join(out, f"{name}.quarantine.list"), _quarantine_lines(bad.values(), kept))
    report = {
        "schema": SCHEMA,
        "list": os.path.abspath(filelist),
        **facts,
        "clips": len(entries),
        "fine": len(good),
        "bad": len(bad),
        "problems": _count(findings, PROBLEMS),
        "notes": _count(findings, NOTES),
        "findings": [
            {"line": f.entry.number, "path": f.entry.path, "problem": f.problem, "reason": f.reason} for f in findings
        ],
    }
    write_json(os.path.join(out, "report.json"), report)
    return report


def list_name(filelist: str) -> str:
    """train for lists/train.list."""
    return stem_of(filelist)


def table(report: Mapping[str, Any]) -> str:
    """The report's counts as text, a problem or note a line, each with its first few clips."""
    lines = []
    meanings = {**PROBLEMS, **{name: f"{meaning} (only a note)" for name, meaning in NOTES.items()}}
    for name, count in {**report["problems"], **report["notes"]}.items():
        if count:
            lines.append(f"{name:<16}{count:>8}  {meanings[name]}")
            lines += _examples([finding for finding in report["findings"] if finding["problem"] == name])
    return "\n".join([*lines, f"{'fine':<16}{report['fine']:>8}  of {report['clips']} clips"])


def _examples(findings: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [f"    line {f['line']}: {f['path']}: {f['reason']}" for f in findings[:_EXAMPLES]]
    more = len(findings) - _EXAMPLES
    return [*lines, f"    and {more} more"] if more > 0 else lines


def count_decoders(records: Mapping[str, Record]) -> dict[str, int]:
    """Decoder -> number of files that it reads."""
    return dict(sorted(Counter(record["decoder"] for record in records.values() if record["decoder"]).items()))


def _count(findings: Sequence[Finding], names: Iterable[str]) -> dict[str, int]:
    return {name: sum(finding.problem == name for finding in findings) for name in names}


def _clean_line(entry: Entry, filelist: str, out: str) -> str:
    """The line as it is, unless its path is relative to the list's folder and the clean list goes elsewhere."""
    moved = os.path.abspath(out) != os.path.dirname(os.path.abspath(filelist))
    if not moved or os.path.isabs(entry.path) or entry.file == entry.path:
        return entry.line
    return os.path.abspath(entry.file) + entry.line[len(entry.path) :]


def _quarantine_lines(bad: Iterable[list[Finding]], kept: Collection[str]) -> list[str]:
    """`PATH<tab>REASON` of each path that no fine line shares."""
    reasons: dict[str, str] = {}
    for findings in bad:
        path = findings[0].entry.path
        if path not in kept:
            reasons.setdefault(path, "; ".join(f"{f.problem}: {f.reason}" for f in findings))
    return [f"{path}\t{reason}" for path, reason in reasons.items()]


def _write_lines(path: str, lines: Iterable[str]) -> None:
    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{line}\n" for line in lines)

    write_atomically(path, write)
