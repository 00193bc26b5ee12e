"""Data loader: from the configuration to batches, read by worker processes."""

from __future__ import annotations

import atexit
import ctypes
import functools
import logging
import math
import os
import shutil
import signal
import sys
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle
from paddle.base import core

from stnet.config import Config, ReaderSection
from stnet.reader.bad_clips import BadClips
from stnet.reader.dataset import Sample, VideoListDataset
from stnet.reader.decode import decoder_asked_for
from stnet.reader.formats import Clip
from stnet.reader.lists import list_folder, read_list
from stnet.reader.order import EpochOrder
from stnet.utils.errors import UserError, last_line
from stnet.utils.processes import may_start_workers, set_parent_death_signal

logger = logging.getLogger("stnet")

_ITERATORS: weakref.WeakSet[Any] = weakref.WeakSet()  # of Paddle, each with threads
Collated = tuple[Any, Any, list[int], list[tuple[int, str, bool]], str]  # see collate


class Batch(NamedTuple):
    """Clips of one step, without those that could not be read."""

    clips: paddle.Tensor  # uint8 [B, views * seg_num, 3 * seglen, H, W]
    labels: paddle.Tensor  # int64 [B]
    indices: list[int]  # B positions in the list


def build_loader(
    config: Config,
    mode: str,
    rank: int = 0,
    ranks: int = 1,
    seed: int = 0,
    filelist: str = "",
    quarantine: str = "",
    clips: Sequence[Clip] = (),
) -> Loader:
    """Build the loader of a mode.

    Args:
        config: with the section of the mode; MODEL.format is the format of the clips.
        mode: "train" shuffles and augments; "valid", "test" and "infer" read the list in order.
        rank, ranks: this process, and the number of processes that share the section's batch_size.
        seed: of order and augmentation.
        filelist: replaces the section's.
        quarantine: file of clips that hung or crashed the decoder: they are left out, and new ones added.
        clips: instead of a list.

    Raises:
        UserError: no such format or decoder, or the list cannot be read.
    """
    decoder_asked_for()  # raises for a wrong name here, not in each worker
    section, model = config.section(mode), config.MODEL
    filelist = filelist or section.filelist
    num_classes = model.num_classes if mode != "infer" else None
    folder = "" if clips else list_folder(filelist)
    clips = clips or read_list(filelist, model.format, mode != "infer", num_classes)
    dataset = VideoListDataset(clips, section, model.format, mode == "train", seed, folder, num_classes)
    order = EpochOrder(len(clips), section.batch_size, mode == "train", seed, rank, ranks, section.views)
    one_clip_a_rank = min(order.batch_size, len(clips)) < 2 * ranks
    if mode == "train" and one_clip_a_rank and not (config.TRAIN.sync_bn and ranks > 1):
        logger.warning(
            "batch_size %d, %d clips, %d ranks: batch norm takes its statistics from one clip; take larger batches",
            order.batch_size, len(clips), ranks,
        )  # fmt: skip
    bad = BadClips(clips, math.inf if mode == "infer" else section.max_bad_ratio, quarantine)
    dataset.skip = bad.quarantined()
    return Loader(dataset, order, _workers(section, order), bad, config.TRAIN.epoch if mode == "train" else 0)


def _workers(section: ReaderSection, order: EpochOrder) -> int:
    """Number of worker processes: the section's, or fewer for many views, which take more memory."""
    asked, held = section.num_reader_threads, order.clips_at_once() * section.views
    if section.views == 1 or held <= order.computed_at_once:
        return asked
    workers = min(asked, max(1, asked * order.computed_at_once // held))
    if workers < asked:
        logger.info(
            "%d views of each video: num_reader_threads %d instead of %d, for their memory", held, workers, asked
        )
    return workers


class Loader:
    """Batches of an epoch, read ahead by worker processes.

    In training the workers stay from one epoch to the next, which they begin during validation; `close` ends them.

    Args:
        dataset: of clips.
        order: of its clips.
        workers: worker processes; 0 reads in this one. Where they cannot be started, a thread reads ahead instead.
        bad: collects the clips that cannot be read.
        epochs: of training; 0: each epoch is started separately.
    """

    def __init__(
        self, dataset: VideoListDataset, order: EpochOrder, workers: int, bad: BadClips, epochs: int = 0
    ) -> None:
        self.dataset, self.order, self.bad = dataset, order, bad
        self.workers, self.epochs = workers, epochs
        self.stream: _BatchIterator | None = None  # batches from `place` on
        self.place: tuple[int, int] | None = None  # next (epoch, step)
        self.shm_warned = False

    def __len__(self) -> int:
        """Number of steps in an epoch."""
        return len(self.order)

    def set_seed(self, seed: int) -> None:
        """Change the seed of order and augmentation."""
        self.close()
        self.order.seed = self.dataset.seed = seed

    def epoch(self, number: int = 0, first_step: int = 0) -> Generator[Batch, None, None]:
        """Iterate over the batches of an epoch, from a step on.

        A batch of bad clips only has no indices; its clips and labels are placeholders.

        Raises:
            UserError: too many clips are bad, none could be read, or a worker was killed.
            RuntimeError: a bug in the reader, with its traceback and the clip.
        """
        stream = self.start(number, first_step)
        self.place = None
        steps = len(self.order) - first_step
        try:
            for _ in range(steps):
                clips, labels, indices, errors, fatal = next(stream)
                if fatal:
                    raise RuntimeError(f"the reader failed at {fatal}")
                for index, reason, quarantine in errors:
                    self.bad.add(index, reason, quarantine)
                    if quarantine:
                        self.dataset.skip[index] = reason
                yield Batch(clips, labels, indices)
            self.place = (number + 1, 0)
        finally:
            if self.place is None or number + 1 >= self.epochs:
                self.close()
        if steps and len(self.bad.reasons) == len(self.dataset) and self.bad.allowed < math.inf:
            raise self.bad.none_read()

    def start(self, number: int = 0, first_step: int = 0) -> _BatchIterator:
        """Start reading an epoch from a step on, ahead of `epoch`."""
        if self.stream is None or self.place != (number, first_step):
            self.close()
            self.stream, self.place = self._open_iterator(number, first_step), (number, first_step)
        return self.stream

    def close(self) -> None:
        """End the worker processes."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
            self.dataset.close()  # the child belongs to the thread that read

    def _open_iterator(self, epoch: int, first_step: int) -> _BatchIterator:
        """Start Paddle's DataLoader on the batches of an epoch from a step on, and of the epochs after it."""
        from paddle.io import DataLoader

        workers = min(self.workers, len(self.order))
        self.dataset.isolate = workers > 0
        if workers and not may_start_workers():
            logger.info("reading one clip at a time: reading processes start in the main thread of no daemon alone")
            workers = 0  # a thread of Paddle reads ahead, by a child process all the same
        iterator = iter(
            DataLoader(
                self.dataset,
                batch_sampler=_Batches(self.order, self.dataset.skip, epoch, first_step, self.epochs),
                num_workers=workers,
                collate_fn=collate,
                return_list=True,
                use_shared_memory=self._fits_shared_memory(workers),
                worker_init_fn=functools.partial(_init_worker, os.getpid()),
            )
        )
        if workers:
            handler = signal.getsignal(signal.SIGCHLD)  # Paddle's, or set below before
            if callable(handler) and getattr(handler, "func", None) is not _on_sigchld:
                signal.signal(signal.SIGCHLD, functools.partial(_on_sigchld, handler))
        _ITERATORS.add(iterator)
        atexit.register(iterator._try_shutdown_all)  # before Paddle's own look for dead workers at the exit
        return _BatchIterator(iterator)

    def _fits_shared_memory(self, workers: int) -> bool:
        """True if /dev/shm can hold the batches in flight; else they are sent through pipes."""
        clip = int(np.prod(self.dataset.clip_shape))
        needed = (2 * workers + 2) * self.order.clips_at_once() * clip
        try:
            free = shutil.disk_usage("/dev/shm").free
        except OSError:
            return True  # not Linux, where Paddle does not use it either
        if free >= needed:
            return True
        if not self.shm_warned:
            logger.warning(
                "/dev/shm has %d MB free, %d MB are needed: batches travel through pipes, which is slower "
                "(docker run --shm-size, or fewer num_reader_threads)", free >> 20, needed >> 20,
            )  # fmt: skip
            self.shm_warned = True
        return False


class _BatchIterator:
    """Collated batches of a running DataLoader, with UserError where a worker was killed; `close` ends the workers."""

    def __init__(self, iterator: Any) -> None:
        self.iterator, self.maker = iterator, os.getpid()

    def __next__(self) -> Collated:
        if os.getpid() != self.maker:
            raise UserError("a forked process cannot go on with the clips that its parent reads: begin anew in it")
        try:
            return next(self.iterator)
        except (RuntimeError, SystemError) as error:  # of Paddle, where a worker was killed
            raise _worker_gone(error) from None

    def close(self) -> None:
        atexit.unregister(self.iterator._try_shutdown_all)
        self.iterator._try_shutdown_all()

    __del__ = close


def _keep_iterators() -> None:
    """Keep a forked process from freeing the parent's iterators and from shutting their workers down.

    Freeing one would wait for the threads of its buffer, which a forked process does not have; an extra reference
    prevents that. Paddle itself also keeps the last iterator that read in a thread.
    """
    paddles = sys.modules.get("paddle.io.dataloader.dataloader_iter")
    for iterator in {*_ITERATORS, getattr(paddles, "_loader", None)} - {None}:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(iterator))
        atexit.unregister(iterator._try_shutdown_all)
        iterator._shutdown = True


os.register_at_fork(after_in_child=_keep_iterators)


class _Batches:
    """Batch sampler of paddle.io.DataLoader: lists of (epoch, index, reason to skip the clip or "")."""

    def __init__(self, order: EpochOrder, skip: dict[int, str], epoch: int, first_step: int, epochs: int) -> None:
        self.order, self.skip = order, skip
        self.epoch, self.first_step, self.epochs = epoch, first_step, epochs

    def __iter__(self) -> Iterator[list[tuple[int, int, str]]]:
        for epoch in range(self.epoch, max(self.epoch + 1, self.epochs)):
            batches = self.order.batches(epoch)
            for batch in batches[self.first_step if epoch == self.epoch else 0 :]:
                # Looked up now: the workers do not see what is added later.
                yield [(*place, self.skip.get(place[1], "")) for place in batch]


def _worker_gone(error: Exception) -> UserError:
    return UserError(
        "a reading process was killed, perhaps for lack of memory: fewer num_reader_threads or a smaller batch_size "
        f"may help ({last_line(error)})"
    )


def _on_sigchld(paddles: Callable[[int, Any], Any], number: int, frame: Any) -> None:
    """Call Paddle's SIGCHLD handler, which looks for dead workers. Raises UserError for them."""
    try:
        paddles(number, frame)
    except (RuntimeError, SystemError) as error:
        raise _worker_gone(error) from None


def _end_worker(*_: object) -> None:
    core._cleanup_mmap_fds()  # segments in /dev/shm
    os._exit(1)


def _init_worker(parent: int, _: int) -> None:
    for number in (signal.SIGINT, signal.SIGHUP):  # handled by the main process, which ends its workers
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_worker)
    set_parent_death_signal(parent, signal.SIGTERM)  # a worker does not notice by itself


def collate(samples: Sequence[Sample]) -> Collated:
    """Collate samples to (clips, labels, indices, errors, fatal).

    clips and labels are arrays of the clips read, errors (index, reason, quarantine) of the others, fatal the
    traceback of a bug or "".
    """
    good = [(sample, sample.clip) for sample in samples if sample.clip is not None]
    errors = [(sample.index, sample.error, sample.quarantine) for sample in samples if sample.error]
    fatal = next((sample.fatal for sample in samples if sample.fatal), "")
    if not good:  # the loader's shared memory takes no empty array
        return np.zeros((1, 1), np.uint8), np.zeros(1, np.int64), [], errors, fatal
    # one clip of many views is large, and is not copied
    clips = good[0][1][None] if len(good) == 1 else np.stack([clip for _, clip in good])
    labels = np.array([sample.label for sample, _ in good], np.int64)
    return clips, labels, [sample.index for sample, _ in good], errors, fatal
