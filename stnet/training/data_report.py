"""Data of a fine-tuning run by its features: few-shot accuracy, copies across the lists, doubtful labels, balance."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stnet.config import Config
from stnet.metrics.fewshot import learning_curve
from stnet.metrics.neighbors import class_balance, groups_of, near_duplicates, suspicious_labels
from stnet.models.model import Model
from stnet.reader.loader import build_loader
from stnet.report.data import DataSection, data_section
from stnet.training.feature_cache import FeatureLoader
from stnet.weights.loading import load_model


class ListFeatures(NamedTuple):
    """Features of the readable clips of a list, without augmentation."""

    features: np.ndarray  # float32 [N, C], mean of the backbone's vectors over the segments
    labels: np.ndarray  # int64 [N]
    paths: list[str]


def data_report(config: Config, weights: str, folder: str) -> DataSection:
    """Compare training and validation clips by the features of the backbone.

    Args:
        config: with the lists.
        weights: that were trained with this backbone.
        folder: TRAIN.feature_cache of the run.
    """
    model = load_model(config, "test", weights).model
    train = features_of_list(config, model, config.TRAIN.filelist, folder)
    valid = features_of_list(config, model, config.VALID.filelist, folder)
    groups = groups_of(len(train.features), near_duplicates(train.features))
    return data_section(
        learning_curve(train.features, train.labels, valid.features, valid.labels),
        near_duplicates(valid.features, train.features),
        suspicious_labels(train.features, train.labels, groups=groups),
        class_balance(train.labels, config.MODEL.num_classes),
        train.paths,
        valid.paths,
    )


def features_of_list(config: Config, model: Model, filelist: str, folder: str) -> ListFeatures:
    """Read the features of a list's clips from the cache, or compute them."""
    loader = FeatureLoader(build_loader(config, "valid", filelist=filelist), folder)
    loader.prepare(model)
    rows = [(index, loader.features_of((0, index))) for index in range(len(loader.dataset.clips))]
    there = [(index, *row) for index, row in rows if row]
    return ListFeatures(
        np.stack([features.mean(axis=0) for _, features, _ in there]),
        np.array([label for *_, label in there], np.int64),
        [loader.dataset.clips[index].name for index, *_ in there],
    )
