"""Findings of `check` about the lines of a list: problems, notes and shared content, and the files with them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from stnet.reader import lists
from stnet.reader.formats import FORMATS, Clip, split_label
from stnet.reader.spans import WHOLE, Span, named, split_span
from stnet.utils.atomic import write_atomically, write_json
from stnet.utils.errors import MAKE_LISTS, UserError
from stnet.utils.files import find_file, sha256_of, stem_of
from stnet.utils.schema import SCHEMA

PROBLEMS = {
    "missing": "no such file",
    "empty": "0 bytes",
    "no_video_stream": "a media file without video",
    "undecodable": "no frame, or not the frames the reader asks for, can be decoded",
    "short_of_header": "fewer frames than the file's header says",
    "duplicate": "the content of a clip further up",
    "label": "missing, not a number or out of range; or a span that is none",
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
FEATURE_NOTES = {  # of check --features
    "near_duplicate": "features nearly those of a clip further up: the same, encoded or cut anew",
    "near_leak": "features nearly those of a clip of --features_against",
    "suspect_label": "most of the nearest neighbours have one other label",
}
_EXAMPLES = 3  # clips of a kind that are shown; report.json has all
Record = dict[str, Any]  # result of check.examine for a file; plain data, kept as JSON
Content = dict[str, list[tuple[Span, str]]]  # SHA-256 -> span and "line N of LIST: NAME" of each line of that content


class ListLine(NamedTuple):
    """One line of a list."""

    number: int  # of the line
    line: str
    path: str  # as the list has it
    file: str  # where it was looked up
    label: int  # -1: none, or inside the file
    label_error: str
    span: Span | None = None  # the part of the file that it is

    @property
    def name(self) -> str:
        """Path and span, as the reader names the clip."""
        return named(self.path, self.span)

    @property
    def key(self) -> str:
        """File and span: two lines with the same one are read once."""
        return named(self.file, self.span)


class Finding(NamedTuple):
    """One problem or note of one entry."""

    entry: ListLine
    problem: str
    reason: str


def read_entries(filelist: str, format: str, labelled: bool, num_classes: int | None) -> list[ListLine]:
    """Entries of a list, wrong labels included. Raises UserError if it cannot be read or is empty."""
    folder, clip_format = lists.list_folder(filelist), FORMATS.get(format)()
    entries = []
    for number, line in lists.clip_lines(filelist):
        error = ""
        try:
            clip = clip_format.parse_line(line, folder, labelled, num_classes)
        except UserError as refusal:
            error = str(refusal)
            clip = _longest_there(line, folder) or clip_format.parse_line(line, folder, False, None)
        file = find_file(clip.path, folder)
        entries.append(ListLine(number, line, clip.path, file, clip.label, error, clip.span))
    return entries


def _longest_there(line: str, folder: str) -> Clip | None:
    """The longest part of a refused line, without its label, or its span, or both, that is a file."""
    path = split_label(line)[0]
    clips = [Clip(line, -1), Clip(path, -1)]
    for text in (line, path):
        if cut := split_span(text):
            clips.append(Clip(cut[0], -1, span=None if cut[1].problem else cut[1]))
    return next((clip for clip in clips if clip.path and os.path.exists(find_file(clip.path, folder))), None)


def judge(
    entries: Iterable[ListLine],
    records: Mapping[str, Record],
    needed: int,
    num_classes: int | None,
    elsewhere: Content = {},  # noqa: B006 (it is not changed)
) -> list[Finding]:
    """Findings of all entries, in the order of the list.

    Args:
        entries: of the list.
        records: by the entry's key.
        needed: seg_num x seglen.
        num_classes: labels inside pickles must be below it; None: not looked at.
        elsewhere: content that must not be in this list.
    """
    findings: list[Finding] = []
    first: dict[tuple[str, Span | None], ListLine] = {}
    for entry in entries:
        record = records[entry.key]
        of_entry = []
        if entry.label_error:
            of_entry.append(Finding(entry, "label", entry.label_error))
        if record["problem"]:
            of_entry.append(Finding(entry, record["problem"], record["reason"]))
        inside = record.get("label")
        if inside is not None and num_classes is not None and not 0 <= inside < num_classes:
            of_entry.append(Finding(entry, "label", f"label {inside} is outside 0..{num_classes - 1}"))
        if not of_entry:
            earlier = first.setdefault((record["sha256"], entry.span), entry)
            if earlier is not entry:
                of_entry.append(Finding(entry, "duplicate", f"same content as line {earlier.number}: {earlier.name}"))
        for span, where in elsewhere.get(record["sha256"], ()):
            if span.overlaps(entry.span or WHOLE):
                of_entry.append(Finding(entry, "leak", f"same content as {where}"))
                break
        if not record["problem"] and record["frames"] < needed:
            of_entry.append(Finding(entry, "short_clip", f"{record['frames']} frames, the reader wants {needed}"))
        of_entry += [Finding(entry, note, f"read by {record['decoder']}") for note in record["notes"]]
        findings += of_entry
    return findings


def lists_to_compare(checked: str, against: Sequence[str], training: str, mode: str) -> list[str]:
    """Lists whose content must not be in the one that is checked.

    Args:
        checked: the list.
        against: lists of --against.
        training: TRAIN.filelist, compared in modes valid and test without --against, if it exists.
        mode: of the check.

    Raises:
        UserError: a list of --against does not exist.
    """
    missing = [path for path in against if not os.path.isfile(path)]
    if missing:
        raise UserError(f"list file not found: {missing[0]}", MAKE_LISTS)
    paths = against or ([training] if mode in ("valid", "test") and os.path.isfile(training) else [])
    return [path for path in paths if not os.path.samefile(path, checked)]


def content_elsewhere(
    lists: Iterable[str], format: str, entries: Iterable[ListLine], records: Mapping[str, Record], workers: int
) -> Content:
    """Find files of other lists with the same content.

    Only files of the same size as one of the checked files are read.

    Args:
        lists: the other lists.
        format: of their clips.
        entries, records: of the list that is checked, as for `judge`.
        workers: threads that read.

    Raises:
        UserError: a list cannot be read, or is empty.
    """
    sizes = {_size(file) for file in {entry.file for entry in entries if records[entry.key]["sha256"]}}
    hashes = {record["sha256"] for record in records.values()}
    found: Content = {}
    for filelist in lists:
        others = read_entries(filelist, format, True, None)
        files = [file for file in dict.fromkeys(entry.file for entry in others) if _size(file) in sizes]
        with ThreadPoolExecutor(workers) as pool:
            digests = dict(zip(files, pool.map(_digest, files)))
        for entry in others:
            digest = digests.get(entry.file, "")
            if digest and digest in hashes:
                where = f"line {entry.number} of {filelist}: {entry.name}"
                found.setdefault(digest, []).append((entry.span or WHOLE, where))
    return found


def _size(file: str) -> int:
    """Bytes of a file; 0 where there is none."""
    return os.path.getsize(file) if os.path.isfile(file) else 0


def _digest(file: str) -> str:
    try:
        return sha256_of(file)
    except OSError:
        return "unreadable"


def write_results(
    out: str, filelist: str, entries: Sequence[ListLine], findings: Sequence[Finding], **facts: Any
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
    kept = {entry.name for entry in good}
    name = stem_of(filelist)
    write_lines(os.path.join(out, f"{name}.clean.list"), [_clean_line(entry, filelist, out) for entry in good])
    write_lines(os.path.join(out, f"{name}.quarantine.list"), _quarantine_lines(bad.values(), kept))
    counts = Counter(finding.problem for finding in findings)
    notes = [*NOTES, *(FEATURE_NOTES if "features" in facts else ())]
    report = {
        "schema": SCHEMA,
        "list": os.path.abspath(filelist),
        **facts,
        "clips": len(entries),
        "fine": len(good),
        "bad": len(bad),
        "problems": {name: counts[name] for name in PROBLEMS},
        "notes": {name: counts[name] for name in notes},
        "findings": [
            {"line": f.entry.number, "path": f.entry.name, "problem": f.problem, "reason": f.reason} for f in findings
        ],
    }
    write_json(os.path.join(out, "report.json"), report)
    return report


def table(report: Mapping[str, Any]) -> str:
    """Counts of the report as text, a problem or note a line, each with its first few clips."""
    lines = []
    meanings = {
        **PROBLEMS,
        **{name: f"{meaning} (only a note)" for name, meaning in {**NOTES, **FEATURE_NOTES}.items()},
    }
    for name, count in {**report["problems"], **report["notes"]}.items():
        if count:
            lines.append(f"{name:<16}{count:>8}  {meanings[name]}")
            found = [finding for finding in report["findings"] if finding["problem"] == name]
            lines += [f"    line {f['line']}: {f['path']}: {f['reason']}" for f in found[:_EXAMPLES]]
            if len(found) > _EXAMPLES:
                lines.append(f"    and {len(found) - _EXAMPLES} more")
    return "\n".join([*lines, f"{'fine':<16}{report['fine']:>8}  of {report['clips']} clips"])


def _clean_line(entry: ListLine, filelist: str, out: str) -> str:
    """The line as it is, unless its path is relative to the list's folder and the clean list goes elsewhere."""
    moved = os.path.abspath(out) != os.path.dirname(os.path.abspath(filelist))
    if not moved or os.path.isabs(entry.path) or entry.file == entry.path:
        return entry.line
    return os.path.abspath(entry.file) + entry.line[len(entry.path) :]


def _quarantine_lines(bad: Iterable[list[Finding]], kept: Collection[str]) -> list[str]:
    """`NAME<tab>REASON` of each clip that no fine line shares."""
    reasons: dict[str, str] = {}
    for findings in bad:
        name = findings[0].entry.name
        if name not in kept:
            reasons.setdefault(name, "; ".join(f"{f.problem}: {f.reason}" for f in findings))
    return [f"{name}\t{reason}" for name, reason in reasons.items()]


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Write lines atomically; names in them need not be UTF-8."""

    def write(temporary: str) -> None:
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines(f"{line}\n" for line in lines)

    write_atomically(path, write)
