"""A clip format and a metric from outside: `--plugin tests/toys/reading.py -o MODEL.format=npy`."""

import numpy as np

from stnet import FORMATS, METRICS, Format, Metric


@FORMATS.register("npy")
class Arrays(Format):
    """An array of frames, uint8 [N, H, W, 3] RGB; the label stands in the list."""

    def read(self, path, sink, decoder=""):
        frames = np.load(path)
        for row, number in enumerate(sink.begin(len(frames))):
            sink.put(row, frames[number])


@METRICS.register("CLASS_MEAN")
class ClassMean(Metric):
    """The mean over the classes of the share of clips that the first choice is right for."""

    def __init__(self):
        self.hits = {}  # class -> hits, clips

    def update(self, logits, labels):
        for label, choice in zip(labels.tolist(), logits.argmax(axis=1).tolist()):
            hits, clips = self.hits.get(label, (0, 0))
            self.hits[label] = hits + (choice == label), clips + 1

    def state(self):
        return self.hits

    def merge(self, states):
        states = list(states)
        labels = {label for state in states for label in state}
        self.hits = {
            label: tuple(sum(state.get(label, (0, 0))[i] for state in states) for i in (0, 1)) for label in labels
        }

    def result(self):
        return {"CLASS_MEAN_ACC": sum(hits / clips for hits, clips in self.hits.values()) / len(self.hits)}
