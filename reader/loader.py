"""From a configuration to batches: the list, the order of an epoch, worker processes, and what to do with bad clips."""

import logging
import random
from typing import NamedTuple

import numpy as np

from core.errors import UserError
from reader.kinetics import READERS, list_folder
from reader.lists import list_videos, read_list

logger = logging.getLogger("stnet")


class Batch(NamedTuple):
    """Clips of one step; a clip that could not be read is not in it."""

    clips: object  # paddle.Tensor uint8 [B, seg_num, 3 * seglen, H, W]
    labels: object  # paddle.Tensor int64 [B]
    indices: list  # B positions in the list


def build_loader(config, mode, rank=0, ranks=1, seed=0, filelist="", video_path=""):
    """The loader of a mode.

    Args:
        config: core.config.Config.
        mode: "train" shuffles and augments; "valid", "test" and "infer" read the list in order.
        rank, ranks: this process, and how many share each batch. The section's batch_size is the global one.
        seed: of order and augmentation.
        filelist: replaces the section's.
        video_path: a video or a folder of videos, instead of a list ("infer").

    Returns:
        Loader.
    """
    section, model = config.section(mode), config.MODEL
    filelist = filelist or section.filelist
    if video_path:
        clips, folder, clip_format = list_videos(video_path), "", "mp4"
    else:
        labelled = mode != "infer"
        clips = read_list(filelist, model.format, labelled, model.num_classes if labelled else None)
        folder, clip_format = list_folder(filelist), model.format
    dataset = READERS.get("KINETICS")(
        clips, section, clip_format, mode == "train", seed, folder, model.num_classes if mode != "infer" else None
    )
    order = EpochOrder(len(clips), section.batch_size, mode == "train", seed, rank, ranks)
    allowed = 1.0 if mode == "infer" else section.max_bad_ratio
    return Loader(dataset, order, section.num_reader_threads, BadClips(clips, allowed))


class EpochOrder:
    """Which clips each step of an epoch reads on one rank.

    Global batches are cut from the (shuffled) list and dealt out to the ranks in turn; each clip comes once per
    epoch. What is left at the end is a smaller batch; if it is smaller than the number of ranks it joins the
    batch before it, so that every rank takes the same number of steps.
    """

    def __init__(self, clips, batch_size, shuffle, seed=0, rank=0, ranks=1):
        self.clips, self.batch_size, self.shuffle, self.seed = clips, batch_size, shuffle, seed
        self.rank, self.ranks = rank, ranks

    def batches(self, epoch):
        """List of this rank's batches, each a list of (epoch, index)."""
        order = list(range(self.clips))
        if self.shuffle:
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
        cuts = self._cuts()
        ends = cuts[1:] + [self.clips]
        return [[(epoch, i) for i in order[start:end][self.rank :: self.ranks]] for start, end in zip(cuts, ends)]

    def __len__(self):
        """Batches in an epoch, the same on every rank."""
        return len(self._cuts())

    def _cuts(self):
        cuts = list(range(0, self.clips, self.batch_size))
        if self.shuffle and len(cuts) > 1 and self.clips - cuts[-1] < self.ranks:
            cuts.pop()
        return cuts


class BadClips:
    """Clips that could not be read: named once, counted, and fatal when they are too many."""

    def __init__(self, clips, allowed_ratio):
        self.clips = clips
        self.allowed = allowed_ratio * len(clips)
        self.reasons = {}

    def add(self, index, reason):
        """Note a bad clip. Raises UserError when more than the allowed share of the list is bad."""
        if index in self.reasons:
            return
        self.reasons[index] = reason
        logger.warning("skipped %s: %s", self.clips[index].path, reason)
        if len(self.reasons) > self.allowed:
            raise UserError(
                f"{len(self.reasons)} of the {len(self.clips)} clips in the list cannot be read, more than "
                f"max_bad_ratio allows; the last one: {self.clips[index].path}: {reason}"
            )

    def log_total(self):
        """One line: how many clips of the list were bad."""
        logger.info("clips that could not be read: %d of %d", len(self.reasons), len(self.clips))

    def summary(self):
        """Plain data for result files: path and reason of each bad clip."""
        return [{"path": self.clips[i].path, "reason": reason} for i, reason in sorted(self.reasons.items())]


class Loader:
    """Batches of an epoch, read by worker processes.

    Args:
        dataset: answers dataset[(epoch, index)] with a Sample.
        order: EpochOrder.
        workers: worker processes; 0 reads in this one.
        bad: BadClips.
    """

    def __init__(self, dataset, order, workers, bad):
        self.dataset, self.order, self.bad = dataset, order, bad
        self.workers = workers

    def __len__(self):
        """Steps in an epoch."""
        return len(self.order)

    def epoch(self, number=0, first_step=0):
        """Iterate over the batches of an epoch, from a step on. A batch of bad clips only is left out.

        Raises:
            UserError: too many clips are bad, or none could be read.
        """
        from paddle.io import DataLoader

        batches = [batch for batch in self.order.batches(number)[first_step:] if batch]
        if not batches:
            return
        workers = min(self.workers, len(batches))
        loader = DataLoader(
            self.dataset, batch_sampler=batches, num_workers=workers, collate_fn=collate, return_list=True
        )
        read = 0
        for clips, labels, indices, errors in loader:
            for index, reason in errors:
                self.bad.add(index, reason)
            read += len(indices)
            if indices:
                yield Batch(clips, labels, indices)
        if not read:
            index, reason = next(iter(self.bad.reasons.items()))
            raise UserError(f"no clip could be read; the first: {self.bad.clips[index].path}: {reason}")


def collate(samples):
    """Samples as (clips, labels, indices, errors): arrays of the clips read, and (index, reason) of the others."""
    good = [sample for sample in samples if not sample.error]
    errors = [(sample.index, sample.error) for sample in samples if sample.error]
    if not good:  # the loader's shared memory takes no empty array
        return np.zeros((1, 1), np.uint8), np.zeros(1, np.int64), [], errors
    clips = np.stack([sample.clip for sample in good])
    labels = np.array([sample.label for sample in good], np.int64)
    return clips, labels, [sample.index for sample in good], errors
