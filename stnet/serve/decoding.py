"""Decoding of uploads in processes: one that hangs, crashes or takes too much fails its own request only."""

from __future__ import annotations

import asyncio
import base64
import functools
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from stnet.config import ReaderSection
from stnet.inference.result import TILE
from stnet.reader.bounds import BeyondBounds, Bounded, Bounds
from stnet.reader.clip import Clip, read_clip
from stnet.reader.contact_sheet import seconds_of
from stnet.reader.errors import ClipError
from stnet.serve.limits import Limits, Refused, Stats
from stnet.utils.processes import Child, ChildDied

PRELOAD = ("numpy", "av", "cv2", "yaml", "PIL.JpegImagePlugin")  # imported once for all decoding processes
_MEMORY, _FRAMES_HELD = 512 << 20, 32  # bytes of a process without frames; frames in a decoder, 4 bytes a pixel
_START_SECONDS = 60.0
_CODES = {"seconds": "too_long", "frames": "too_many_frames", "pixels": "too_large_frames"}


class Job(NamedTuple):
    """A video to be read."""

    path: str
    section: ReaderSection
    pictures: bool


class Reading(NamedTuple):
    """Clip and facts of a video."""

    clip: Clip  # without `video`, which is large
    facts: dict[str, Any]  # seconds, frames, width, height, decoder
    segments: list[dict[str, Any]]  # numbers and times of their frames, and a picture if wanted
    notes: list[str]


def read(job: Job) -> Reading:
    """Read a video as predict does, in a decoding process. Raises ClipError."""
    clip = read_clip(job.path, job.section)
    assert clip.video is not None  # it is one
    video, timestamps = clip.video, seconds_of(clip)
    size = video.index.width, video.index.height
    width, height = size[::-1] if video.index.rotation in (90, 270) else size
    facts = {
        "seconds": round(video.index.seconds or video.index.duration, 3),
        "frames": clip.num_frames,
        "width": width,
        "height": height,
        "decoder": video.decoder,
    }
    segments: list[dict[str, Any]] = []
    for numbers, frames in zip(clip.segments, np.split(clip.frames, len(clip.segments))):
        seconds = [round(timestamps[number], 3) for number in numbers] if timestamps else []
        segments.append({"frames": numbers, "seconds": seconds})
        if job.pictures:
            segments[-1]["image"] = picture(frames)
    notes = [f"its data is not whole: {video.in_order}"] if video.damaged else []
    return Reading(clip._replace(video=None), facts, segments, notes)


def picture(frames: np.ndarray) -> str:
    """Frames, uint8 [N, H, W, 3], side by side in a small JPEG, as a data URL."""
    strip = Image.new("RGB", (TILE * len(frames), TILE))
    for slot, frame in enumerate(frames):
        strip.paste(Image.fromarray(frame).resize((TILE, TILE), Image.BILINEAR), (TILE * slot, 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def child_of(limits: Limits, function: Callable[[Any], Any]) -> Child:
    """Start a process that calls a function of one video within the limits."""
    bounds = Bounds(limits.seconds, limits.frames, limits.pixels)
    memory = _MEMORY + 4 * _FRAMES_HELD * limits.pixels
    return Child(Bounded(bounds, function), fresh=True, memory=memory, preload=PRELOAD)


def refusal(error: Exception) -> Refused:
    """Refusal of a video that cannot be read."""
    if isinstance(error, ChildDied):
        return Refused(422, "crashed", str(error))
    code = _CODES[error.bound] if isinstance(error, BeyondBounds) else "no_video"
    return Refused(422, code, str(error))


class Cancellation:
    """Cancels from another thread what a thread does with a child: kills the child, or the one that it is to use."""

    def __init__(self) -> None:
        self.lock, self.cancelled = threading.Lock(), False
        self.child: Child | None = None

    def hold(self, child: Child | None) -> None:
        """Set the child that is used from now on."""
        with self.lock:
            self.child = child
            self._stop_if_cancelled()

    def cancel(self) -> None:
        """Kill the child that is used, if any, and those that will be."""
        with self.lock:
            self.cancelled = True
            self._stop_if_cancelled()

    def _stop_if_cancelled(self) -> None:
        if self.cancelled and self.child is not None:
            self.child.stop()


class Decoders:
    """Pool of processes that read videos, each one at a time; one that ends is replaced.

    Args:
        count: number of processes.
        limits: of a video.
        stats: counters.
        function: called with a Job.

    Attributes:
        slots: a semaphore, one slot for each process, from `start` on.
    """

    def __init__(self, count: int, limits: Limits, stats: Stats, function: Callable[[Any], Any] = read) -> None:
        self.count, self.stats = count, stats
        self.begin = functools.partial(child_of, limits, function)
        self.threads = ThreadPoolExecutor(count, "decoding")
        self.idle: list[Child] = []

    async def start(self) -> None:
        """Start all processes, and wait until they are ready."""
        loop = asyncio.get_running_loop()
        self.slots = asyncio.Semaphore(self.count)
        self.idle += await asyncio.gather(*(loop.run_in_executor(self.threads, self.begin) for _ in range(self.count)))
        for child in self.idle:
            try:
                await loop.run_in_executor(self.threads, child.wait_until_ready, _START_SECONDS)
            except ChildDied:  # replaced when it is needed
                self.stats.decoder_died()
        self.idle = [child for child in self.idle if not child.ended]

    async def read(self, job: Job) -> Any:
        """Have a process read a job; the caller holds one of the `slots`. Cancellation kills the process.

        Raises:
            Refused: the video cannot be read.
        """
        cancellation = Cancellation()
        try:
            return await asyncio.wrap_future(self.threads.submit(self._read, job, cancellation))
        finally:
            cancellation.cancel()  # does nothing after the end

    def close(self) -> None:
        """Stop the processes, which must be idle."""
        self.threads.shutdown()
        while self.idle:
            self.idle.pop().kill()

    def _read(self, job: Job, cancellation: Cancellation) -> Any:
        """Have a process read a job, in a thread."""
        if cancellation.cancelled:
            return None
        try:
            with self.stats.decoding():
                child = self._take(job.section.decode_timeout, cancellation)
                try:
                    child.send([job])
                    return child.receive(job.section.decode_timeout)
                except ChildDied:
                    self.stats.decoder_died()
                    raise
                finally:
                    cancellation.hold(None)
                    if not child.ended:
                        self.idle.append(child)
        except (ClipError, ChildDied) as error:
            raise refusal(error) from None

    def _take(self, timeout: float, cancellation: Cancellation) -> Child:
        """Take an idle process that is alive, or start a new one, and another if it dies. Raises ChildDied."""
        started = 0
        while True:
            try:
                child = self.idle.pop()
            except IndexError:
                child = self.begin()
                started += 1
            cancellation.hold(child)
            try:
                child.wait_until_ready(timeout)
                return child
            except ChildDied:
                self.stats.decoder_died()
                if started == 2 or cancellation.cancelled:
                    raise
