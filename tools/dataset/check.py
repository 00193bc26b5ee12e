"""Decode every clip of a list as training or evaluation would, and say what is wrong.

python -m tools.dataset check --list train.list --config configs/stnet.yaml --mode train
"""

import functools
import hashlib
import json
import os
import random
import time
from typing import NamedTuple

from core.config import MODES, load_config
from core.errors import UserError
from engine import cli
from engine.files import prepare_folder
from reader import decode
from reader.sampling import sample_frames
from tools.dataset import findings
from tools.dataset.workers import Lost, cores, work_with_progress

_VERSION = 1  # of the records; another one makes every clip be looked at again
_HASH_BLOCK = 1 << 20
# These headers hold a duration, not a number of frames, which is an estimate then.
_ESTIMATING = (".mkv", ".webm", ".flv", ".wmv", ".ts", ".mpg", ".mpeg")


class Sampling(NamedTuple):
    """Which frames the reader takes."""

    format: str
    seg_num: int
    seglen: int
    augment: bool


def add_parser(commands):
    """Add the subcommand."""
    made = commands.add_parser("check", help="decode every clip of a list and report what is wrong")
    made.add_argument("--list", required=True, metavar="FILE", help="list to check")
    add_config_flags(made, "train")
    made.add_argument("--out", default="", metavar="DIR", help="where the results go (default: the list's folder)")
    add_worker_flags(made)
    made.add_argument("--timeout", type=float, metavar="S", help="seconds a clip may take (default: decode_timeout)")
    made.set_defaults(run=run)


def add_config_flags(made, mode):
    """--config, --mode and -o: how the reader is set."""
    made.add_argument("--config", default="configs/stnet.yaml", metavar="FILE", help="YAML file (default: %(default)s)")
    made.add_argument("--mode", default=mode, choices=MODES, help="section that reads (default: %(default)s)")
    made.add_argument(
        "-o", dest="override", action="append", default=[], metavar="SECTION.key=value", help="override one value"
    )


def add_worker_flags(made):
    """--workers."""
    made.add_argument("--workers", type=cli.positive_int, default=cores(), metavar="N", help="processes (%(default)s)")


def read_config(args):
    """The configuration that --config and -o ask for."""
    from models import model_section

    return load_config(args.config, model_section, args.override)


def run(args):
    """Check a list. Returns the exit code: 1 when anything is wrong, else 0."""
    config = read_config(args)
    section, model = config.section(args.mode), config.MODEL
    labelled = args.mode != "infer"
    num_classes = model.num_classes if labelled else None
    out = args.out or os.path.dirname(os.path.abspath(args.list))
    entries = findings.read_entries(args.list, model.format, labelled, num_classes)
    prepare_out(out)
    sampling = Sampling(model.format, section.seg_num, section.seglen, args.mode == "train")
    timeout = args.timeout or section.decode_timeout
    cache = Cache(os.path.join(out, f"{findings.list_name(args.list)}.checked.jsonl"), sampling, timeout)
    started = time.monotonic()
    records, looked_at = look_at(entries, sampling, cache, args.workers, timeout)
    found = findings.judge(entries, records, section.seg_num * section.seglen, num_classes)
    facts = {"mode": args.mode, **sampling._asdict(), "looked_at": looked_at}
    report = findings.write_results(out, args.list, entries, found, **facts, seconds=time.monotonic() - started)
    print(findings.table(report))
    print(f"decoded {looked_at} files in {report['seconds']:.1f} s; the results are in {out}")
    return 1 if report["bad"] else 0


def prepare_out(out):
    """Make the folder and see that it can be written. Raises UserError."""
    try:
        prepare_folder(out)
    except UserError as error:
        raise UserError(str(error).replace("--save_dir", "--out")) from None


def look_at(entries, sampling, cache, workers, timeout):
    """(entry's file -> record, number of files that had to be decoded)."""
    records, tasks, stamps = {}, [], {}
    for index, entry in enumerate(entries):
        if entry.file in records or entry.file in stamps:
            continue
        record, stamp = _without_decoding(entry.file)
        record = record or cache.get(entry.file, stamp)
        if record:
            records[entry.file] = record
        else:
            stamps[entry.file] = stamp
            tasks.append((entry.file, index))
    chunk = max(1, min(16, len(tasks) // (8 * workers)))
    done = work_with_progress(
        functools.partial(examine, sampling=sampling),
        tasks,
        "check",
        workers=workers,
        timeout=timeout,
        chunk=chunk,
    )
    with cache:
        for (file, _), result in done:
            record = _record(result.problem, result.reason) if isinstance(result, Lost) else result
            cache.add(file, stamps[file], record)
            records[file] = record
    return records, len(tasks)


def _without_decoding(file):
    """(record, None) of a file that is not worth opening, or (None, [size, mtime])."""
    try:
        status = os.stat(file)
    except OSError as error:
        return _record("missing", error.strerror or str(error)), None
    if not os.path.isfile(file):
        return _record("undecodable", "it is not a file"), None
    if status.st_size == 0:
        return _record("empty", "0 bytes"), None
    return None, [status.st_size, status.st_mtime_ns]


def _record(problem, reason, frames=0, sha256="", label=None):
    return {"problem": problem, "reason": reason, "frames": frames, "sha256": sha256, "label": label}


def examine(task, sampling):
    """Decode one clip in a worker, by the reader's code and indices.

    Args:
        task: (file, its index in the list, of which the draws of training depend).
        sampling: Sampling.

    Returns:
        dict: problem ("" if none), reason, frames (decodable), sha256, label (the one inside a pickle, or None).
    """
    file, index = task
    rng = random.Random(f"0/0/{index}") if sampling.augment else None
    count = 0

    def pick(num_frames):
        nonlocal count
        count = num_frames
        segments = sample_frames(num_frames, sampling.seg_num, sampling.seglen, sampling.format, rng)
        return [i for segment in segments for i in segment]

    try:
        sha256 = _sha256(file)
        if sampling.format == "pkl":
            label = decode.read_pickle(file, pick)[2]
            return _record("", "", count, sha256, label)
        promised = decode.promised_frames(file)
        decode.read_video(file, pick, promised)
    except (decode.ClipError, OSError) as error:
        silent = "cannot find video stream" in str(error)
        return _record("no_video_stream" if silent else "undecodable", str(error))
    if count < promised - _slack(file, promised):
        reason = f"{count} frames can be decoded, the header says {promised}"
        return _record("short_of_header", reason, count, sha256)
    return _record("", "", count, sha256)


def _slack(file, promised):
    return max(2, promised // 20) if file.lower().endswith(_ESTIMATING) else 0


def _sha256(file):
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class Cache:
    """Records of files already looked at, a JSON line each, appended as they come.

    A record holds for as long as the file's size and time, and the sampling, are the same; one of a hang also
    only while clips are not given more time.
    """

    def __init__(self, path, sampling, timeout):
        self.path, self.timeout = path, timeout
        self.settings = [_VERSION, *sampling]
        self.known = {}
        if os.path.exists(path):
            self._load()

    def _load(self):
        with open(self.path, encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    entry = json.loads(line)
                    if entry["settings"] == self.settings:
                        self.known[entry["file"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a run that was killed

    def get(self, file, stamp):
        """The record of a file, or None."""
        entry = self.known.get(os.path.abspath(file))
        if entry is None or entry["stamp"] != stamp:
            return None
        hung = entry["record"]["problem"] == "hang"
        return None if hung and entry["timeout"] < self.timeout else entry["record"]

    def __enter__(self):
        """Open the file for more records."""
        try:
            self.lines = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 (closed in __exit__)
            if self.lines.tell():
                self.lines.write("\n")  # the last line may be half written
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from None
        return self

    def __exit__(self, *_):
        """Close it."""
        self.lines.close()

    def add(self, file, stamp, record):
        """Append a record."""
        entry = {"file": os.path.abspath(file), "stamp": stamp, "settings": self.settings, "timeout": self.timeout}
        self.lines.write(json.dumps({**entry, "record": record}, ensure_ascii=False) + "\n")
