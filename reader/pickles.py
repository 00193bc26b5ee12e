"""Pickled clips, opened without running anything that a pickle can name.

A clip is `(video id, label, [JPEG bytes, ...])`. Pickles may be of protocol 2, written by Python 2 (text is
bytes then) or by Python 3 (bytes are a call of `_codecs.encode(text, "latin1")` then).
"""

from core.pickles import load_clip_data


def load_clip_pickle(data):
    """Read one pickled clip.

    Args:
        data: the file's bytes.

    Returns:
        (video id as str, label as int, list of JPEG bytes).

    Raises:
        ValueError: with the reason, whatever is wrong with the data.
    """
    value = load_clip_data(data)
    if not isinstance(value, (tuple, list)) or len(value) != 3:
        raise ValueError("expected a pickled (video id, label, [JPEG bytes, ...])")
    name, label, frames = value
    if isinstance(name, bytes):
        name = name.decode("utf-8", "replace")
    if not isinstance(name, str) or type(label) is not int or not isinstance(frames, (list, tuple)):
        raise ValueError("expected a pickled (video id, label, [JPEG bytes, ...])")
    if not frames or not all(isinstance(frame, bytes) for frame in frames):
        raise ValueError("expected at least one frame, each of JPEG bytes")
    return name, label, list(frames)
