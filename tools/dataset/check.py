"""Decode every clip of a list as training or evaluation would, and report what is wrong.

python -m tools.dataset check --list train.list --config configs/stnet.yaml --mode train
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Optional

from stnet import cli
from stnet.config import MODES, Config, ReaderSection, load_config
from stnet.models import model_section
from stnet.reader.clip import clip_rng, read_clip
from stnet.reader.containers import seconds_of_all
from stnet.reader.decode import Video
from stnet.reader.errors import ClipError, NoVideo
from stnet.reader.formats import FORMATS
from stnet.reader.spans import Span
from stnet.tools.dataset import findings, resemblance
from stnet.tools.dataset.findings import Record, content_elsewhere, lists_to_compare
from stnet.tools.dataset.workers import Lost, work_with_progress
from stnet.utils.atomic import prepare_folder
from stnet.utils.errors import UserError
from stnet.utils.files import sha256_of, stem_of

Task = tuple[str, int, Optional[Span]]  # a file, its index in the list, which seeds the augmentation, and its span
Stamp = list[int]  # size in bytes, time of change in ns

TEXT: Any = {"encoding": "utf-8", "errors": "surrogateescape"}  # names need not be UTF-8
_VERSION = 3  # of the records; another one makes every clip be decoded again
_SLACK = 0.05  # share by which frames may end before the duration that a header without their number says


class Reading(NamedTuple):
    """Settings by which a list is read."""

    section: ReaderSection  # with seg_num and seglen set
    format: str
    augment: bool

    def settings(self) -> list:
        """Settings that the records depend on, as plain data."""
        want = self.section
        return [_VERSION, self.format, self.augment, want.seg_num, want.seglen, want.short_size, want.target_size]


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("check", help="decode every clip of a list and report what is wrong")
    parser.add_argument("--list", required=True, metavar="FILE", help="list to check")
    add_config_flags(parser, "train")
    parser.add_argument("--out", default="", metavar="DIR", help="where the results go (default: the list's folder)")
    add_worker_flags(parser)
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="FILE",
        help="list whose content must not be in this one; repeatable (default in valid and test: TRAIN.filelist)",
    )
    resemblance.add_flags(parser)
    parser.add_argument("--timeout", type=float, metavar="S", help="seconds a clip may take (default: decode_timeout)")
    parser.set_defaults(run=run)


def add_config_flags(parser: argparse.ArgumentParser, mode: str) -> None:
    """Add --config, --mode, -o and --plugin."""
    parser.add_argument(
        "--config", default="configs/stnet.yaml", metavar="FILE", help="YAML file (default: %(default)s)"
    )
    parser.add_argument("--mode", default=mode, choices=MODES, help="section that reads (default: %(default)s)")
    parser.add_argument(
        "-o", dest="override", action="append", default=[], metavar="SECTION.key=value", help="override one value"
    )
    parser.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="Python file that registers a clip format"
    )


def add_worker_flags(parser: argparse.ArgumentParser) -> None:
    """Add --workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--workers", type=cli.positive_int, default=cores, metavar="N", help="processes (%(default)s)")


def read_config(args: argparse.Namespace) -> Config:
    """Load plugins, then the configuration of --config and -o."""
    for path in args.plugin:
        cli.load_plugin(path)
    return load_config(args.config, model_section, args.override)


def run(args: argparse.Namespace) -> int:
    """Check a list. Returns the exit code: 1 when anything is wrong, else 0."""
    config = read_config(args)
    section, model = config.section(args.mode), config.MODEL
    assert section.seg_num  # Config.section has set it
    labelled = args.mode != "infer"
    num_classes = model.num_classes if labelled else None
    out = args.out or os.path.dirname(os.path.abspath(args.list))
    entries = findings.read_entries(args.list, model.format, labelled, num_classes)
    against = lists_to_compare(args.list, args.against, config.TRAIN.filelist, args.mode)
    known = resemblance.read_known(args)
    prepare_out(out)
    reading = Reading(section, model.format, args.mode == "train")
    timeout = args.timeout or section.decode_timeout
    cache = Cache(os.path.join(out, f"{stem_of(args.list)}.checked.jsonl"), reading, timeout)
    started = time.monotonic()
    records, looked_at = look_at(entries, reading, cache, args.workers, timeout)
    elsewhere = content_elsewhere(against, model.format, entries, records, args.workers)
    decoders = Counter(record["decoder"] for record in records.values() if record["decoder"])  # files read by each
    judged = findings.judge(entries, records, section.seg_num * section.seglen, num_classes, elsewhere)
    facts: dict[str, Any] = {
        "mode": args.mode,
        "against": [os.path.abspath(path) for path in against],
        "format": model.format,
        "seg_num": section.seg_num,
        "seglen": section.seglen,
        "augment": reading.augment,
        "looked_at": looked_at,
        "decoders": dict(sorted(decoders.items())),
    }
    if known:
        resembling, about = resemblance.resembling(entries, records, judged, known, args.similarity, num_classes)
        judged = sorted([*judged, *resembling], key=lambda finding: finding.entry.number)
        facts["features"] = about
    report = findings.write_results(out, args.list, entries, judged, **facts, seconds=time.monotonic() - started)
    print(findings.table(report))
    for line in resemblance.lines_about(report["features"]) if known else ():
        print(line)
    if against:
        leaks = report["notes"]["leak"]
        print(f"compared with {', '.join(against)}: {leaks} clips hold the same content")
        if leaks and args.mode in ("valid", "test"):
            print("scores of clips that are trained on are too good: take them out of one of the lists")
    print(f"decoded {looked_at} files in {report['seconds']:.1f} s; the results are in {out}")
    if report["bad"]:
        name = stem_of(args.list)
        print(f"{name}.quarantine.list names the bad clips and says why; {name}.clean.list holds the others")
    return 1 if report["bad"] else 0


def prepare_out(out: str) -> None:
    """Make the folder, and check that it can be written. Raises UserError."""
    try:
        prepare_folder(out)
    except UserError as error:
        raise UserError(str(error), "set --out") from None


def look_at(
    entries: Sequence[findings.ListLine], reading: Reading, cache: Cache, workers: int, timeout: float
) -> tuple[dict[str, Record], int]:
    """Records of all entries, by their keys, and the number of clips that had to be decoded."""
    records, tasks, stamps = {}, [], {}
    for index, entry in enumerate(entries):
        if entry.key in records or entry.key in stamps:
            continue
        record, stamp = _without_decoding(entry.file)
        record = record or cache.get(entry.key, stamp)
        if record:
            records[entry.key] = record
        else:
            stamps[entry.key] = stamp
            tasks.append((entry.file, index, entry.span))
    with cache:
        for (_, index, _), record in _examine_all(tasks, reading, workers, timeout):
            key = entries[index].key
            cache.add(key, stamps[key], record)
            records[key] = record
    return records, len(tasks)


def _examine_all(
    tasks: Sequence[Task], reading: Reading, workers: int, timeout: float
) -> Iterator[tuple[Task, Record]]:
    """Yield (task, record) of each; a file on which a decoder hangs or crashes is read again by another."""
    second = FORMATS.get(reading.format).second_decoder
    settings = {"workers": workers, "timeout": timeout}
    chunk = max(1, min(16, len(tasks) // (8 * workers)))
    lost = {}
    look = functools.partial(examine, reading=reading)
    for task, result in work_with_progress(look, tasks, "check", chunk=chunk, **settings):
        if not isinstance(result, Lost):
            yield task, result
        elif not second:
            yield task, _record(result.problem, result.reason)
        else:
            lost[task] = result
    if lost:
        look = functools.partial(examine, reading=reading, decoder=second)
        for task, result in work_with_progress(look, list(lost), f"check again, by {second}", **settings):
            first = lost[task]
            if isinstance(result, Lost) or result["problem"]:
                yield task, _record(first.problem, first.reason)
            else:
                yield task, {**result, "notes": [*result["notes"], "decoder_lost"]}


def _without_decoding(file: str) -> tuple[Record | None, Stamp | None]:
    """(record, None) of a file that cannot be opened, or (None, [size, mtime])."""
    try:
        status = os.stat(file)
    except OSError as error:
        return _record("missing", error.strerror or str(error)), None
    if not os.path.isfile(file):
        return _record("undecodable", "it is not a file"), None
    if status.st_size == 0:
        return _record("empty", "0 bytes"), None
    return None, [status.st_size, status.st_mtime_ns]


def _record(
    problem: str,
    reason: str,
    frames: int = 0,
    sha256: str = "",
    label: int | None = None,
    decoder: str = "",
    notes: Sequence[str] = (),
) -> Record:
    facts = {"frames": frames, "sha256": sha256, "label": label, "decoder": decoder, "notes": list(notes)}
    return {"problem": problem, "reason": reason, **facts}


def examine(task: Task, reading: Reading, decoder: str = "") -> Record:
    """Read one clip in a worker, as the reader does.

    Args:
        task: file, index and span.
        reading: settings.
        decoder: see stnet.reader.decode.read_frames.

    Returns:
        problem ("" if none), reason, frames (decodable), sha256, label (the one inside a pickle, or None),
        decoder (that reads it) and notes (names of findings.NOTES).
    """
    file, index, span = task
    rng = clip_rng(0, 0, index) if reading.augment else None
    try:
        sha256 = _sha256(file, os.stat(file).st_mtime_ns)
        clip = read_clip(file, reading.section, reading.format, rng, decoder, span)
    except NoVideo as error:
        return _record("no_video_stream", str(error))
    except (ClipError, OSError) as error:
        return _record("undecodable", str(error))
    video = clip.video
    if video is None:
        return _record("", "", clip.num_frames, sha256, clip.label)
    is_cut_off = span is not None and span.end < video.index.seconds  # what lies behind it may be missing
    short = "" if is_cut_off else _short_of_header(video, file)
    notes = [*video.index.notes, *(["damaged"] if video.damaged else [])]
    name = video.decoder + (" in order" if video.in_order else "")
    return _record("short_of_header" if short else "", short, clip.num_frames, sha256, clip.label, name, notes)


@functools.lru_cache(maxsize=1024)
def _sha256(file: str, _: int) -> str:
    """SHA-256 of a file, computed once for all of its spans while it was changed at the same time."""
    return sha256_of(file)


def _short_of_header(video: Video, file: str) -> str:
    """Describe the frames that a video lacks by its container's header; "" if it lacks none."""
    index = video.index
    declared = max(index.declared, len(index.timestamps))
    if video.damaged and video.frames < len(index.timestamps):
        return f"{video.frames} frames can be decoded, the header says {declared}"
    # A header can count wrongly, and a duration can be another stream's: frames are lost where both say so, or where
    # there is only a duration.
    missing, step = index.duration - index.seconds, index.seconds / max(1, len(index.timestamps))
    if index.declared > len(index.packets) and missing > step:
        return f"{video.frames} frames can be decoded, the header says {declared}"
    slack = max(_SLACK * index.duration, 2 * step)
    if not index.declared and index.timestamps and missing > slack and index.duration - seconds_of_all(file) > slack:
        return f"its frames end after {index.seconds:.1f} s, the header says {index.duration:.1f} s"
    return ""


def _is_record(record: Record, timeout: float) -> bool:
    """Check the form of a cached record."""
    example = _record("", "", label=0)
    kinds = {key: (int, type(None)) if key == "label" else type(value) for key, value in example.items()}
    same = record.keys() == kinds.keys() and all(isinstance(record[key], kind) for key, kind in kinds.items())
    return same and isinstance(timeout, (int, float))


class Cache:
    """Records of clips already decoded, a JSON line each, appended as they come.

    A record is valid while the file's size and time, and the settings, are the same; one of a hang only while the
    timeout is not longer.
    """

    def __init__(self, path: str, reading: Reading, timeout: float) -> None:
        self.path, self.timeout = path, timeout
        self.settings = reading.settings()
        self.known: dict[str, dict[str, Any]] = {}
        if not os.path.isfile(path):
            return
        with open(path, **TEXT) as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):  # half a line
                    entry = json.loads(line)
                    if entry["settings"] == self.settings and _is_record(entry["record"], entry["timeout"]):
                        self.known[entry["file"]] = entry

    def get(self, key: str, stamp: Stamp | None) -> Record | None:
        """The record of a file, or of a part of one, or None."""
        entry = self.known.get(os.path.abspath(key))
        if entry is None or entry.get("stamp") != stamp:
            return None
        hung = entry["record"]["problem"] == "hang"
        return None if hung and entry["timeout"] < self.timeout else entry["record"]

    def __enter__(self) -> Cache:
        """Open the file for more records."""
        try:
            self.lines = open(self.path, "a", buffering=1, **TEXT)  # noqa: SIM115 (closed in __exit__)
            if self.lines.tell():
                self.lines.write("\n")  # the last line may be half written
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.lines.close()

    def add(self, key: str, stamp: Stamp | None, record: Record) -> None:
        """Append a record."""
        entry = {"file": os.path.abspath(key), "stamp": stamp, "settings": self.settings, "timeout": self.timeout}
        self.lines.write(json.dumps({**entry, "record": record}, ensure_ascii=False) + "\n")
