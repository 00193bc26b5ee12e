"""Order of an epoch: the clips of each step, on each rank."""

from __future__ import annotations

import random

_EVAL_BATCH = 16  # clips, at most
Place = tuple[int, int]  # (epoch, index in the list)


class EpochOrder:
    """Clips of each step of an epoch on one rank; over all ranks an epoch has every clip.

    Training: global batches are cut from the shuffled list and divided among the ranks clip by clip. The last batch is
    filled up with the epoch's first clips, for the statistics of batch norm. Only a list shorter than a batch is a
    smaller one.

    Evaluation: batches of 16 views at most, and one clip at least, go to the ranks in turn, in the order of the list,
    each clip once. The batches do not depend on the number of ranks, and so neither do the results, bit for bit.

    Args:
        clips: in the list.
        batch_size: over all ranks.
        shuffle: training.
        seed: of the order.
        rank, ranks: this process, and the number of processes.
        views: of each clip, in evaluation.

    Attributes:
        computed_at_once: views in a batch of evaluation, at most.
    """

    def __init__(
        self, clips: int, batch_size: int, shuffle: bool, seed: int = 0, rank: int = 0, ranks: int = 1, views: int = 1
    ) -> None:
        self.clips, self.shuffle, self.seed = clips, shuffle, seed
        self.computed_at_once = min(batch_size, _EVAL_BATCH)
        self.batch_size = batch_size if shuffle else max(1, self.computed_at_once // views)
        self.rank, self.ranks = rank, ranks

    def batches(self, epoch: int) -> list[list[Place]]:
        """This rank's batches."""
        order = list(range(self.clips))
        if self.shuffle:
            random.Random(f"{self.seed}/{epoch}").shuffle(order)
            if self.clips > self.batch_size:
                order += order[: -self.clips % self.batch_size]
        places = [(epoch, index) for index in order]
        batches = [places[start : start + self.batch_size] for start in self.starts()]
        if self.shuffle:
            return [batch[self.rank :: self.ranks] for batch in batches]
        return batches[self.rank :: self.ranks]

    def __len__(self) -> int:
        """Number of batches of this rank in an epoch."""
        return len(self.starts()) if self.shuffle else len(self.starts()[self.rank :: self.ranks])

    def clips_at_once(self) -> int:
        """Largest batch of this rank, in clips."""
        return -(-self.batch_size // self.ranks) if self.shuffle else self.batch_size

    def starts(self) -> list[int]:
        """Position of the first clip of each global batch in an epoch."""
        return list(range(0, self.clips, self.batch_size))
