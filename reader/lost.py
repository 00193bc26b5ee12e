"""Detect lost reference pictures by slice headers: decoders differ in the number of frames that they show then.

Losses that the headers do not show, as of a picture that no other refers to, make no such difference.
"""

from __future__ import annotations

from collections.abc import Iterable

from stnet.reader.h264 import FrameNumbers
from stnet.reader.hevc import ReferencePictures

CHECKED_CODECS = ("h264", "hevc")  # codecs, by FFmpeg's names, whose slice headers are read


class LostPictures:
    """Examines the NAL units of a stream, in the order of decoding, until a picture is missing.

    Args:
        codec: FFmpeg's name; only CHECKED_CODECS are examined.
        parameter_sets: NAL units outside the packets.

    Attributes:
        found: a reference picture is missing.
        unsure: the headers cannot be read, or numbers are missing that the stream may leave out.
    """

    def __init__(self, codec: str, parameter_sets: Iterable[bytes]) -> None:
        self.found = self.unsure = False
        self.pictures: FrameNumbers | ReferencePictures | None = None
        if codec in CHECKED_CODECS:
            self.pictures = FrameNumbers() if codec == "h264" else ReferencePictures()
        self.put(parameter_sets)

    def put(self, units: Iterable[bytes]) -> None:
        """Examine the NAL units of a packet."""
        if self.pictures is None or self.found or self.unsure:
            return
        try:
            lost = any(map(self.pictures.is_lost_before, units))
        except (ValueError, IndexError, KeyError):
            self.unsure = True
        else:
            self.found = lost and not self.pictures.allows_gaps
            self.unsure = lost and self.pictures.allows_gaps
