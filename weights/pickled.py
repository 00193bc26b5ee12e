"""Pickled parameters (`.pdparams`), opened without running anything that a pickle can name."""

import io
import pickle

import numpy as np

from core.errors import UserError

# What a pickled NumPy array names, under the module paths of old and new NumPy.
_ALLOWED = {
    (module, name): getattr(np.core.multiarray if not hasattr(np, "_core") else np._core.multiarray, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("_reconstruct", "scalar")
}
_ALLOWED.update({("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype})


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dicts, lists, text, numbers and NumPy arrays; everything else is refused."""

    def find_class(self, module, name):
        if (module, name) == ("_codecs", "encode"):
            return _latin1_bytes
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which weights have no use for")
        return _ALLOWED[module, name]


def _latin1_bytes(text, encoding):
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("it calls _codecs.encode in a way that pickled bytes do not")
    return text.encode("latin1")


def read_pickled(data, path):
    """Name -> float array of a pickled dict of arrays. Raises UserError naming `path`."""
    try:
        value = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise UserError(f"weights {path} cannot be read: {error or type(error).__name__}") from None
    if not isinstance(value, dict):
        raise UserError(f"weights {path}: expected a dict of parameters, found {type(value).__name__}")
    value.pop("StructuredToParameterName@@", None)
    return {name: _array(name, array, path) for name, array in value.items()}


def _array(name, value, path):
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
        value = value[1]  # paddle.save writes (parameter name, array) for some protocols
    if not isinstance(name, str) or not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        raise UserError(f"weights {path}: {name!r} is not an array of floats")
    return value
