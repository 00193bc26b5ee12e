"""Pack videos into pickles of JPEG frames, and unpack those into images.

python -m tools.dataset pack --list train.list --out packed --short_side 256
python -m tools.dataset unpack --list packed/train.pkl.list --out images

A packed clip is the original's `(video id, label, [JPEG bytes, ...])`, in protocol 2 as Python 2 writes it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from stnet import cli
from stnet.reader.decode import read_frames
from stnet.reader.errors import ClipError
from stnet.reader.formats import PICKLE, Clip
from stnet.reader.lists import read_list
from stnet.reader.pickles import load_clip_pickle, read_clip_file
from stnet.reader.transforms import resize
from stnet.tools.dataset.check import TEXT, add_worker_flags, prepare_out
from stnet.tools.dataset.findings import write_lines
from stnet.tools.dataset.workers import Lost, work_with_progress
from stnet.utils.atomic import exclusive_lock, write_atomically
from stnet.utils.errors import UserError
from stnet.utils.files import find_file, stem_of
from stnet.utils.parsing import parse_json

Task = TypeVar("Task")


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the subcommands pack and unpack."""
    pack = commands.add_parser("pack", help="videos to pickles of JPEG frames")
    pack.add_argument(
        "--list", required=True, metavar="FILE", help="list of videos, PATH LABEL or PATH START END LABEL a line"
    )
    pack.add_argument("--short_side", type=cli.positive_int, metavar="N", help="scale the short side to N pixels")
    pack.add_argument("--quality", type=_quality, default=95, metavar="Q", help="of the JPEGs, 1-100 (%(default)s)")
    pack.set_defaults(run=run)
    unpack = commands.add_parser("unpack", help="pickles of JPEG frames to folders of images")
    unpack.add_argument("--list", required=True, metavar="FILE", help="list of pickles, a path a line")
    unpack.set_defaults(run=run_unpack)
    for command in (pack, unpack):
        command.add_argument("--out", required=True, metavar="DIR", help="where the files go")
        add_worker_flags(command)
        command.add_argument("--timeout", type=float, default=600.0, metavar="S", help="seconds a clip may take")


def _quality(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100:
        raise ValueError
    return value


def run(args: argparse.Namespace) -> int:
    """Pack the videos of a list. Returns the exit code: 1 when one could not be packed, else 0."""
    clips = read_list(args.list, labelled=False)
    folder = os.path.dirname(os.path.abspath(args.list))
    with _only_writer(args.out):
        packed = Packed(args.out, [args.short_side, args.quality])
        clips = [clip._replace(path=os.path.abspath(find_file(clip.path, folder))) for clip in clips]
        sources = {clip.name: clip for clip in reversed(clips)}  # the first, if listed twice
        names = choose_names([clip.name for clip in clips], packed.owners(), ".pkl")
        tasks = [(sources[source], name) for source, name in names.items()]
        tasks = [task for task in tasks if not packed.holds(*task)]
        pack = functools.partial(pack_clip, out=args.out, short_side=args.short_side, quality=args.quality)
        bad = {}
        with packed:
            for task, result in _work(pack, tasks, "pack", args):
                if isinstance(result, int):
                    packed.add(*task, result)
                else:
                    bad[task[0].name] = result
        lines = dict.fromkeys(names[clip.name] for clip in clips if clip.name not in bad)
        target = os.path.join(args.out, f"{stem_of(args.list)}.pkl.list")
        write_lines(target, lines)
    _print_bad(bad)
    unlabelled = sum(clip.label < 0 for clip in clips)
    if unlabelled:
        print(f"{unlabelled} clips have no label in the list; -1 stands in their pickles")
    print(f"packed {len(tasks) - len(bad)}, kept {len(names) - len(tasks)}, bad {len(bad)}; list: {target}")
    return 1 if bad else 0


def run_unpack(args: argparse.Namespace) -> int:
    """Unpack the pickles of a list. Returns the exit code: 1 when one could not be unpacked, else 0."""
    clips = read_list(args.list, PICKLE)
    folder = os.path.dirname(os.path.abspath(args.list))
    with _only_writer(args.out):
        sources = list(dict.fromkeys(os.path.abspath(find_file(clip.path, folder)) for clip in clips))
        names = choose_names(sources, {}, "")
        tasks = [
            (source, names[source]) for source in sources if not os.path.isdir(os.path.join(args.out, names[source]))
        ]
        unpack = functools.partial(unpack_clip, out=args.out)
        bad = {task[0]: result for task, result in _work(unpack, tasks, "unpack", args) if not isinstance(result, int)}
    _print_bad(bad)
    print(f"unpacked {len(tasks) - len(bad)}, kept {len(sources) - len(tasks)}, bad {len(bad)}; images in {args.out}")
    return 1 if bad else 0


def _work(
    function: Callable[[Task], int | str], tasks: Sequence[Task], what: str, args: argparse.Namespace
) -> Iterator[tuple[Task, int | str]]:
    """Yield (task, bytes or images written, or the reason of the failure), as they come."""
    for task, result in work_with_progress(function, tasks, what, workers=args.workers, timeout=args.timeout):
        yield task, result.reason if isinstance(result, Lost) else result


def _print_bad(bad: Mapping[str, str]) -> None:
    for source, reason in bad.items():
        print(f"bad: {source}: {reason}")


@contextlib.contextmanager
def _only_writer(out: str) -> Iterator[None]:
    prepare_out(out)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(out))
        except UserError:
            raise UserError(
                f"another run is writing into {out}", "wait for it, or set --out to another folder"
            ) from None
        yield


def choose_names(sources: Iterable[str], owners: Mapping[str, str], suffix: str) -> dict[str, str]:
    """Choose the file name of each source: its own, with a hash of its path where several sources have the same.

    Args:
        sources: absolute paths, with spans.
        owners: name -> source that already has it, from earlier runs.
        suffix: of the names.
    """
    sources = list(dict.fromkeys(sources))
    stems = {source: stem_of(source) for source in sources}
    seen = Counter(stem.lower() for stem in stems.values())
    names = {}
    for source, stem in stems.items():
        mark = f"-{hashlib.sha256(source.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"
        plain = stem + suffix
        taken = owners[plain] != source if plain in owners else seen[stem.lower()] > 1
        names[source] = f"{stem}{mark}{suffix}" if taken else plain
    return names


def pack_clip(task: tuple[Clip, str], out: str, short_side: int | None, quality: int) -> int | str:
    """Pack one clip, in a worker.

    Args:
        task: (clip, name of the pickle).
        out: folder.
        short_side: pixels to scale the short side to, the aspect ratio kept; None: as it is.
        quality: of the JPEGs.

    Returns:
        size of the pickle in bytes, or the reason why the clip cannot be packed.
    """
    clip, name = task
    sink = Jpegs(short_side, quality)
    try:
        read_frames(clip.path, sink, span=clip.span)
    except ClipError as error:
        return str(error)
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump((os.path.splitext(name)[0], clip.label, sink.jpegs))
    write_atomically(os.path.join(out, name), lambda temporary: Path(temporary).write_bytes(buffer.getbuffer()))
    return buffer.tell()


class Jpegs:
    """Sink (see stnet.reader.decode) that keeps every frame that comes as a JPEG.

    Args:
        short_side, quality: see pack_clip.
    """

    def __init__(self, short_side: int | None, quality: int) -> None:
        self.short_side, self.quality = short_side, quality

    def begin(self, count: int) -> Sequence[int]:
        """Ask for all frames."""
        self.jpegs = [b""] * count
        return range(count)

    def put(self, row: int, frame: np.ndarray) -> None:
        """Scale and compress a frame."""
        height, width = frame.shape[:2]
        if self.short_side and min(width, height) != self.short_side:
            scale = self.short_side / min(width, height)
            frame = resize(frame, (max(1, round(width * scale)), max(1, round(height * scale))))
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=self.quality)
        self.jpegs[row] = buffer.getvalue()


_Pickler: Any = pickle._Pickler  # typeshed leaves out its write and memoize


class _Python2Pickler(_Pickler):
    """Writes bytes as Python 2 writes its str. Python 3 would write them as text, 1.5 times as long.

    In Python 3, `pickle.load(file, encoding="bytes")` reads them.
    """

    def save_bytes(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch = {**_Pickler.dispatch, bytes: save_bytes}


def unpack_clip(task: tuple[str, str], out: str) -> int | str:
    """Write a pickle's frames as 00000.jpg, 00001.jpg, ... into a folder that is renamed once complete, in a worker.

    Args:
        task: (pickle, name of the folder).
        out: its parent folder.

    Returns:
        number of images, or the reason why there are none.
    """
    source, name = task
    try:
        jpegs = load_clip_pickle(read_clip_file(source))[2]
    except ValueError as error:
        return str(error)
    unfinished = os.path.join(out, f".{name}.unpacking")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        os.makedirs(unfinished)
        for number, jpeg in enumerate(jpegs):
            Path(unfinished, f"{number:05d}.jpg").write_bytes(jpeg)
        os.rename(unfinished, os.path.join(out, name))
    except OSError as error:
        raise UserError(f"cannot write {unfinished}: {error.strerror or error}") from None
    return len(jpegs)


class Packed:
    """Index of a folder of pickles: packed.jsonl, a line for each, appended as they come.

    Args:
        out: the folder.
        settings: short side and quality; pickles made with others are made again.
    """

    def __init__(self, out: str, settings: list) -> None:
        self.out, self.settings = out, settings
        self.path = os.path.join(out, "packed.jsonl")
        self.known: dict[str, dict[str, Any]] = {}
        if os.path.exists(self.path):
            with open(self.path, **TEXT) as file:
                for line in file:
                    with contextlib.suppress(ValueError, KeyError, TypeError):  # half a line of a run that was killed
                        entry = parse_json(line)
                        self.known[entry["name"]] = entry

    def owners(self) -> dict[str, str]:
        """Source video of each pickle, by name."""
        return {name: entry["source"] for name, entry in self.known.items()}

    def holds(self, clip: Clip, name: str) -> bool:
        """True where the pickle `name` exists, complete, and packing the video would give the same."""
        entry = self.known.get(name)
        try:
            size = os.path.getsize(os.path.join(self.out, name))
            return entry is not None and entry == self._entry(clip, name, size)
        except OSError:
            return False

    def _entry(self, clip: Clip, name: str, size: int) -> dict[str, Any]:
        status = os.stat(clip.path)
        return {
            "name": name,
            "source": clip.name,
            "stamp": [status.st_size, status.st_mtime_ns],
            "label": clip.label,
            "settings": self.settings,
            "bytes": size,
        }

    def __enter__(self) -> Packed:
        """Open the file for more entries."""
        self.lines = open(self.path, "a", buffering=1, **TEXT)  # noqa: SIM115 (closed in __exit__)
        if self.lines.tell():
            self.lines.write("\n")  # the last line may be half written
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.lines.close()

    def add(self, clip: Clip, name: str, size: int) -> None:
        """Append an entry."""
        self.lines.write(json.dumps(self._entry(clip, name, size), ensure_ascii=False) + "\n")
