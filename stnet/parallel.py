"""Several processes, one for each card (or CPU rank), on Paddle's own distributed engine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import numpy as np
import paddle

from stnet.utils.errors import UserError
from stnet.utils.signals import Process

Value = TypeVar("Value")

_launchers: list[Process] = []


def start() -> tuple[int, int]:
    """Join the other ranks that paddle.distributed.launch started. Returns (rank, ranks); (0, 1) when alone.

    Raises UserError if they were started for GPUs that this Paddle cannot use.
    """
    if "PADDLE_TRAINER_ID" in os.environ:
        above = [os.getppid(), os.environ.get("STNET_RUN_SH")]
        _launchers[:] = [Process(number) for number in above if number]
    if ranks() > 1 and not paddle.distributed.is_initialized():
        paddle.distributed.parallel._print_modified_flags = lambda flags: None  # Paddle itself has modified them
        paddle.distributed.init_parallel_env()
        if not paddle.distributed.is_initialized():  # Paddle has no backend to connect them
            cards = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            raise UserError(
                f"{ranks()} processes were started for GPUs ({cards}), and no GPU works here",
                "unset CUDA_VISIBLE_DEVICES, or set use_gpu=False, to run on the CPU",
            )
    return rank(), ranks()


def rank() -> int:
    """Number of this process among the ranks, known before they are joined."""
    return int(os.environ.get("PADDLE_TRAINER_ID") or 0)


def ranks() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM") or 1)


def launchers() -> list[Process]:
    """Processes that this rank must not outlive: the launcher, and the run.sh that started it. [] when alone."""
    return _launchers


def gather(value: Value) -> list[Value]:
    """Gather `value` (plain data) of every rank, in the order of ranks."""
    if ranks() == 1:
        return [value]
    values: list[Value] = []
    paddle.distributed.all_gather_object(values, value)
    return values


def run_on_rank0(decide: Callable[[], Value]) -> Value:
    """Call `decide()` on rank 0 alone and return its result on every rank; every rank raises its UserError, too."""
    outcome: tuple[Any, tuple[str, str] | None] = None, None
    if rank() == 0:
        try:
            outcome = decide(), None
        except UserError as error:
            outcome = None, (str(error), error.hint)
    decision, problem = gather(outcome)[0]
    if problem:
        raise UserError(*problem)
    return decision


def max_over_ranks(flag: int) -> int:
    """The largest `flag` (a small integer) of all ranks."""
    if ranks() == 1:
        return flag
    tensor = paddle.to_tensor(np.array([flag], "int32"))
    paddle.distributed.all_reduce(tensor, op=paddle.distributed.ReduceOp.MAX)
    return int(tensor.numpy()[0])


def total(number: int) -> paddle.Tensor:
    """Sum of `number` over all ranks, a scalar that stays on the device, so that nothing waits for it."""
    tensor = paddle.to_tensor([float(number)])
    paddle.distributed.all_reduce(tensor)
    return tensor.reshape([])


@contextlib.contextmanager
def raise_on_all_ranks() -> Iterator[None]:
    """Context whose UserError every rank raises, so that none waits for one that has ended. No collectives in it."""
    failure = None
    try:
        yield
    except UserError as error:
        failure = error
    reasons = gather((str(failure), failure.hint) if failure else None)
    if failure:
        raise failure
    for number, reason in enumerate(reasons):
        if reason:
            raise UserError(f"rank {number} cannot start: {reason[0]}", reason[1])


def require_equal_across_ranks(facts: Mapping[str, float | str]) -> None:
    """Raise UserError on all ranks unless `facts`, by name, are equal on all."""
    first, *others = gather(facts)
    for number, other in enumerate(others, start=1):
        differing = [f"{name} {other[name]} and not {value}" for name, value in first.items() if other[name] != value]
        if differing:
            fact = f"rank {number} would start otherwise than rank 0: {', '.join(differing)}"
            raise UserError(fact, "every machine must see the same lists, weights and save_dir")


def share_statistics(network: paddle.nn.Layer) -> None:
    """Broadcast the batch-norm statistics of rank 0, which are saved, to all ranks."""
    if ranks() > 1:
        for name, value in network.state_dict().items():
            if name.endswith(("._mean", "._variance")):
                paddle.distributed.broadcast(value, src=0)
