"""From a configuration to batches: the list, the order of an epoch, worker processes, and what to do with bad clips."""

import atexit
import functools
import logging
import os
import random
import shutil
import signal
from typing import NamedTuple

import numpy as np
from paddle.base import core

from core.errors import UserError
from core.processes import die_with_parent
from reader.kinetics import READERS, list_folder
from reader.lists import Clip, list_videos, read_list

logger = logging.getLogger("stnet")
_EVAL_BATCH = 16
_NAMES = {"encoding": "utf-8", "errors": "surrogateescape"}  # file names need not be UTF-8


class Batch(NamedTuple):
    """Clips of one step; a clip that could not be read is not in it."""

    clips: object  # paddle.Tensor uint8 [B, seg_num, 3 * seglen, H, W]
    labels: object  # paddle.Tensor int64 [B]
    indices: list  # B positions in the list


def build_loader(config, mode, rank=0, ranks=1, seed=0, filelist="", video_path="", quarantine="", paths=()):
    """The loader of a mode.

    Args:
        config: core.config.Config.
        mode: "train" shuffles and augments; "valid", "test" and "infer" read the list in order.
        rank, ranks: this process, and how many share each batch. The section's batch_size is the global one.
        seed: of order and augmentation.
        filelist: replaces the section's.
        video_path: a video or a folder of videos, instead of a list ("infer").
        quarantine: file of clips that hung or crashed the decoder before; they are left out, and new ones added.
        paths: clips of the format MODEL.format, instead of a list ("infer").

    Returns:
        Loader.
    """
    section, model = config.section(mode), config.MODEL
    filelist = filelist or section.filelist
    if video_path:
        clips, folder, clip_format = list_videos(video_path), "", "mp4"
    elif paths:
        clips, folder, clip_format = [Clip(os.fspath(path), -1) for path in paths], "", model.format
    else:
        labelled = mode != "infer"
        clips = read_list(filelist, model.format, labelled, model.num_classes if labelled else None)
        folder, clip_format = list_folder(filelist), model.format
    dataset = READERS.get("KINETICS")(
        clips, section, clip_format, mode == "train", seed, folder, model.num_classes if mode != "infer" else None
    )
    order = EpochOrder(len(clips), section.batch_size, mode == "train", seed, rank, ranks)
    allowed = 1.0 if mode == "infer" else section.max_bad_ratio
    bad = BadClips(clips, allowed, quarantine)
    dataset.skip = bad.quarantined()
    return Loader(dataset, order, section.num_reader_threads, bad, section.epoch if mode == "train" else 0)


class EpochOrder:
    """Which clips each step of an epoch reads on one rank; each clip comes once per epoch over all ranks.

    Training: global batches are cut from the shuffled list and dealt out clip by clip. What is left at the end is
    a smaller batch; if it is smaller than the number of ranks it joins the batch before it, so that every rank
    takes the same number of steps.

    Evaluation: whole batches, of 16 clips at most, are dealt out, in the order of the list. What is computed
    together does not depend on the number of ranks, and so neither do the results, to the last bit.
    """

    def __init__(self, clips, batch_size, shuffle, seed=0, rank=0, ranks=1):
        self.clips, self.shuffle, self.seed = clips, shuffle, seed
        self.batch_size = batch_size if shuffle else min(batch_size, _EVAL_BATCH)
        self.rank, self.ranks = rank, ranks

    def batches(self, epoch):
        """List of this rank's batches, each a list of (epoch, index)."""
        order = list(range(self.clips))
        cuts = self.starts()
        if self.shuffle:
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
        ends = cuts[1:] + [self.clips]
        batches = [[(epoch, i) for i in order[start:end]] for start, end in zip(cuts, ends)]
        if self.shuffle:
            return [batch[self.rank :: self.ranks] for batch in batches]
        return batches[self.rank :: self.ranks]

    def __len__(self):
        """Batches of this rank in an epoch."""
        return len(self.starts()) if self.shuffle else len(self.starts()[self.rank :: self.ranks])

    def clips_at_once(self):
        """Clips that a batch of this rank holds, at most."""
        return -(-self.batch_size // self.ranks) if self.shuffle else self.batch_size

    def starts(self):
        """Position in an epoch's order of the first clip of each global batch."""
        cuts = list(range(0, self.clips, self.batch_size))
        if self.shuffle and len(cuts) > 1 and self.clips - cuts[-1] < self.ranks:
            cuts.pop()
        return cuts


def allowed_bad(ratio, clips):
    """How many of a list's clips may be bad: the share `ratio`, and, unless that is 0, at least one."""
    return max(1, ratio * clips) if ratio else 0


class BadClips:
    """Clips that could not be read: named once, counted, and fatal when they are too many.

    Args:
        clips: the list.
        allowed_ratio: share of the list that may be bad.
        quarantine: file that keeps the clips which hung or crashed the decoder, `PATH<tab>REASON` a line, or "".
    """

    def __init__(self, clips, allowed_ratio, quarantine=""):
        self.clips = clips
        self.allowed = allowed_bad(allowed_ratio, len(clips))
        self.quarantine = quarantine
        self.reasons = {}

    def add(self, index, reason, quarantine=False):
        """Note a bad clip. Raises UserError when more than the allowed share of the list is bad."""
        if index in self.reasons:
            return
        self.reasons[index] = reason
        logger.warning("skipped %s: %s", self.clips[index].path, reason)
        if quarantine and self.quarantine:
            with open(self.quarantine, "a", **_NAMES) as file:
                file.write(f"{self.clips[index].path}\t{reason}\n")
        if len(self.reasons) > self.allowed:
            raise UserError(
                f"{len(self.reasons)} of the {len(self.clips)} clips in the list cannot be read, more than "
                f"max_bad_ratio allows; the last one: {self.clips[index].path}: {reason}"
            )

    def quarantined(self):
        """Index -> reason of the clips in the quarantine file."""
        if not self.quarantine or not os.path.exists(self.quarantine):
            return {}
        with open(self.quarantine, **_NAMES) as file:
            lines = dict(line.rstrip("\n").partition("\t")[::2] for line in file if line.strip())
        found = {i: f"in quarantine: {lines[clip.path]}" for i, clip in enumerate(self.clips) if clip.path in lines}
        if found:
            logger.info("%s: %d clips of the list are left out", self.quarantine, len(found))
        return found

    def log_total(self):
        """One line: how many clips of the list were bad."""
        logger.info("clips that could not be read: %d of %d", len(self.reasons), len(self.clips))

    def summary(self):
        """Plain data for result files: path and reason of each bad clip."""
        return [{"path": self.clips[i].path, "reason": reason} for i, reason in sorted(self.reasons.items())]


class Loader:
    """Batches of an epoch, read ahead by worker processes, and on a GPU copied there ahead.

    In training the workers stay from one epoch to the next, which they begin while validation runs; `close` ends them.

    Args:
        dataset: answers dataset[(epoch, index, reason to skip it)] with a Sample.
        order: EpochOrder.
        workers: worker processes; 0 reads in this one.
        bad: BadClips.
        epochs: of training; 0 where each epoch is asked for by itself.
    """

    def __init__(self, dataset, order, workers, bad, epochs=0):
        self.dataset, self.order, self.bad = dataset, order, bad
        self.workers, self.epochs = workers, epochs
        self.stream = None  # what the workers read, from `place` on
        self.place = None  # (epoch, step) that comes next
        self.shm_warned = False

    def __len__(self):
        """Steps in an epoch."""
        return len(self.order)

    def set_seed(self, seed):
        """Order and augmentation of another run."""
        self.close()
        self.order.seed = self.dataset.seed = seed

    def epoch(self, number=0, first_step=0):
        """Iterate over the batches of an epoch, from a step on.

        A batch of bad clips only has no indices; its clips and labels mean nothing.

        Raises:
            UserError: too many clips are bad, none could be read, or a reading process was killed.
            RuntimeError: a bug in the reader, with its traceback and the clip.
        """
        self.start(number, first_step)
        self.place = None
        read, steps = 0, len(self.order) - first_step
        try:
            for _ in range(steps):
                batch = self._checked(*next(self.stream))
                read += len(batch.indices)
                yield batch
            self.place = (number + 1, 0)
        finally:
            if self.place is None or number + 1 >= self.epochs:
                self.close()
        if steps and not read:
            index, reason = next(iter(self.bad.reasons.items()))
            raise UserError(f"no clip could be read; the first: {self.bad.clips[index].path}: {reason}")

    def start(self, number=0, first_step=0):
        """Begin to read an epoch from a step on, before `epoch` asks for it: while something else is done."""
        if self.stream is None or self.place != (number, first_step):
            self.close()
            self.stream, self.place = self._collated(number, first_step), (number, first_step)

    def close(self):
        """End the worker processes."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def _checked(self, clips, labels, indices, errors, fatal):
        """A Batch of what came from a worker; notes the bad clips."""
        if fatal:
            raise RuntimeError(f"the reader failed at {fatal}")
        for index, reason, quarantine in errors:
            self.bad.add(index, reason, quarantine)
            if quarantine:
                self.dataset.skip[index] = reason
        return Batch(clips, labels, indices)

    def _collated(self, epoch, first_step):
        """Iterator over what `collate` makes of each batch of an epoch from a step on, and of the epochs after it."""
        from paddle.io import DataLoader

        workers = min(self.workers, len(self.order))
        self.dataset.isolate = workers > 0
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
        atexit.register(iterator._try_shutdown_all)  # before Paddle's own look for dead workers at the exit
        return _Stream(iterator)

    def _fits_shared_memory(self, workers):
        """Whether /dev/shm can hold the batches in flight; where it cannot, they travel through pipes."""
        clip = int(np.prod(self.dataset.clip_shape))
        needed = (2 * workers + 2) * self.order.clips_at_once() * clip
        try:
            free = shutil.disk_usage("/dev/shm").free
        except OSError:
            return True  # no such folder: not Linux, and not Paddle's way either
        if free >= needed:
            return True
        if not self.shm_warned:
            logger.warning(
                "/dev/shm has %d MB free, %d MB are needed: batches travel through pipes, which is slower "
                "(docker run --shm-size, or fewer num_reader_threads)",
                free >> 20,
                needed >> 20,
            )
            self.shm_warned = True
        return False


class _Stream:
    """The batches of a running DataLoader, in plain words where a worker is gone; `close` ends its workers."""

    def __init__(self, iterator):
        self.iterator = iterator

    def __next__(self):
        try:
            return next(self.iterator)
        except (RuntimeError, SystemError) as error:  # what Paddle raises for a worker that is gone
            raise UserError(
                "a reading process was killed, perhaps for lack of memory: fewer num_reader_threads or a smaller "
                f"batch_size may help ({_first_line(error)})"
            ) from None

    def close(self):
        atexit.unregister(self.iterator._try_shutdown_all)
        self.iterator._try_shutdown_all()

    __del__ = close


class _Batches:
    """The batches to read, for paddle.io.DataLoader: lists of (epoch, index, reason to skip the clip or "")."""

    def __init__(self, order, skip, epoch, first_step, epochs):
        self.order, self.skip = order, skip
        self.epoch, self.first_step, self.epochs = epoch, first_step, epochs

    def __iter__(self):
        for epoch in range(self.epoch, max(self.epoch + 1, self.epochs)):
            batches = self.order.batches(epoch)
            for batch in batches[self.first_step if epoch == self.epoch else 0 :]:
                # Looked up when the batch is due: the workers do not see what is added later.
                yield [(*place, self.skip.get(place[1], "")) for place in batch]


def _end_worker(*_):
    core._cleanup_mmap_fds()  # Paddle's segments in /dev/shm
    os._exit(1)


def _init_worker(parent, _):
    for number in (signal.SIGINT, signal.SIGHUP):  # for the main process, which ends its workers in order
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end_worker)
    die_with_parent(parent, signal.SIGTERM)  # on its own a worker whose main process is gone can wait for ever


def _first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip("- ")]
    return lines[-1][:200] if lines else type(error).__name__


def collate(samples):
    """Samples as (clips, labels, indices, errors, fatal).

    clips and labels are arrays of the clips read, errors (index, reason, quarantine) of the others, fatal the
    traceback of a bug or "".
    """
    good = [sample for sample in samples if sample.clip is not None]
    errors = [(sample.index, sample.error, sample.quarantine) for sample in samples if sample.error]
    fatal = next((sample.fatal for sample in samples if sample.fatal), "")
    if not good:  # the loader's shared memory takes no empty array
        return np.zeros((1, 1), np.uint8), np.zeros(1, np.int64), [], errors, fatal
    clips = np.stack([sample.clip for sample in good])
    labels = np.array([sample.label for sample in good], np.int64)
    return clips, labels, [sample.index for sample in good], errors, fatal
