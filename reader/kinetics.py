"""The Kinetics reader: a list of clips as a map-style dataset for paddle.io.DataLoader."""

import logging
import os
import traceback
from typing import NamedTuple

import numpy as np
from paddle.io import Dataset

from core.config import find_file
from core.registry import Registry
from reader.clip import clip_rng, read_clip
from reader.errors import ClipError
from reader.isolate import IsolatedReader, ReaderDied
from reader.transforms import to_super_images

READERS: Registry[type[Dataset]] = Registry("reader")
logger = logging.getLogger("stnet")


class Sample(NamedTuple):
    """One clip read, or the reason why it could not be."""

    index: int  # position in the list
    clip: np.ndarray  # uint8 [seg_num, 3 * seglen, H, W]; None if bad
    label: int
    error: str = ""  # why the clip could not be read
    fatal: str = ""  # traceback of a bug, which ends the run
    quarantine: bool = False  # the clip hangs or crashes the decoder


@READERS.register("KINETICS")
class KineticsDataset(Dataset):
    """Clips of a list.

    An item is asked for by (epoch, index), so that the draws of training depend on seed, epoch and index alone,
    whichever worker reads the clip.

    Args:
        clips: list of reader.lists.Clip.
        section: core.config.ReaderSection with seg_num and seglen set.
        format: "mp4" or "pkl".
        augment: random segments, crops and flips (training) or the centre.
        seed: of the draws.
        folder: where relative paths are looked up if they are not in the working directory.
        num_classes: labels inside pickles must be below it.
    """

    def __init__(self, clips, section, format="mp4", augment=False, seed=0, folder="", num_classes=None):
        super().__init__()
        self.clips = clips
        self.section = section
        self.format = format
        self.augment = augment
        self.seed = seed
        self.folder = folder
        self.num_classes = num_classes
        self.skip = {}  # index -> reason: clips not to be touched again
        self.isolate = False  # read in a process that can be killed; the loader sets it for its workers
        self.reader = None
        self.by_opencv = set()  # clips that made another decoder hang or crash

    def __len__(self):
        """Clips in the list."""
        return len(self.clips)

    @property
    def clip_shape(self):
        """Shape of a clip: (seg_num, 3 * seglen, H, W)."""
        want = self.section
        return want.seg_num, 3 * want.seglen, want.target_size, want.target_size

    def __getitem__(self, place):
        """The Sample at (epoch, index) or (epoch, index, reason not to read it).

        A clip that cannot be read gives one with `error` set.
        """
        epoch, index, *reasons = place
        reason = next(iter(reasons), "") or self.skip.get(index)
        if reason:
            return Sample(index, None, -1, reason)
        try:
            clip, label = self._isolated(index, epoch) if self.isolate else self.read(index, epoch)
        except ClipError as error:
            return Sample(index, None, -1, str(error))
        except ReaderDied as error:
            return Sample(index, None, -1, str(error), quarantine=True)
        except Exception:  # a bug; Paddle's loader would lose it in a thread
            return Sample(index, None, -1, fatal=f"{self.clips[index].path}: {traceback.format_exc()}")
        return Sample(index, clip, label)

    def _isolated(self, index, epoch):
        """`read` in a process that can be killed; where the decoder hangs or crashes, OpenCV reads in order instead."""
        if self.reader is None:
            self.reader = IsolatedReader(lambda place: self.read(*place), self.clip_shape, self.section.decode_timeout)
        if index not in self.by_opencv:
            try:
                return self.reader((index, epoch))
            except ReaderDied as error:
                if self.format == "pkl":
                    raise
                logger.warning("%s: %s; OpenCV tries it in order", self.clips[index].path, error)
                self.by_opencv.add(index)
        return self.reader((index, epoch, "opencv"))

    def read(self, index, epoch=0, decoder=""):
        """(clip uint8 [seg_num, 3 * seglen, H, W], label). Raises ClipError."""
        path, label = self.clips[index]
        rng = clip_rng(self.seed, epoch, index) if self.augment else None
        clip = read_clip(find_file(path, self.folder), self.section, self.format, rng, decoder)
        if self.format == "pkl":
            label = clip.label
            if self.num_classes is not None and not 0 <= label < self.num_classes:
                raise ClipError(f"label {label} is outside 0..{self.num_classes - 1}")
        return to_super_images(clip.frames, self.section.seg_num), label


def list_folder(filelist):
    """The folder that relative paths of a list may be relative to."""
    return os.path.dirname(os.path.abspath(filelist)) if filelist else ""
