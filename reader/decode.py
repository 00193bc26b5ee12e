"""Frames out of files. Each function takes `pick`, which turns the number of frames into the wanted indices.

decord seeks and decodes only what is wanted. Where it fails, or finds fewer frames than the file's header
promises, OpenCV reads the whole file in order, as the original does, so that a damaged clip gives the same
frames as it did there.
"""

import os

import numpy as np


class ClipError(Exception):
    """A clip cannot be read; the message is the reason, without the path."""

    expected = True  # the fault of a file, not of the code: no traceback is wanted


def read_video(path, pick, promised=None):
    """Frames of a video file.

    Args:
        path: the file.
        pick: function from the number of decodable frames to a list of indices (repeats allowed).
        promised: promised_frames(path), if it is known already.

    Returns:
        (frames, places): frames uint8 [K, H, W, 3] RGB, K distinct ones, possibly read-only; places, for each
        index of pick, the row of its frame.

    Raises:
        ClipError: missing, empty or undecodable file.
    """
    _check_file(path)
    promised = promised_frames(path) if promised is None else promised
    try:
        found = _read_with_decord(path, pick, promised)
    except Exception as error:  # decord raises its own error type, RuntimeError, IndexError, ...
        found, reason = None, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    else:
        reason = "decord finds fewer frames than the header promises"
    if found is None:
        found = _read_with_opencv(path, pick)
    if found is None:
        raise ClipError(f"no frame can be decoded ({_plain(reason)})")
    return found


def _check_file(path):
    if os.path.isdir(path):
        raise ClipError("it is a folder")
    try:
        size = os.path.getsize(path)
    except OSError:
        raise ClipError("no such file") from None
    if size == 0:
        raise ClipError("the file is empty (0 bytes)")


def promised_frames(path):
    """Frames that a video's header promises, counted or estimated from its duration; 0 if it cannot be opened."""
    import cv2  # late: a list can be read, and --help shown, without it

    capture = cv2.VideoCapture(path)
    promised = capture.get(cv2.CAP_PROP_FRAME_COUNT) if capture.isOpened() else 0
    capture.release()
    return int(promised)


def _read_with_decord(path, pick, promised):
    import decord  # late: opened in the worker process

    video = decord.VideoReader(path, num_threads=1)
    if len(video) < promised:
        return None
    wanted, places = np.unique(np.asarray(pick(len(video))), return_inverse=True)
    return _as_numpy(video.get_batch(wanted)), places.reshape(-1)


def _as_numpy(array):
    """A decord array as NumPy's: read-only, as it is not copied, unless NumPy is older than 1.22."""
    return np.from_dlpack(_DLPack(array)) if hasattr(np, "from_dlpack") else array.asnumpy()


class _DLPack:
    """A decord array as np.from_dlpack takes it: decord has the capsule but not these methods."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **_):
        """The array as a capsule."""
        return self.array.to_dlpack()

    def __dlpack_device__(self):
        """Memory of the processor, number 0."""
        return 1, 0


def _read_with_opencv(path, pick):
    count = sum(1 for _ in _opencv_frames(path))
    if count == 0:
        return None
    wanted, places = np.unique(np.asarray(pick(count)), return_inverse=True)
    keep = set(wanted.tolist())
    frames = [frame[:, :, ::-1] for i, frame in enumerate(_opencv_frames(path)) if i in keep]  # BGR -> RGB
    return np.stack(frames), places.reshape(-1)


def _opencv_frames(path):
    import cv2

    capture = cv2.VideoCapture(path)
    try:
        while True:
            ok, frame = capture.read()
            if not ok:
                return
            yield frame
    finally:
        capture.release()


def _plain(reason):
    """decord's message without the source position in front."""
    return reason.rsplit("] ", 1)[-1][:200]


def read_pickle(path, pick):
    """Frames and label of a pickled clip. Arguments as `read_video`; returns (frames, places, label)."""
    from reader.pickles import decode_jpegs, load_clip_pickle, read_clip_file

    try:
        _, label, jpegs = load_clip_pickle(read_clip_file(path))
        wanted, places = np.unique(np.asarray(pick(len(jpegs))), return_inverse=True)
        return decode_jpegs([jpegs[i] for i in wanted]), places.reshape(-1), label
    except ValueError as error:
        raise ClipError(str(error)) from None
