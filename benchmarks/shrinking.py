"""Reading of frames larger than the network's input, as most of Kinetics' are.

Times are processor seconds. PyAV decodes all frames of the file and does nothing else.
"""

from __future__ import annotations

import collections
import sys
from collections.abc import Sequence

from benchmarks import reader
from benchmarks.clips import draw_clips
from benchmarks.timer import Run, Timer, run

PYAV = "PyAV, decoding all and nothing else"


def shrinking(timer: Timer) -> None:
    """Time clips of two sizes."""
    for pixels in ((120, 90), (160, 120)) if timer.quick else ((1280, 720), (1920, 1080)):
        paths = draw_clips(timer.folder, 2, pixels, 60 if timer.quick else 300)
        for mode in reader.MODES:
            ways = {PYAV: pyav, "ours": reader.ours, "decord alone": reader.decord}
            if pixels[1] < 1000:  # it keeps every frame
                ways["original's way"] = reader.original
            timed = reader.compare(timer, f"{pixels[0]} x {pixels[1]}, {mode}", ways, paths, mode, cpu=True)
            if mode == "test":
                timer.ratio(timed, "ours", PYAV, "at most 1.6")


def pyav(paths: Sequence[str], mode: str, quick: bool) -> Run:
    """Contender: PyAV decodes all frames, without conversion to RGB."""

    def read() -> None:
        import av

        for path in paths:
            with av.open(path) as container:
                container.streams.video[0].codec_context.thread_count = 1
                collections.deque(container.decode(video=0), maxlen=1)

    return read


if __name__ == "__main__":
    sys.exit(run(shrinking))
