"""The order of an epoch: which clips each step reads, on each rank."""

from __future__ import annotations

import random

_EVAL_BATCH = 16  # clips, at most
Place = tuple[int, int]  # (epoch, index in the list)


class EpochOrder:
    """Which clips each step of an epoch reads on one rank; over all ranks an epoch leaves no clip out.

    Training: global batches are cut from the shuffled list and dealt out clip by clip. The last batch is filled up
    with the epoch's first clips: batch norm, which takes its statistics from each batch, sees none that is smaller.
    Only a list shorter than a batch is a smaller one.

    Evaluation: whole batches, of 16 clips at most, are dealt out, in the order of the list, each clip once. What is
    computed together does not depend on the number of ranks, and so neither do the results, to the last bit. With
    several views of each clip a batch holds as many fewer clips, but one at least.

    Args:
        clips: how many there are.
        batch_size: over all ranks.
        shuffle: training.
        seed: of the order.
        rank, ranks: this process, and how many share each batch.
        views: of each clip, in evaluation.

    Attributes:
        computed_at_once: views that are to be computed together in evaluation, at most.
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
        batches = [[(epoch, i) for i in order[start : start + self.batch_size]] for start in self.starts()]
        if self.shuffle:
            return [batch[self.rank :: self.ranks] for batch in batches]
        return batches[self.rank :: self.ranks]

    def __len__(self) -> int:
        """Batches of this rank in an epoch."""
        return len(self.starts()) if self.shuffle else len(self.starts()[self.rank :: self.ranks])

    def clips_at_once(self) -> int:
        """Clips that a batch of this rank holds, at most."""
        return -(-self.batch_size // self.ranks) if self.shuffle else self.batch_size

    def starts(self) -> list[int]:
        """Position in an epoch's order of the first clip of each global batch."""
        return list(range(0, self.clips, self.batch_size))
