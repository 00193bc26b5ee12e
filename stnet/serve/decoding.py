"""Reading uploads in processes of their own: one that hangs, crashes or takes too much costs its request alone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from stnet.inference.result import TILE
from stnet.reader.bounds import BeyondBounds, Bounded, Bounds
from stnet.reader.clip import Clip, read_clip
from stnet.reader.contact_sheet import seconds_of
from stnet.reader.errors import ClipError
from stnet.reader.isolate import ReaderDied, receive
from stnet.serve.limits import Limits, Refused
from stnet.serve.stats import Stats
from stnet.utils.processes import Begun, ForkserverChild

if TYPE_CHECKING:
    from stnet.config import ReaderSection

PRELOAD = ("numpy", "av", "cv2", "yaml", "PIL.JpegImagePlugin")  # what every decoding process needs
_MEMORY, _FRAMES_HELD = 512 << 20, 32  # bytes whatever the frames; frames that a decoder may hold, of 4 bytes a pixel
_START_SECONDS = 60.0
_CODES = {"seconds": "too_long", "frames": "too_many_frames", "pixels": "too_large_frames"}


class Job(NamedTuple):
    """A video to be read."""

    path: str
    section: ReaderSection
    pictures: bool


class Reading(NamedTuple):
    """What was read of a video."""

    clip: Clip  # without `video`, which is large
    facts: dict[str, Any]  # seconds, frames, width, height, decoder
    segments: list[dict[str, Any]]  # numbers and times of their frames, and a picture if wanted
    notes: list[str]


def read(job: Job) -> Reading:
    """In a decoding process: a video as predict reads it. Raises ClipError."""
    clip = read_clip(job.path, job.section)
    assert clip.video is not None  # it is one
    video, timestamps = clip.video, seconds_of(clip)
    size = video.index.width, video.index.height
    width, height = size[::-1] if video.index.turned in (90, 270) else size
    facts = {
        "seconds": round(video.index.seconds or video.index.duration, 3),
        "frames": clip.num_frames,
        "width": width,
        "height": height,
        "decoder": video.decoder,
    }
    segments: list[dict[str, Any]] = [
        {"frames": segment, "seconds": [round(timestamps[frame], 3) for frame in segment] if timestamps else []}
        for segment in clip.segments
    ]
    if job.pictures:
        for segment, frames in zip(segments, np.split(clip.frames, len(segments))):
            segment["image"] = picture(frames)
    notes = [f"its data is not whole: {video.in_order}"] if video.damaged else []
    return Reading(clip._replace(video=None), facts, segments, notes)


def picture(frames: np.ndarray) -> str:
    """uint8 [N, H, W, 3] side by side, small, as the address of a JPEG."""
    from PIL import Image

    strip = Image.new("RGB", (TILE * len(frames), TILE))
    for slot, frame in enumerate(frames):
        strip.paste(Image.fromarray(frame).resize((TILE, TILE), Image.BILINEAR), (TILE * slot, 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def child_of(limits: Limits, function: Callable[[Any], Any]) -> ForkserverChild:
    """A process that calls a function of one video within the limits."""
    bounds = Bounds(limits.seconds, limits.frames, limits.pixels)
    return ForkserverChild(Bounded(bounds, function), _MEMORY + 4 * _FRAMES_HELD * limits.pixels, PRELOAD)


def refusal(error: Exception) -> Refused:
    """Of a video that cannot be read."""
    if isinstance(error, ReaderDied):
        return Refused(422, "crashed", str(error))
    code = _CODES[error.bound] if isinstance(error, BeyondBounds) else "no_video"
    return Refused(422, code, str(error))


class Decoders:
    """Processes that read videos, each one at a time; one that ends is replaced.

    Args:
        count: of them.
        limits: of a video.
        stats: counts.
        function: what they call with a Job.

    Attributes:
        slots: one for each, from `start` on.
    """

    def __init__(self, count: int, limits: Limits, stats: Stats, function: Callable[[Any], Any] = read) -> None:
        self.count, self.stats = count, stats
        self.begin = functools.partial(child_of, limits, function)
        self.threads = ThreadPoolExecutor(count, "decoding")
        self.idle: list[ForkserverChild] = []

    async def start(self) -> None:
        """Have all processes ready."""
        loop = asyncio.get_running_loop()
        self.slots = asyncio.Semaphore(self.count)
        self.idle += await asyncio.gather(*(loop.run_in_executor(self.threads, self.begin) for _ in range(self.count)))
        for child in self.idle:  # which may have to import much first
            child.send([Begun()])
        for child in self.idle:
            with contextlib.suppress(TimeoutError, EOFError):  # found dead when it is needed
                await loop.run_in_executor(self.threads, child.receive, _START_SECONDS)

    async def read(self, job: Job) -> Any:
        """What a process makes of a job, for who holds one of the `slots`. If cancelled, the process is ended.

        Raises:
            Refused: the video cannot be read.
        """
        work = _Work(self, job)
        try:
            return await asyncio.wrap_future(self.threads.submit(work.run))
        finally:
            work.give_up()  # nothing, if it is done

    def close(self) -> None:
        """End the processes, which must be idle."""
        self.threads.shutdown()
        while self.idle:
            self.idle.pop().kill()


class _NotBegun(ReaderDied):
    """It died before it began with the job: it was killed while it was idle."""


class _Work:
    """One job, in a thread that waits for the process."""

    def __init__(self, decoders: Decoders, job: Job) -> None:
        self.decoders, self.job = decoders, job
        self.lock = threading.Lock()
        self.child: ForkserverChild | None = None
        self.given_up = False

    def run(self) -> Any:
        try:
            with self.decoders.stats.decoding():
                try:
                    return self._ask(self._child())
                except _NotBegun:
                    return self._ask(self.decoders.begin())
        except (ClipError, ReaderDied) as error:
            raise refusal(error) from None

    def _ask(self, child: ForkserverChild) -> Any:
        """What a process makes of the job. Raises ClipError, ReaderDied; _NotBegun: not for anything in the video."""
        with self.lock:
            if not self.given_up:
                self.child = child
        dies: type[ReaderDied] = _NotBegun
        try:
            if self.child is None:
                return None
            child.send([Begun()])
            child.send([self.job])
            receive(child, self.job.section.decode_timeout)
            dies = ReaderDied
            return receive(child, self.job.section.decode_timeout)
        except ReaderDied as error:
            self.decoders.stats.decoder_died()
            raise dies(*error.args) from None
        finally:
            with self.lock:
                self.child = None
            if not child.pipe.closed:
                self.decoders.idle.append(child)

    def _child(self) -> ForkserverChild:
        """One that is idle, or a new one."""
        while self.decoders.idle:
            child = self.decoders.idle.pop()
            if child.is_alive() and not child.pipe.poll():  # which is told of its end at once
                return child
            child.exit_reason()
            self.decoders.stats.decoder_died()
        return self.decoders.begin()

    def give_up(self) -> None:
        """End the process, if it works for this job."""
        with self.lock:
            self.given_up = True
            if self.child is not None:
                self.child.stop()
