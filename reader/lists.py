"""List files: one clip a line, `PATH LABEL`, or `PATH` where the format has labels inside or prediction needs none.

`START END`, in seconds, after the path makes the clip a part of a video (stnet.reader.spans).
Blank lines and lines that start with `#` are skipped. Paths may hold spaces. A relative path is taken from the
working directory and, if nothing is there, from the folder of the list.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable

from stnet.reader.formats import FORMATS, VIDEO, Clip
from stnet.utils.errors import MAKE_LISTS, UserError
from stnet.utils.files import find_file, walk

logger = logging.getLogger("stnet")

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv", ".3gp", ".ts", ".mts", ".m2ts"),
    *(".m2t", ".vob", ".m2v", ".ogv", ".3g2", ".asf", ".f4v", ".mxf", ".rm", ".rmvb", ".gif"),
)
_PROBED = 100
_EXAMPLES = 3  # of files that are left out


def read_list(path: str, format: str = VIDEO, labelled: bool = True, num_classes: int | None = None) -> list[Clip]:
    """Read a list file: its clips, in order.

    Args:
        path: the list file.
        format: one of stnet.reader.formats.FORMATS.
        labelled: every line must end with a label, unless the format has it inside the file.
        num_classes: labels must be below it.

    Raises:
        UserError: list missing or empty, a label missing, not a number or out of range (with the line's number),
            a span that is none, none of the first files there, or no such format.
    """
    if not path:
        raise UserError("no list file given", "set filelist in the config, for example -o TRAIN.filelist=train.list")
    clip_format = FORMATS.get(format)()
    folder = list_folder(path)
    clips = []
    for number, line in clip_lines(path):
        try:
            clips.append(clip_format.parse_line(line, folder, labelled, num_classes))
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}", error.hint) from None
    probed = clips[:_PROBED]
    if not any(os.path.exists(find_file(clip.path, folder)) for clip in probed):
        raise UserError(
            f"list file {path}: none of the first {len(probed)} files exists (the first: {probed[0].path}); "
            f"relative paths are taken from the working directory, then from {folder}"
        )
    return clips


def clip_lines(path: str) -> list[tuple[int, str]]:
    """(number, stripped text) of each line that names a clip, UTF-8 or not. Raises UserError if there is none."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = file.readlines()
    except FileNotFoundError:
        raise UserError(f"list file not found: {path}", MAKE_LISTS) from None
    except OSError as error:
        raise UserError(f"list file {path} cannot be read: {error}") from None
    if any("\0" in line for line in lines):
        raise UserError(f"list file {path} cannot be read: it is not text in UTF-8")
    numbered = [(number, line.strip()) for number, line in enumerate(lines, start=1)]
    clips = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not clips:
        raise UserError(f"list file {path} is empty: expected one clip a line, 'PATH LABEL'")
    return clips


def list_folder(path: str) -> str:
    """Folder that relative paths of a list are also looked up in."""
    return os.path.dirname(os.path.abspath(path))


def list_videos(path: str) -> list[Clip]:
    """Clips without labels: one video file, or all video files below a folder, sorted."""
    if os.path.isfile(path):
        return [Clip(path, -1)]
    if not os.path.isdir(path):
        raise UserError(f"video_path {path}: no such file or folder")
    paths = find_videos(path)
    if not paths:
        raise UserError(f"video_path {path}: the folder holds no video files ({' '.join(VIDEO_SUFFIXES)})")
    return [Clip(name, -1) for name in paths]


def find_videos(folder: str) -> list[str]:
    """Paths of all video files below a folder, sorted."""
    return videos_among((os.path.join(here, name) for here, names in walk(folder) for name in names), folder)


def videos_among(paths: Iterable[str], folder: str) -> list[str]:
    """Filter the paths found in a folder: videos by suffix, sorted. Hidden and other files are logged and left out."""
    videos: list[str] = []
    left_out: dict[str, list[str]] = {"hidden files": [], "files that are not named as videos are": []}
    hidden, others = left_out.values()
    for path in paths:
        if os.path.basename(path).startswith("."):
            hidden.append(path)
        elif path.lower().endswith(VIDEO_SUFFIXES):
            videos.append(path)
        else:
            others.append(path)
    for kind, names in left_out.items():
        if names:
            examples = [os.path.relpath(name, folder) for name in names[:_EXAMPLES]]
            examples += ["..."] if len(names) > _EXAMPLES else []
            logger.info("%s: left out %s: %d: %s", folder, kind, len(names), ", ".join(examples))
    return sorted(videos)
