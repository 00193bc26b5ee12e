"""Evaluations and pages for the tests of what people look at."""

import numpy as np

from stnet.evaluation.report import write_report
from stnet.evaluation.results import Evaluation
from stnet.reader.dataset import VideoListDataset
from stnet.reader.formats import Clip


def random_evaluation(num_classes, clips, names=None, paths=None):
    """An Evaluation of random scores that know something of the label; the first classes have most clips."""
    rng = np.random.RandomState(0)
    labels = (num_classes * rng.rand(clips) ** 3).astype(np.int64)
    logits = rng.randn(clips, num_classes).astype(np.float32)
    logits[np.arange(clips), labels] += 2 * rng.rand(clips)
    names = names or [f"class {i}" for i in range(num_classes)]
    paths = paths or [f"/data/clips/{names[label]}/clip {i:06d}.mp4" for i, label in enumerate(labels)]
    return Evaluation(paths, labels, logits, names, [("/data/broken.mp4", "it has no frame")])


def write(path, evaluation, config):
    """report.html of an evaluation whose clips cannot be read again."""
    clips = [Clip(name, 0) for name in evaluation.paths]
    dataset = VideoListDataset(clips, config.section("test"))
    dataset.skip = dict.fromkeys(range(len(clips)), "no such file")
    scores = {"TOP1_ACC": 0.5, "TOP5_ACC": 0.75, "loss": 1.25, "count": len(clips)}
    write_report(path, evaluation, scores, [("Weights", "a & b.pdparams")], config, dataset)
    return path
