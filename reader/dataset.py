"""A list of clips as a map-style dataset for paddle.io.DataLoader."""

from __future__ import annotations

import logging
import mmap
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from paddle.io import Dataset

from stnet.config import ReaderSection
from stnet.reader.clip import clip_rng, read_clip
from stnet.reader.errors import ClipError
from stnet.reader.formats import FORMATS, VIDEO
from stnet.reader.lists import Clip
from stnet.reader.transforms import to_super_images
from stnet.utils.files import find_file
from stnet.utils.processes import Child, ChildDied

logger = logging.getLogger("stnet")


class Sample(NamedTuple):
    """Clip, or the reason why it could not be read."""

    index: int  # type: ignore[assignment]  # position in the list
    clip: np.ndarray | None  # uint8 [views * seg_num, 3 * seglen, H, W]; None if bad
    label: int
    error: str = ""  # why the clip could not be read
    fatal: str = ""  # traceback of a bug, which ends the run
    quarantine: bool = False  # the clip hangs or crashes the decoder


class IsolatedReader:
    """Calls `read` in a forked child process: a decoder that hangs or crashes costs one clip, not the run.

    Args:
        read: function of one argument that returns (uint8 array of `shape`, label) or raises.
        shape: of the array, which is passed through shared memory.
        timeout: seconds for one call.

    Used from one process only; the child ends when that process does.
    """

    def __init__(self, read: Callable[[Any], tuple[np.ndarray, Any]], shape: tuple[int, ...], timeout: float) -> None:
        self.read, self.timeout = read, timeout
        self.array = np.frombuffer(mmap.mmap(-1, int(np.prod(shape))), np.uint8).reshape(shape)
        self.child: Child | None = None

    def __call__(self, argument: Any) -> tuple[np.ndarray, Any]:
        """Return `read(argument)`, or raise its exception. Raises ChildDied; the next call forks another child."""
        if self.child is None or self.child.ended:
            self.child = Child(self._fill)
        self.child.send([argument])
        label = self.child.receive(self.timeout)
        return self.array.copy(), label

    def _fill(self, argument: Any) -> Any:
        """In the child: read into the shared memory. Returns the label."""
        self.array[...], label = self.read(argument)
        return label

    def close(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.kill()


class VideoListDataset(Dataset):
    """Clips of a list, by (epoch, index): augmentation depends on seed, epoch and index alone.

    Args:
        clips: of the list.
        section: of the configuration, with seg_num and seglen set.
        format: one of stnet.reader.formats.FORMATS.
        augment: random segments, crops and flips (training) or the centre.
        seed: of the augmentation.
        folder: for relative paths that are not in the working directory.
        num_classes: labels inside files must be below it.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        section: ReaderSection,
        format: str = VIDEO,
        augment: bool = False,
        seed: int = 0,
        folder: str = "",
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.clips, self.section, self.augment, self.seed, self.folder = clips, section, augment, seed, folder
        self.format, self.second_decoder = format, FORMATS.get(format).second_decoder
        self.num_classes = num_classes
        self.skip: dict[int, str] = {}  # index -> reason, of clips not to be read again
        self.isolate = False  # read in a process that can be killed; the loader sets it for its workers
        self.reader: IsolatedReader | None = None
        self.second_tries: set[int] = set()  # clips that made the first decoder hang or crash

    def __len__(self) -> int:
        """Number of clips in the list."""
        return len(self.clips)

    @property
    def clip_shape(self) -> tuple[int, int, int, int]:
        """Shape of a clip: (views * seg_num, 3 * seglen, H, W)."""
        section = self.section
        assert section.seg_num and section.seglen  # Config.section has set them
        return section.views * section.seg_num, 3 * section.seglen, section.target_size, section.target_size

    def __getitem__(self, place: Sequence[Any]) -> Sample:
        """Read the clip at (epoch, index) or (epoch, index, reason to skip it). Errors are in the Sample."""
        epoch, index, *reasons = place
        reason = next(iter(reasons), "") or self.skip.get(index)
        if reason:
            return Sample(index, None, -1, reason)
        try:
            clip, label = self._isolated(index, epoch) if self.isolate else self.read(index, epoch)
        except ClipError as error:
            return Sample(index, None, -1, str(error))
        except ChildDied as error:
            return Sample(index, None, -1, str(error), quarantine=True)
        except Exception:  # a bug: Paddle's loader loses exceptions of a thread
            return Sample(index, None, -1, fatal=f"{self.clips[index].name}: {traceback.format_exc()}")
        return Sample(index, clip, label)

    def _isolated(self, index: int, epoch: int) -> tuple[np.ndarray, int]:
        """`read` in a child process; where the decoder hangs or crashes, the format's second one tries."""
        if self.reader is None:
            self.reader = IsolatedReader(lambda place: self.read(*place), self.clip_shape, self.section.decode_timeout)
        if index not in self.second_tries:
            try:
                return self.reader((index, epoch))
            except ChildDied as error:
                if not self.second_decoder:
                    raise
                logger.warning("%s: %s; %s tries it in order", self.clips[index].name, error, self.second_decoder)
                self.second_tries.add(index)
        return self.reader((index, epoch, self.second_decoder))

    def close(self) -> None:
        """End the child process."""
        if self.reader is not None:
            self.reader.close()
            self.reader = None

    def read(self, index: int, epoch: int = 0, decoder: str = "") -> tuple[np.ndarray, int]:
        """(clip uint8 of `clip_shape`, label). Raises ClipError."""
        listed = self.clips[index]
        label, clip_format = listed.label, listed.format or self.format
        views = getattr(self.section, "augmented_views", 0)
        rng = clip_rng(self.seed, epoch % views if views else epoch, index) if self.augment else None
        file = find_file(listed.path, self.folder)
        clip = read_clip(file, self.section, clip_format, rng, decoder, listed.span)
        if FORMATS.get(clip_format).label_inside:
            if clip.label is None:
                raise ClipError(f"no label is inside, as format {self.format} promises")
            label = clip.label
            if self.num_classes is not None and not 0 <= label < self.num_classes:
                raise ClipError(f"label {label} is outside 0..{self.num_classes - 1}")
        return to_super_images(clip.frames, self.clip_shape[0]), label
