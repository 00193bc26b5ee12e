"""Safe replacements for the globals in pickles of plain data and NumPy arrays.

Arrays and data types are rebuilt from checked fields; NumPy's unpickling code is not used. No value of a file is
hashed, compared at length or printed before its type is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import numpy as np

_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


def make_dict(keys: Sequence[Any], values: Sequence[Any]) -> dict[str | bytes, Any]:
    """Make a dict of text or bytes keys: hashing a tuple can take for ever, and hashes of numbers can collide."""
    if len(keys) != len(values) or not all(type(key) in (str, bytes) for key in keys):
        raise ValueError("a dict is not made of text or bytes and their values")
    return dict(zip(keys, values))


def _encode(text: object, encoding: object) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise ValueError("it calls _codecs.encode in a way that pickled bytes do not")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    return b""  # protocol 2 writes them as a call


def _tuple(items: object) -> tuple:
    if type(items) is not tuple:
        raise ValueError("it makes a tuple of what is none")
    return items  # paddle.save writes a tuple as a call of its type


def _ordered_dict(pairs: Iterable[Any] = ()) -> dict[str | bytes, Any]:
    return make_dict([key for key, _ in pairs], [value for _, value in pairs])


def _ndarray(*_: object) -> None:
    raise ValueError("it calls a type that is only ever named")


class Dtype:
    """A pickled numpy.dtype: kind and size, then the byte order."""

    def __init__(self, code: object, *_: object) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if type(code) is not str or code not in _DTYPES:
            raise ValueError(f"an array has a data type that is not one of {' '.join(_DTYPES)}")
        self.value: np.dtype = np.dtype(code)

    def complete(self, _: object, order: Any, *__: object) -> Dtype:
        """Set the byte order."""
        if order not in ("<", ">", "|", "="):
            raise ValueError("a data type has an unknown byte order")
        self.value = self.value.newbyteorder(order)
        return self


class Array:
    """A pickled numpy.ndarray before its state is set; then `value` is the array."""

    def __init__(self, *_: object) -> None:
        self.value: Array | np.ndarray = self

    def complete(self, _: object, shape: object, dtype: object, is_fortran: object, raw: object) -> np.ndarray:
        """Set the state. Returns the array."""
        raw = raw.encode("latin1") if isinstance(raw, str) else raw  # text, if Python 2 wrote it
        self.value = array = _from_buffer(raw, dtype, shape, "F" if is_fortran else "C")
        return array


def _from_buffer(raw: object, dtype: object, shape: Any, order: Any = "C") -> np.ndarray:
    ints = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and len(shape) <= 8
    if not (isinstance(raw, bytes) and isinstance(dtype, Dtype) and ints and order in ("C", "F")):
        raise ValueError("an array is not made of shape, data type and bytes")
    kind = dtype.value
    if prod(shape) * kind.itemsize != len(raw):
        raise ValueError(f"an array of shape {list(shape)} and {kind} has {len(raw)} bytes")
    return np.frombuffer(raw, kind).reshape(shape, order=order).astype(kind.newbyteorder("="), copy=False)


StandIns = dict[tuple[str, str], Callable[..., Any]]  # (module, name) -> replacement

BYTES: StandIns = {
    ("_codecs", "encode"): _encode,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
}
ARRAYS: StandIns = {
    **BYTES,
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): Dtype,
    ("builtins", "tuple"): _tuple,
    ("__builtin__", "tuple"): _tuple,
    ("collections", "OrderedDict"): _ordered_dict,
    ("numpy.core.multiarray", "_reconstruct"): Array,
    ("numpy._core.multiarray", "_reconstruct"): Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}
