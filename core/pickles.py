"""Pickles of plain data and NumPy arrays, opened without running anything that a pickle can name.

Python's own unpickler is used (the C one allocates what a damaged file merely claims), with a short list of
opcodes and globals. NumPy's array and dtype are rebuilt here from their parts, checked: NumPy's own code never
sees what a file says.
"""

import pickle
import sys
from math import prod

import numpy as np

_OPCODES = """
    PROTO FRAME STOP MARK POP POP_MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE BINUNICODE8 SHORT_BINUNICODE BINBYTES BINBYTES8 SHORT_BINBYTES
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS
    GLOBAL STACK_GLOBAL REDUCE BUILD GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
"""
_DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")


class PlainUnpickler(pickle._Unpickler):
    """Builds None, booleans, numbers, text, bytes, tuples, lists and dicts, and nothing that runs.

    Args:
        data: the file's bytes.
        encoding: how byte strings of Python 2 are read: "latin1", or "bytes" to keep them.

    Subclasses add to `allowed`: (module, name) -> a function of this project that stands in for the global.
    """

    dispatch = {
        code: pickle._Unpickler.dispatch[code] for code in (ord(getattr(pickle, name)) for name in _OPCODES.split())
    }
    allowed = {}
    plain = "tuples, lists, bytes, str and int"

    def __init__(self, data, encoding="latin1"):
        self.source = _BoundedReader(data)
        super().__init__(self.source, encoding=encoding)

    def load_value(self):
        """The pickled value. Raises ValueError that says what is wrong, and where."""
        try:
            return self.load()
        except Exception as error:  # a damaged pickle can raise nearly anything
            reason = f"unexpected byte {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
            raise ValueError(f"not a usable pickle: {reason} (at offset {self.source.offset})") from None

    def find_class(self, module, name):
        """The stand-in for a global; anything not listed is refused."""
        if (module, name) == ("_codecs", "encode"):
            return _latin1_bytes
        if name == "bytes" and module in ("builtins", "__builtin__"):
            return _empty_bytes
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}; only {self.plain} are allowed")
        return self.allowed[module, name]


class _BoundedReader:
    """A file over bytes that refuses to read past its end, before anything is allocated."""

    def __init__(self, data):
        self.data = data
        self.offset = 0

    def read(self, size):
        if size < 0 or size > len(self.data) - self.offset:
            raise pickle.UnpicklingError(f"it claims {size} bytes where {len(self.data) - self.offset} are left")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def readline(self):
        end = self.data.find(b"\n", self.offset) + 1
        return self.read((end or len(self.data)) - self.offset)


def _latin1_bytes(text, encoding):
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("it calls _codecs.encode in a way that pickled bytes do not")
    return text.encode("latin1")


def _empty_bytes():
    return b""  # how protocol 2 writes them


class _Dtype:
    """What a pickled numpy.dtype says: kind and size, then the byte order."""

    def __init__(self, code, *_):
        if isinstance(code, bytes):
            code = code.decode("ascii")
        if code not in _DTYPES:
            raise pickle.UnpicklingError(f"an array has the data type {code!r:.20}, not one of numbers")
        self.code, self.order = code, "|"

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a data type has an unknown byte order")
        self.order = state[1]

    def numpy(self):
        return np.dtype(self.code).newbyteorder(self.order)


class _Array:
    """What a pickled numpy.ndarray says, until it is checked."""

    value = None

    def __setstate__(self, state):
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array is incomplete")
        _, shape, dtype, is_fortran, raw = state
        if isinstance(raw, str):
            raw = raw.encode("latin1")  # written by Python 2
        self.value = _build_array(raw, dtype, shape, "F" if is_fortran else "C")


def _reconstruct(*_):
    return _Array()


def _from_buffer(raw, dtype, shape, order="C"):
    made = _Array()
    made.value = _build_array(raw, dtype, shape, order)
    return made


def _build_array(raw, dtype, shape, order):
    ints = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and len(shape) <= 8
    if not (isinstance(raw, bytes) and isinstance(dtype, _Dtype) and ints and order in ("C", "F")):
        raise pickle.UnpicklingError("an array is not made of shape, data type and bytes")
    kind = dtype.numpy()
    if prod(shape) * kind.itemsize != len(raw):
        raise pickle.UnpicklingError(f"an array of shape {list(shape)} and {kind} has {len(raw)} bytes")
    return np.frombuffer(raw, kind).reshape(shape, order=order).astype(kind.newbyteorder("="))


def _tuple(items=()):
    return tuple(items)


def _marker(*_):
    raise pickle.UnpicklingError("it calls a type that is only ever named")


def _load_bytearray(unpickler):
    size = int.from_bytes(unpickler.read(8), "little")
    unpickler.append(unpickler.read(size))  # how protocol 5 writes an array's data; bytes do as well


class ArrayUnpickler(PlainUnpickler):
    """PlainUnpickler that also builds NumPy arrays of numbers, whatever NumPy wrote them."""

    plain = "plain data and NumPy arrays"
    dispatch = {**PlainUnpickler.dispatch, ord(pickle.BYTEARRAY8): _load_bytearray}
    allowed = {
        ("numpy", "ndarray"): _marker,
        ("numpy", "dtype"): _Dtype,
        ("builtins", "tuple"): _tuple,
        ("__builtin__", "tuple"): _tuple,
        ("collections", "OrderedDict"): dict,
    }
    for _module in ("numpy.core", "numpy._core"):
        allowed[f"{_module}.multiarray", "_reconstruct"] = _reconstruct
        allowed[f"{_module}.numeric", "_frombuffer"] = _from_buffer


def load_plain(data):
    """The value of a pickle of plain data and arrays. Raises ValueError."""
    limit = sys.getrecursionlimit()
    return _resolve(ArrayUnpickler(data).load_value(), {}, limit // 4)


def _resolve(value, seen, depth):
    """Replace each _Array by its array; shared parts are resolved once."""
    if id(value) in seen:
        return seen[id(value)][1]
    if depth == 0:
        raise ValueError("not a usable pickle: it is nested too deeply")
    if isinstance(value, _Array):
        if value.value is None:
            raise ValueError("not a usable pickle: an array is incomplete")
        found = value.value
    elif isinstance(value, dict):
        found = {key: _resolve(item, seen, depth - 1) for key, item in value.items()}
    elif isinstance(value, (list, tuple)):
        found = type(value)(_resolve(item, seen, depth - 1) for item in value)
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        found = value
    else:
        raise ValueError(f"not a usable pickle: it holds a {type(value).__name__.strip('_')} where a value belongs")
    seen[id(value)] = (value, found)
    return found
