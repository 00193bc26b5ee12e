"""Makes the corpus: small videos of every encoding in recipes.py, each frame of a file unlike all others of it.

    python tests/corpus/make.py FOLDER [PATTERN ...]

The files are the same ones each time, for one version of ffmpeg; it is that of the imageio-ffmpeg wheel.
"""

import concurrent.futures
import fnmatch
import itertools
import os
import re
import shlex
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
from recipes import FAMILIES

QUIET = ["-nostdin", "-y", "-loglevel", "error"]


class Recipe(NamedTuple):
    """How one file is made: its name, its steps (lists of words, see `_run_step`) and the set of its tags."""

    name: str
    steps: tuple
    tags: frozenset


class Source:
    """`{src:size=96x64 rate=25 frames=50 pix=yuv420p seed=1}`: a moving picture with noise; keys are optional."""

    def __format__(self, spec):
        have = {"size": "96x64", "rate": "25", "frames": "50", "pix": "yuv420p", "seed": "1"}
        have.update(pair.split("=") for pair in spec.split())
        graph = (
            "testsrc2=s={size}:r={rate},trim=end_frame={frames},noise=alls=24:allf=t:all_seed={seed},"
            "hue=h=50*{seed},format={pix}"
        )
        return f"-f lavfi -i '{graph.format(**have)}'"


class Encoder:
    """`{x264:keyint=12:bframes=2}`: an encoder that takes its own parameters joined by colons."""

    def __init__(self, options, flag, always):
        self.options, self.flag, self.always = options, flag, always

    def __format__(self, spec):
        return f"{self.options} {self.flag} {':'.join(filter(None, [self.always, spec]))}"


WORDS = {
    "src": Source(),
    "tone": "-f lavfi -i sine=frequency=440:duration=2",
    "x264": Encoder("-c:v libx264 -preset veryfast", "-x264-params", "threads=1:scenecut=0"),
    "x264rgb": Encoder("-c:v libx264rgb -preset veryfast", "-x264-params", "threads=1:scenecut=0"),
    "x265": Encoder(
        "-c:v libx265 -preset ultrafast", "-x265-params", "pools=none:frame-threads=1:scenecut=0:log-level=none"
    ),
}


def recipes():
    """Every recipe that this ffmpeg can make: each family of recipes.py with each combination of its variables."""
    found, version = [], int(re.search(r"\d+", imageio_ffmpeg.get_ffmpeg_version()).group())
    for tags, name, steps, variables in FAMILIES:
        for chosen in itertools.product(*map(_choices, variables.values())):
            names = {key: label for key, (label, _) in zip(variables, chosen)}
            texts = {key: text.format(**WORDS) for key, (_, text) in zip(variables, chosen)}
            lines = tuple(shlex.split(step.format(**texts, **WORDS)) for step in steps)
            found.append(Recipe(name.format(**names), lines, frozenset(tags.split())))
    return [recipe for recipe in found if version >= 8 or "ffmpeg8" not in recipe.tags]


def _choices(values):
    """(label, text) pairs of a variable: of a dict, or of words that are their own labels."""
    return list(values.items()) if isinstance(values, dict) else [(word, word) for word in values.split()]


def make(folder, patterns=("*",), workers=2):
    """Makes the files whose name matches one of `patterns`.

    Args:
        folder: where they go; made if missing. Files that are there already stay as they are.
        patterns: shell patterns.
        workers: files made at one time.

    Returns:
        {name: path} of the files.

    Raises:
        RuntimeError: ffmpeg refused a recipe; the message names it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    chosen = [recipe for recipe in recipes() if any(fnmatch.fnmatch(recipe.name, one) for one in patterns)]
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        paths = list(pool.map(lambda recipe: _make_one(recipe, folder), chosen))
    return {recipe.name: path for recipe, path in zip(chosen, paths)}


def _make_one(recipe, folder):
    path = folder / recipe.name
    if path.exists():
        return path
    with tempfile.TemporaryDirectory(dir=folder, prefix=".making-") as scratch:
        made = os.path.join(scratch, recipe.name)
        for step in recipe.steps:
            words = [made if word == "OUT" else word.replace("TMP", scratch) for word in step]
            try:
                _run_step(words)
            except subprocess.CalledProcessError as error:
                raise RuntimeError(f"{recipe.name}: {shlex.join(words)}\n{error.stderr or error}") from None
        os.replace(made, path)
    return path


def _run_step(words):
    """One step: that of STEPS which its first word names, or ffmpeg."""
    if words[0] in STEPS:
        *arguments, out = words[1:]
        Path(out).write_bytes(STEPS[words[0]](*arguments))
        return
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), *QUIET, *words[:-1]]
    ffmpeg += ["-threads", "1", "-fflags", "+bitexact", words[-1]]
    subprocess.run(ffmpeg, check=True, capture_output=True, text=True)


def _cat(*paths):
    """The files' bytes, one after the other."""
    return b"".join(Path(path).read_bytes() for path in paths)


def _list(*paths):
    """A list of files for the concat demuxer."""
    return "".join(f"file '{path}'\n" for path in paths).encode()


def _bytes(start, end, path):
    """Part of a file, from and to a percentage of it, in whole packets of a transport stream."""
    whole = Path(path).read_bytes()
    start, end = (len(whole) * int(percent) // 100 // 188 * 188 for percent in (start, end))
    return whole[start:end]


def _rename(old, new, path):
    """A file whose box or chunk `old` has the name `new`, which no reader looks for."""
    return Path(path).read_bytes().replace(old.encode(), new.encode(), 1)


def _edit(edits, path):
    """An mp4 of 25 frames a second whose edit list says `edits`: 10-40,pause for frames 10 to 39, then a second."""
    whole, entries = Path(path).read_bytes(), []
    for edit in edits.split(","):
        first, end = map(int, edit.split("-")) if edit != "pause" else (0, 25)
        start = first * 512 + 1024 if edit != "pause" else -1  # of 12800 in a second; B-frames delay by two frames
        entries.append(struct.pack(">IiI", (end - first) * 40, start, 0x10000))
    at = whole.index(b"elst") - 4
    size = int.from_bytes(whole[at : at + 4], "big")
    box = struct.pack(">I4sII", 16 + 12 * len(entries), b"elst", 0, len(entries)) + b"".join(entries)
    whole = whole[:at] + box + whole[at + size :]
    for parent in (b"edts", b"trak", b"moov"):
        place = whole.rindex(parent, 0, at) - 4
        grown = int.from_bytes(whole[place : place + 4], "big") + len(box) - size
        whole = whole[:place] + grown.to_bytes(4, "big") + whole[place + 4 :]
    return whole


STEPS = {"cat": _cat, "list": _list, "bytes": _bytes, "rename": _rename, "edit": _edit}


if __name__ == "__main__":
    made = make(sys.argv[1], sys.argv[2:] or ["*"])
    print(f"{len(made)} files in {sys.argv[1]}, {sum(path.stat().st_size for path in made.values()) / 2**20:.1f} MiB")
