"""List files: one clip a line, `PATH LABEL` (mp4), `PATH` (pkl), the label optional for prediction.

Blank lines and lines that start with `#` are skipped. Paths may hold spaces. A relative path is taken from the
working directory and, if nothing is there, from the folder of the list.
"""

import os
from typing import NamedTuple

from core.config import find_file
from core.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ts")
_PROBED = 100


class Clip(NamedTuple):
    """One entry of a list."""

    path: str
    label: int  # -1: none given, or (pkl) inside the file


def read_list(path, format="mp4", labelled=True, num_classes=None):
    """Read a list file.

    Args:
        path: the list file.
        format: "mp4" (any video file) or "pkl".
        labelled: whether every mp4 line must end with a label.
        num_classes: labels must be below it.

    Returns:
        list of Clip, in the order of the file.

    Raises:
        UserError: list missing or empty, a label missing, not a number or out of range (with the line's number),
            or none of the first files there.
    """
    if not path:
        raise UserError("no list file given: set filelist in the config, for example -o TRAIN.filelist=train.list")
    folder = os.path.dirname(os.path.abspath(path))
    clips = []
    for number, line in enumerate(map(str.strip, read_lines(path)), start=1):
        if line and not line.startswith("#"):
            clips.append(parse_line(line, f"{path}, line {number}", folder, format, labelled, num_classes))
    if not clips:
        raise UserError(f"list file {path} is empty: expected one clip a line, 'PATH LABEL'")
    probed = clips[:_PROBED]
    if not any(os.path.exists(find_file(clip.path, folder)) for clip in probed):
        raise UserError(
            f"list file {path}: none of the first {len(probed)} files exists (the first: {probed[0].path}); "
            f"relative paths are taken from the working directory, then from {folder}"
        )
    return clips


def list_videos(path):
    """The clips of one video file, or of all video files below a folder, sorted; without labels."""
    if os.path.isfile(path):
        return [Clip(path, -1)]
    if not os.path.isdir(path):
        raise UserError(f"video_path {path}: no such file or folder")
    found = [
        os.path.join(folder, name)
        for folder, _, names in os.walk(path)
        for name in names
        if name.lower().endswith(VIDEO_SUFFIXES)
    ]
    if not found:
        raise UserError(f"video_path {path}: the folder holds no video files ({' '.join(VIDEO_SUFFIXES)})")
    return [Clip(name, -1) for name in sorted(found)]


def read_lines(path):
    """Lines of a list file; file names need not be UTF-8. Raises UserError."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = file.readlines()
    except FileNotFoundError:
        raise UserError(f"list file not found: {path}") from None
    except OSError as error:
        raise UserError(f"list file {path} cannot be read: {error}") from None
    if any("\0" in line for line in lines):
        raise UserError(f"list file {path} cannot be read: it is not text in UTF-8")
    return lines


def parse_line(line, where, folder, format, labelled, num_classes):
    """The Clip of one line, which stands at `where`; the other arguments as read_list. Raises UserError."""
    if format == "pkl":
        return Clip(line, -1)
    if not labelled and os.path.exists(find_file(line, folder)):
        return Clip(line, -1)
    path, _, label = line.rpartition(" ") if " " in line else line.rpartition("\t")
    path, label = path.strip(), label.strip()
    try:
        number = int(label) if path else None
    except ValueError:
        number = None
    if not labelled:
        return Clip(line if number is None else path, -1 if number is None else number)
    if not path:
        raise UserError(f"{where}: expected 'PATH LABEL', found no label: {line!r}")
    if number is None:
        raise UserError(f"{where}: label {label!r} is not a whole number")
    if num_classes is not None and not 0 <= number < num_classes:
        raise UserError(f"{where}: label {number} is outside 0..{num_classes - 1} (MODEL.num_classes {num_classes})")
    return Clip(path, number)
