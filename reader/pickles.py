"""Read pickled clips without running code: `(video id, label, [JPEG bytes, ...])`.

Pickles may be of protocol 2, written by Python 2 (text is bytes) or by Python 3 (bytes are a call of
`_codecs.encode(text, "latin1")`).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np

from stnet.reader.errors import ClipError
from stnet.utils.files import read_regular
from stnet.utils.safe_pickle import load_clip_data

MAX_BYTES = 1 << 30  # of a file
MAX_PIXELS = 1 << 30  # of all decoded frames: 125 of 3840 x 2160
_FORM = "expected a pickled (video id, label, [JPEG bytes, ...])"


def read_clip_file(path: str) -> bytes:
    """Read the file of a pickled clip. Raises ValueError if it is unreadable, empty, or larger than MAX_BYTES."""
    try:
        data = read_regular(path, MAX_BYTES)
    except FileNotFoundError:
        raise ValueError("no such file") from None
    except IsADirectoryError:
        raise ValueError("it is a folder") from None
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror or error}") from None
    if not data:
        raise ValueError("the file is empty (0 bytes)")
    return data


def load_clip_pickle(data: bytes) -> tuple[str, int, list[bytes]]:
    """Parse a pickled clip: (video id, label, JPEGs). Raises ValueError with the reason if it is malformed."""
    value = load_clip_data(data)
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError(_FORM)
    name, label, frames = value
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    if not isinstance(name, str) or type(label) is not int or not isinstance(frames, (list, tuple)):
        raise ValueError(_FORM)
    if abs(label) >= 2**31:
        raise ValueError("expected a label of less than 2**31")
    if not frames or not all(isinstance(frame, bytes) for frame in frames):
        raise ValueError("expected at least one frame, each of JPEG bytes")
    return name, label, list(frames)


def read_pickle(path: str, pick: Callable[[int], Sequence[int]]) -> tuple[np.ndarray, np.ndarray, int]:
    """Read frames of a pickled clip: (distinct frames, uint8 [K, H, W, 3] RGB, the row of each number, label).

    `pick` returns, for the number of frames, the wanted ones, which may repeat. Raises ClipError.
    """
    try:
        _, label, jpegs = load_clip_pickle(read_clip_file(path))
        numbers, places = np.unique(np.asarray(pick(len(jpegs))), return_inverse=True)
        return decode_jpegs([jpegs[i] for i in numbers]), places.reshape(-1), label
    except ValueError as error:
        raise ClipError(str(error)) from None


def decode_jpegs(jpegs: Sequence[bytes]) -> np.ndarray:
    """Decode JPEGs of one size to uint8 [K, H, W, 3] RGB. Raises ValueError for other formats, sizes and damage."""
    from PIL import Image  # late: not needed for --help

    frames = np.empty(0, np.uint8)
    for row, jpeg in enumerate(jpegs):
        try:
            with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as image:
                if len(jpegs) * image.width * image.height > MAX_PIXELS:
                    raise ValueError(f"{len(jpegs)} frames of {image.width} x {image.height} are more than is decoded")
                frame = np.asarray(image.convert("RGB"))
        except Exception as error:  # OSError, SyntaxError, struct.error, DecompressionBombError, ...
            raise ValueError(f"a frame cannot be decoded: {str(error) or type(error).__name__}") from None
        if row == 0:
            frames = np.empty((len(jpegs), *frame.shape), np.uint8)
        if frame.shape != frames.shape[1:]:
            raise ValueError(f"frames of {frames.shape[2]} x {frames.shape[1]} and {frame.shape[1]} x {frame.shape[0]}")
        frames[row] = frame
    return frames
