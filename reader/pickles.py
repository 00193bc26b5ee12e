"""Pickled clips, opened without running anything that a pickle can name.

A clip is `(video id, label, [JPEG bytes, ...])`. Pickles may be of protocol 2, written by Python 2 (text is
bytes then) or by Python 3 (bytes are a call of `_codecs.encode(text, "latin1")` then).
"""

import io
import pickle


class _PlainUnpickler(pickle.Unpickler):
    """Builds tuples, lists, bytes, str and numbers; every global but `_codecs.encode` is refused."""

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):
            return _latin1_bytes
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; only tuples, lists, bytes, str and int are allowed")


def _latin1_bytes(text, encoding):
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
        raise pickle.UnpicklingError("it calls _codecs.encode in a way that pickled bytes do not")
    return text.encode("latin1")


def load_clip_pickle(data):
    """Read one pickled clip.

    Args:
        data: the file's bytes.

    Returns:
        (video id as str, label as int, list of JPEG bytes).

    Raises:
        ValueError: with the reason, whatever is wrong with the data.
    """
    try:
        value = _PlainUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"not a usable pickle: {error or type(error).__name__}") from None
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
