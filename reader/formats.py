"""Clip formats: each parses lines of a list and reads the frames and label of a file."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from stnet.reader.decode import ClipSink, read_frames
from stnet.reader.errors import ClipError, CorruptVideo, decoding
from stnet.reader.pickles import read_pickle
from stnet.reader.spans import Span, named, split_span
from stnet.utils.errors import UserError
from stnet.utils.files import find_file
from stnet.utils.registry import Registry

FORMATS: Registry[type[Format]] = Registry("clip format")
VIDEO, PICKLE, FRAMES = "mp4", "pkl", "frames"  # the first two are the original's


class Clip(NamedTuple):
    """One entry of a list."""

    path: str
    label: int  # -1: none given, or inside the file
    format: str = ""  # "": that of the whole list
    span: Span | None = None  # the part of the file that it is; None: all

    @property
    def name(self) -> str:
        """Path, with the span where there is one, for messages and result files."""
        return named(self.path, self.span)


class Format(ABC):
    """Base of clip formats. A new one gives `read` and is registered in FORMATS.

    Attributes:
        label_inside: the label is in the file, and a line of a list is a path alone.
        spans: lines may name a part of a file, by its seconds; `read` gives the frames of `sink.span` alone.
        second_decoder: `decoder` of `read` for a clip that made the first one hang or crash; "": no second attempt.
        centre_formula: of `centre`, for the deploy.yaml of an export.
    """

    label_inside = False
    spans = False
    second_decoder = ""
    centre_formula = "(average - seglen) // 2"

    @abstractmethod
    def read(self, path: str, sink: ClipSink, decoder: str = "") -> int | None:
        """Decode the frames that a sink wants.

        Args:
            path: the file.
            sink: `sink.begin(count)` returns, for the number of frames, the ascending numbers of the wanted ones;
                `sink.put(row, frame)` takes the row-th of them, uint8 [H, W, 3] RGB.
            decoder: `second_decoder` at the second attempt; else "", or another for comparison.

        Returns:
            the label, if it is inside the file.

        Raises:
            ValueError, OSError: the clip cannot be read; the message is the reason, without the path.
        """

    def centre(self, average: int, seglen: int) -> int:
        """Offset of the centre segment of `seglen` frames in a part of `average` frames."""
        return (average - seglen) // 2

    def parse_line(self, line: str, folder: str, labelled: bool, num_classes: int | None) -> Clip:
        """Parse one line of a list: a path, perhaps START and END in seconds, and a label.

        Args:
            line: stripped.
            folder: of the list.
            labelled: the label is required.
            num_classes: labels must be below it; None: any.

        Raises:
            UserError: the label is missing, not a number or out of range; or the span is.
        """
        if self.label_inside:
            return self._with_span([Clip(line, -1)], folder)
        if not labelled and os.path.exists(find_file(line, folder)):
            return Clip(line, -1)
        path, label = split_label(line)
        try:
            number = int(label) if path else None
        except ValueError:
            number = None
        if not labelled:
            unlabelled = Clip(line, -1)
            return self._with_span([unlabelled] if number is None else [Clip(path, number), unlabelled], folder)
        if not path:
            raise UserError(f"expected 'PATH LABEL', found no label: {line!r}")
        if number is None:
            raise UserError(f"label {label!r} is not a whole number")
        if num_classes is not None and not 0 <= number < num_classes:
            raise UserError(f"label {number} is outside 0..{num_classes - 1} (MODEL.num_classes {num_classes})")
        return self._with_span([Clip(path, number)], folder)

    def _with_span(self, readings: Sequence[Clip], folder: str) -> Clip:
        """Choose among readings of a line, in which two numbers at the end of the path may be a span instead.

        The longest path that exists is meant; where none does, the shortest, or the first reading if its span is none.

        Raises:
            UserError: there is a file with a span that is none, or of a format without times.
        """
        cuts = [(clip, cut) for clip in readings if (cut := split_span(clip.path))]
        if not cuts:
            return readings[0]
        spans = [clip._replace(path=path, span=span) for clip, (path, span) in cuts]
        longest_first = sorted([*readings, *spans], key=lambda clip: -len(clip.path))
        clip = next((clip for clip in longest_first if os.path.exists(find_file(clip.path, folder))), None)
        if clip is None:
            _, (_, span) = cuts[0]
            return spans[0] if self.spans and not span.problem else readings[0]
        self.check_span(clip.span)
        return clip

    def check_span(self, span: Span | None) -> None:
        """Raise UserError where a file of this format has no such part."""
        if span and not self.spans:
            raise UserError(
                f"span {span}: files of this format have no times", "leave out START and END, or take a video"
            )
        if span and span.problem:
            raise UserError(span.problem)


@FORMATS.register(VIDEO)
class Video(Format):
    """Any video file that FFmpeg reads."""

    spans = True
    second_decoder = "opencv"
    centre_formula = "(average - 1) // 2"

    def read(self, path: str, sink: ClipSink, decoder: str = "") -> None:
        """Read by the decoder that stnet.reader.decode chooses."""
        sink.video = read_frames(path, sink, decoder, sink.span)

    def centre(self, average: int, seglen: int) -> int:
        """Put the first frame of the segment in the centre, not its middle, as the original does."""
        return (average - 1) // 2


@FORMATS.register(FRAMES)
class Frames(Video):
    """An array of frames, uint8 [T, H, W, 3] RGB, as numpy.save writes it."""

    spans = False
    second_decoder = ""

    def read(self, path: str, sink: ClipSink, decoder: str = "") -> None:
        """Read the wanted frames only, through a memory map."""
        try:
            with decoding():  # NumPy parses the header as Python, with many types of errors
                frames = np.lib.format.open_memmap(path, mode="r")
        except CorruptVideo as error:
            raise ClipError(f"no array of frames can be read ({error})") from None
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape[1:]:
            raise ValueError(f"it holds {frames.dtype} {list(frames.shape)}, expected uint8 [T, H, W, 3]")
        for row, number in enumerate(sink.begin(len(frames))):
            sink.put(row, np.ascontiguousarray(frames[number]))


@FORMATS.register(PICKLE)
class Pickle(Format):
    """The original's `(video id, label, [JPEG bytes, ...])`."""

    label_inside = True

    def read(self, path: str, sink: ClipSink, decoder: str = "") -> int:
        """Decode the wanted JPEGs."""
        frames, _, label = read_pickle(path, sink.begin)
        for row, frame in enumerate(frames):
            sink.put(row, frame)
        return label


def split_label(line: str) -> tuple[str, str]:
    """Split a stripped line at its last blank or tab into (path, label); without one, the path is empty."""
    cut = max(line.rfind(" "), line.rfind("\t"))
    return line[: max(cut, 0)].strip(), line[cut + 1 :]
