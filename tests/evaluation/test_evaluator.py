"""The loop over clips: what engines and metrics of others may give, and what is refused at once."""

import numpy as np
import pytest

from stnet.config import load_config
from stnet.evaluation.loop import evaluate
from stnet.evaluation.results import Collector
from stnet.metrics import Metric, TopK
from stnet.models import model_section
from stnet.reader.loader import build_loader
from stnet.utils.errors import UserError


class Named(Metric):
    """Scores of given names, from the second clip on."""

    names = ("ECE",)

    def __init__(self):
        self.count = 0

    def update(self, logits, labels):
        self.count += len(labels)

    def state(self):
        return self.count

    def merge(self, states):
        self.count = sum(states)

    def result(self):
        return {name: np.float32(self.count) for name in self.names}


class Later(Named):
    def result(self):
        if self.count < 6:
            raise ZeroDivisionError
        return super().result()


def loader_of(clip_set):
    return build_loader(load_config(clip_set / "tiny.yaml", model_section, ["TEST.batch_size=2"]), "test")


def logits_of(num_classes, batches):
    def engine(clips):
        batches.append(len(clips))
        return np.zeros((len(clips), num_classes), np.float32)

    return engine


@pytest.mark.parametrize("collected", [False, True])
def test_an_engine_of_other_classes_is_one_line(clip_set, collected):
    loader = loader_of(clip_set)
    collector = Collector("abcd", loader.bad) if collected else None
    with pytest.raises(UserError, match=r"^the engine gave logits \[3\] of 4 classes$"):
        evaluate(logits_of(3, []), loader, collector=collector)


@pytest.mark.parametrize(("metric", "batches"), [(Named, 1), (Later, 3)])
def test_a_reserved_name_is_refused_after_the_first_batch_if_it_is_known_then(clip_set, metric, batches):
    seen = []
    with pytest.raises(UserError, match=f"^{metric.__name__} gives a score of a reserved name: ECE$"):
        evaluate(logits_of(4, seen), loader_of(clip_set), metrics=(TopK, metric), reserved=("ECE", "files"))
    assert len(seen) == batches


def test_a_name_of_another_metric_is_refused_after_the_first_batch(clip_set):
    class Count(Named):
        names = ("count",)

    seen = []
    with pytest.raises(UserError, match="^Count gives a score that another metric has: count$"):
        evaluate(logits_of(4, seen), loader_of(clip_set), metrics=(TopK, Count))
    assert seen == [2]


def test_scores_are_plain_numbers(clip_set):
    scores = evaluate(logits_of(4, []), loader_of(clip_set), metrics=(TopK, Later))
    assert (scores["count"], scores["ECE"]) == (6, 6.0)
    assert {type(score) for score in scores.values()} == {int, float}
