"""One step of training, from the clips to the updated weights: ours against PyTorch with the same weights.

Ours is engine.stepper's on uint8 clips; PyTorch gets them normalised.
"""

import os

from bench import networks
from bench.child import Work
from bench.measure import Failed, installed, interleave
from bench.results import Part

AIM = 1.15
TOLERANCE = 1e-3  # of the first loss
_OURS, _PEER = "ours", "PyTorch"
_RATE = 1e-3  # small: the labels of noise are not to be learnt


def measure(settings):
    """The Part of this module.

    Args:
        settings: bench.measure.Settings.
    """
    layers, batch, seg_num, size = (18, 2, 2, 48) if settings.quick else (50, 2, 7, 112)
    about = f"forward, backward and update, batch {batch}, {seg_num} x {size} x {size}, {layers} layers, fp32"
    part = Part("train_step", about)
    weights, state = (os.path.join(settings.folder, name) for name in ("weights.pdparams", "weights.pt"))
    settings.call("bench.networks:write_weights", path=weights, layers=layers)
    sizes = {"layers": layers, "batch": batch, "seg_num": seg_num, "size": size}
    factories = {_OURS: ("bench.train_step:ours", {"weights": weights, **sizes})}
    if installed("torch"):
        try:
            settings.call("bench.networks:write_torch", path=state, weights=weights, layers=layers)
            factories[_PEER] = ("bench.train_step:torch", {"state": state, "threads": settings.threads, **sizes})
        except Failed as error:
            part.failures.append(f"the network for PyTorch: {error}")
    else:
        part.notes.append("PyTorch is left out: torch not installed")
    with settings.crew(factories) as contenders:
        timed = interleave(contenders, settings.rounds, warm=2, failures=part.failures)
    part.add("one step", timed, base=_OURS)
    if _OURS in timed and _PEER in timed:
        one, other = timed[_OURS].facts, timed[_PEER].facts
        part.check(f"first losses of ours ({one:.5f}) and PyTorch ({other:.5f})", abs(one - other), TOLERANCE)
        part.aim_ratio("ours / PyTorch", timed[_OURS], timed[_PEER], AIM)
    return part


def ours(weights, layers, batch, seg_num, size):
    """Factory: engine.stepper.Stepper's step; facts are the loss."""
    networks.start()
    import paddle

    from backends.normalizer import Normalizer
    from engine.stepper import Stepper
    from reader.loader import Batch

    model = networks.load_model(layers, seg_num, size, weights, "train", batch=batch, rate=_RATE)
    normalize = Normalizer(model.config.MODEL.image_mean, model.config.MODEL.image_std)
    stepper = Stepper(model, normalize, (10**6, 2 * 10**6), ())
    model.network.train()
    clips = paddle.to_tensor(networks.clips(batch, seg_num, size))
    made = Batch(clips, paddle.arange(batch, dtype="int64"), list(range(batch)))

    def run(_):
        (outcome,) = stepper.step([made])
        return float(outcome.loss)  # as the log lines do; waits for it

    return Work(run, lambda loss: loss)


def torch(state, threads, layers, batch, seg_num, size):
    """Factory: the same in PyTorch, eager; facts are the loss."""
    import torch

    network = networks.load_torch(state, layers, threads).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=_RATE, momentum=0.9, weight_decay=1e-4)
    clips = torch.from_numpy(networks.normalised(networks.clips(batch, seg_num, size)))
    labels = torch.arange(batch)

    def run(_):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(clips), labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return Work(run, lambda loss: loss)
