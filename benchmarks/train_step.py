"""A training step, from the clips to the updated weights: ours and PyTorch, from the same weights."""

from __future__ import annotations

import sys
from functools import partial

from benchmarks.network import WEIGHTS, Spec, installed, load_model, write_weights
from benchmarks.timer import Prepare, Run, Timer, run


def train_step(timer: Timer) -> None:
    """Time steps, and compare the first losses."""
    # a small learning rate: the clips are noise
    spec = Spec(18, 2, 48, batch=2, rate=1e-3) if timer.quick else Spec(50, 7, 112, batch=2, rate=1e-3)
    timer.call(write_weights, spec)
    contenders: dict[str, Prepare] = {"ours": partial(our_step, spec)}
    if installed("torch", "torchvision"):
        contenders["PyTorch"] = partial(torch_step, spec, timer.threads)
    else:
        print("PyTorch is left out: it needs torch and torchvision")

    timed = timer.time(contenders, warm=2)
    timer.table(f"forward, backward, update: batch {spec.batch}, {spec.text}, {spec.layers} layers, fp32", timed)
    timer.ratio(timed, "ours", "PyTorch", "at most 1.15")
    if len(timed) == 2:
        one, other = (timed[name].result for name in contenders)
        timer.agree(f"first losses of ours ({one:.5f}) - PyTorch ({other:.5f})", abs(one - other), 1e-3)


def our_step(spec: Spec) -> Run:
    """Contender: the step of train.py; gives the loss."""
    model = load_model(spec, "train")
    import paddle

    from stnet.models.normalizer import Normalizer
    from stnet.reader.loader import Batch
    from stnet.training.step import Stepper

    normalize = Normalizer(model.config.MODEL.image_mean, model.config.MODEL.image_std)
    clips = spec.clips()
    stepper = Stepper(model, normalize, (10**6, 2 * 10**6), clips.shape[1:])
    model.network.train()
    batch = Batch(paddle.to_tensor(clips), paddle.arange(spec.batch, dtype="int64"), list(range(spec.batch)))

    def step() -> float:
        (outcome,) = stepper.step([batch])
        return float(outcome.loss)  # as the log lines do; waits for it

    return step


def torch_step(spec: Spec, threads: int) -> Run:
    """Contender: the same step in PyTorch, eager; gives the loss."""
    import torch

    from benchmarks.peers import torch_stnet

    network = torch_stnet.load(WEIGHTS, spec.layers, threads).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=spec.rate, momentum=0.9, weight_decay=1e-4)
    clips, labels = torch.from_numpy(spec.normalised_clips()), torch.arange(spec.batch)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(clips), labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


if __name__ == "__main__":
    sys.exit(run(train_step))
