"""Features of clips on disk: with a frozen backbone, an epoch of training needs no video and no backbone.

The pooled vectors of a clip, float32 [seg_num, C], depend on the frozen weights, the file, the reader's settings and,
in training, on the random numbers of its augmentation. `TRAIN.augmented_views` gives a clip the draws of epochs 0 to
K-1 in turn: these K views are computed once. The files are those of predict's --features, with a column `key` that
identifies what a row was computed from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import zipfile
from collections.abc import Generator, Sequence
from typing import NamedTuple

import numpy as np
import paddle

from stnet import parallel
from stnet.backends.embedder import make_embedder
from stnet.config import TrainSection
from stnet.models.model import Model
from stnet.reader.loader import Batch, Loader
from stnet.reader.order import EpochOrder, Place
from stnet.utils.atomic import prepare_folder, remove_leftovers, write_atomically
from stnet.utils.errors import UserError
from stnet.utils.files import find_file
from stnet.utils.progress import Progress

logger = logging.getLogger("stnet")
_VERSION = 1  # raised when the same clips get other features
_SETTINGS = 4  # of weights and reader, whose features stay in a folder
_ROWS = 128  # of a file, at most: what a kill can lose
_RESERVE = 256 << 20  # bytes that stay free on the disk
_IN_MEMORY = 2 << 30  # bytes of views that are kept in memory


class Row(NamedTuple):
    """Features of one view of a clip."""

    key: str
    path: str  # as listed
    label: int
    segments: np.ndarray  # float32 [seg_num, C]
    clip: np.ndarray  # float32 [C'], input of the classifier that training starts with


class FeatureStore:
    """Rows in files NUMBER.npz of a folder. Ranks write files of their own, which all of them read.

    Args:
        folder: of rows that were computed with the same weights and settings.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.places: dict[str, tuple[str, int]] = {}  # key -> file, row in it

    def scan(self) -> None:
        """Read the keys of all files. One that is damaged is removed, and its rows are computed again."""
        self.places = {}
        for name in sorted(os.listdir(self.folder) if os.path.isdir(self.folder) else []):
            if name.endswith(".npz"):
                keys = self._read(name, "key")
                if keys is not None:
                    self.places.update({str(key): (name, row) for row, key in enumerate(keys)})

    def _read(self, name: str, column: str) -> np.ndarray | None:
        path = os.path.join(self.folder, name)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return arrays[column]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s is damaged (%s): its features are computed again", path, error)
            with contextlib.suppress(OSError):
                os.remove(path)
            return None

    def write(self, rows: Sequence[Row]) -> None:
        """Write rows into one new file. Raises UserError: the disk has no room, or the folder cannot be written."""
        taken = [int(name.partition("-")[0]) for name in os.listdir(self.folder) if name.endswith(".npz")]
        name = f"{max(taken, default=-1) + 1:06d}-{parallel.rank()}.npz"
        columns = {
            "key": np.array([row.key for row in rows]),
            "paths": np.array([row.path for row in rows]),
            "labels": np.array([row.label for row in rows], np.int64),
            "segment_features": np.stack([row.segments for row in rows]),
            "clip_features": np.stack([row.clip for row in rows]),
        }

        def write(temporary: str) -> None:
            with open(temporary, "wb") as file:
                np.savez(file, **columns)

        write_atomically(os.path.join(self.folder, name), write)

    def read(self, keys: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Features, float32 [N, seg_num, C], and labels, int64 [N], of keys that are there.

        Raises:
            UserError: a file was damaged since `scan`.
        """
        by_file: dict[str, list[tuple[int, int]]] = {}
        for position, key in enumerate(keys):
            name, row = self.places[key]
            by_file.setdefault(name, []).append((position, row))
        features: np.ndarray = np.empty(0, np.float32)
        labels: np.ndarray = np.empty(len(keys), np.int64)
        for name, pairs in by_file.items():
            positions, rows = (list(numbers) for numbers in zip(*pairs))
            vectors, of_file = self._read(name, "segment_features"), self._read(name, "labels")
            if vectors is None or of_file is None:
                raise UserError(f"{os.path.join(self.folder, name)} is damaged", "start again: it is made anew")
            if not features.size:
                features = np.empty((len(keys), *vectors.shape[1:]), np.float32)
            features[positions], labels[positions] = vectors[rows], of_file[rows]
        return features, labels


class FeatureLoader(Loader):
    """Loader whose batches hold features, float32 [B, seg_num, C], instead of clips; `prepare` comes first.

    Order, labels and the clips that are left out are those of `loader`.

    Args:
        loader: of the clips.
        folder: of the features.
        views: augmentations of a clip, see TRAIN.augmented_views; 1 without augmentation.
    """

    def __init__(self, loader: Loader, folder: str, views: int = 1) -> None:
        super().__init__(loader.dataset, loader.order, loader.workers, loader.bad, loader.epochs)
        self.folder, self.views = folder, views
        self.in_memory: dict[int, dict[int, tuple[np.ndarray, int]]] = {}  # view -> index -> features, label

    # Computing ----------------------------------------------------------------------------------------------------

    def prepare(self, model: Model, engine: str = "auto", log_interval: int = 10) -> None:
        """Compute the features that are not in the folder yet; after an interruption, the rest.

        Args:
            model: with the weights that stay frozen.
            engine: see stnet.backends.engines.
            log_interval: batches between lines of the log.

        Raises:
            UserError: the model gives no features, the disk has no room, or too many clips cannot be read.
        """
        self.store = FeatureStore(os.path.join(self.folder, self._settings_digest(model)))
        with parallel.raise_on_all_ranks():
            prepare_folder(self.store.folder)
        parallel.run_on_rank0(lambda: _tidy(self.folder, self.store.folder))
        self.store.scan()
        self.keys = [self._keys(view) for view in range(self.views)]
        missing = [[i for i, key in enumerate(keys) if key not in self.store.places] for keys in self.keys]
        with parallel.raise_on_all_ranks():  # the first gathering waits until all ranks have scanned
            mine = [indices[parallel.rank() :: parallel.ranks()] for indices in missing]
            if any(mine):
                self._compute(mine, model, engine, log_interval)
        self.bad.merge(parallel.gather(self.bad.reasons))
        self.store.scan()

    def _settings_digest(self, model: Model) -> str:
        """Digest of all that features depend on but the file and its augmentation."""
        digest = hashlib.sha256()
        frozen = model.frozen("backbone")
        for name, value in sorted(model.network.state_dict().items()):
            if name.startswith(frozen):
                digest.update(name.encode() + np.ascontiguousarray(value.numpy()).tobytes())
        section, settings = self.dataset.section, model.config.MODEL
        reading = [section.seg_num, section.seglen, section.short_size, section.target_size, self.dataset.format]
        facts = [_VERSION, settings.name, settings.image_mean, settings.image_std, reading]
        digest.update(json.dumps(facts).encode())
        return digest.hexdigest()[:16]

    def _keys(self, view: int) -> list[str]:
        """Key of each clip's features in a view: of its file, and in training of its random numbers."""
        keys = []
        section, seed = self.dataset.section, self.dataset.seed
        for index, clip in enumerate(self.dataset.clips):
            path = os.path.abspath(find_file(clip.path, self.dataset.folder))
            with contextlib.suppress(OSError):  # a missing one is found by the reader
                status = os.stat(path)
                path = f"{path} {status.st_size} {status.st_mtime_ns}"
            draws = [seed, view, index, getattr(section, "flip_ratio", 0.0)] if self.dataset.augment else []
            facts = repr([path, clip[2:], draws])
            keys.append(hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32])
        return keys

    def _compute(self, missing: Sequence[Sequence[int]], model: Model, engine: str, log_interval: int) -> None:
        """Compute and store the features of each view's missing clips."""
        section = self.dataset.section
        orders = [_Places(indices, section.batch_size) for indices in missing]
        total = sum(map(len, missing))
        embed = make_embedder(engine, model, section)
        rows: list[Row] = []
        progress = Progress(total, "features", sum(map(len, orders)), log_interval)
        with contextlib.closing(progress):
            for view, order in enumerate(orders):
                for batch in Loader(self.dataset, order, self.workers, self.bad).epoch(view):
                    if batch.indices:
                        computed = zip(batch.indices, batch.labels.numpy().tolist(), *embed(batch.clips))
                        rows += [self._row(view, *parts) for parts in computed]
                        self._check_room(rows[0], total - progress.done)
                    progress.update(len(batch.indices))
                    if len(rows) >= _ROWS:
                        self.store.write(rows)
                        rows = []
        if rows:
            self.store.write(rows)

    def _row(self, view: int, index: int, label: int, segments: np.ndarray, clip: np.ndarray) -> Row:
        return Row(self.keys[view][index], self.dataset.clips[index].name, label, segments, clip)

    def _check_room(self, row: Row, count: int) -> None:
        """Raise UserError where the disk has no room for the features of `count` clips."""
        needed, free = count * (row.segments.nbytes + row.clip.nbytes), shutil.disk_usage(self.store.folder).free
        if needed > free - _RESERVE:
            raise UserError(
                f"{self.folder}: features of {count} clips need {needed >> 20} MB, the disk has {free >> 20} MB free",
                "set TRAIN.feature_cache to another disk, or fewer TRAIN.augmented_views",
            )

    # Reading ------------------------------------------------------------------------------------------------------

    def epoch(self, number: int = 0, first_step: int = 0) -> Generator[Batch, None, None]:
        """Iterate over the batches of an epoch, from a step on. A batch without a readable clip has no indices."""
        for places in self.order.batches(number)[first_step:]:
            rows = [(place[1], self.features_of(place)) for place in places]
            readable = [(index, *row) for index, row in rows if row]
            if readable:
                indices, features, labels = (list(column) for column in zip(*readable))
                yield Batch(paddle.to_tensor(np.stack(features)), paddle.to_tensor(labels, "int64"), indices)
            else:
                yield Batch(self._zeros(), paddle.zeros([1], "int64"), [])

    def features_of(self, place: Place) -> tuple[np.ndarray, int] | None:
        """Features [seg_num, C] and label of a clip at (epoch, index); None if it could not be read."""
        view = place[0] % self.views
        if view not in self.in_memory:
            self.in_memory[view] = self._read_view(view)
        return self.in_memory[view].get(place[1])

    def _read_view(self, view: int) -> dict[int, tuple[np.ndarray, int]]:
        """Features and labels of a view by index."""
        there = [index for index, key in enumerate(self.keys[view]) if key in self.store.places]
        features, labels = self.store.read([self.keys[view][index] for index in there])
        if (len(self.in_memory) + 1) * features.nbytes > _IN_MEMORY:
            self.in_memory.clear()
        rows = {}
        for index, vectors, inside in zip(there, features, labels.tolist()):
            listed = self.dataset.clips[index].label
            rows[index] = vectors, inside if listed < 0 else listed
        return rows

    def _zeros(self) -> paddle.Tensor:
        """Zeros in the shape of one clip's features."""
        features, _ = self.store.read([next(iter(self.store.places))])
        return paddle.zeros(features.shape)

    def start(self, number: int = 0, first_step: int = 0) -> None:  # type: ignore[override]
        """Do nothing: an epoch needs no worker."""


def _tidy(root: str, used: str) -> None:
    """Remove partial files, and the features of all but the settings that were used last."""
    remove_leftovers(used)
    os.utime(used)
    folders = [os.path.join(root, name) for name in os.listdir(root) if re.fullmatch(r"[0-9a-f]{16}", name)]
    for folder in sorted(folders, key=os.path.getmtime)[:-_SETTINGS]:
        logger.info("removing features of other weights or settings: %s", folder)
        shutil.rmtree(folder, ignore_errors=True)


def on_features(
    loader: Loader, valid_loader: Loader | None, options: TrainSection
) -> tuple[FeatureLoader, FeatureLoader | None]:
    """Loaders of the features of a run's clips, which `prepare` computes, once the weights are loaded."""
    views, folder = options.augmented_views, options.feature_cache
    valid = FeatureLoader(valid_loader, folder) if valid_loader else None
    return FeatureLoader(loader, folder, views), valid


def prepare(model: Model, *loaders: Loader | None, engine: str = "auto", log_interval: int = 10) -> None:
    """`FeatureLoader.prepare` for those of the loaders that hold features."""
    for loader in loaders:
        if isinstance(loader, FeatureLoader):
            loader.prepare(model, engine, log_interval)


class _Places(EpochOrder):
    """Order of some clips of a list, in batches as evaluation has them."""

    def __init__(self, indices: Sequence[int], batch_size: int) -> None:
        super().__init__(len(indices), batch_size, shuffle=False)
        self.indices = indices

    def batches(self, epoch: int) -> list[list[Place]]:
        """The batches, of (epoch, index in the list)."""
        return [[(epoch, self.indices[place]) for _, place in batch] for batch in super().batches(epoch)]
