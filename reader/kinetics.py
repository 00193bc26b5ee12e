"""The Kinetics reader: a list of clips as a map-style dataset for paddle.io.DataLoader."""

import os
import random
import traceback
from typing import NamedTuple

import numpy as np
from paddle.io import Dataset

from core.config import find_file
from core.registry import Registry
from reader.decode import ClipError, read_pickle, read_video
from reader.isolate import IsolatedReader, ReaderDied
from reader.sampling import sample_frames
from reader.transforms import make_clip, to_super_images

READERS = Registry("reader")


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
            clip, label = self._isolated((index, epoch)) if self.isolate else self.read(index, epoch)
        except ClipError as error:
            return Sample(index, None, -1, str(error))
        except ReaderDied as error:
            return Sample(index, None, -1, str(error), quarantine=True)
        except Exception:  # a bug; Paddle's loader would lose it in a thread
            return Sample(index, None, -1, fatal=f"{self.clips[index].path}: {traceback.format_exc()}")
        return Sample(index, clip, label)

    def _isolated(self, argument):
        if self.reader is None:
            self.reader = IsolatedReader(lambda place: self.read(*place), self.clip_shape, self.section.decode_timeout)
        return self.reader(argument)

    def read(self, index, epoch=0):
        """(clip uint8 [seg_num, 3 * seglen, H, W], label). Raises ClipError."""
        rng = random.Random(f"{self.seed}/{epoch}/{index}") if self.augment else None
        path, label = self.clips[index]
        path = find_file(path, self.folder)
        want = self.section

        def pick(num_frames):
            segments = sample_frames(num_frames, want.seg_num, want.seglen, self.format, rng)
            return [i for segment in segments for i in segment]

        if self.format == "pkl":
            frames, places, label = read_pickle(path, pick)
            if self.num_classes is not None and not 0 <= label < self.num_classes:
                raise ClipError(f"label {label} is outside 0..{self.num_classes - 1}")
        else:
            frames, places = read_video(path, pick)
        flip_ratio = want.flip_ratio if rng else 0
        clip = make_clip(frames, places, want.short_size, want.target_size, rng, flip_ratio)
        return to_super_images(clip, want.seg_num), label


def list_folder(filelist):
    """The folder that relative paths of a list may be relative to."""
    return os.path.dirname(os.path.abspath(filelist)) if filelist else ""
