"""Pickles of plain data and NumPy arrays, read without executing code.

The few opcodes of plain data are interpreted here, without Python's unpickler. A pickle can make values and call the
replacements in pickle_globals.py, nothing else. Its steps, depth and memory are bounded before they are spent.
"""

from __future__ import annotations

import codecs
import pickle
import struct
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from stnet.utils.pickle_globals import ARRAYS, BYTES, Array, Dtype, StandIns, make_dict

MAX_STEPS = 1_000_000  # opcodes, and values in the result; a StNet of 152 layers takes 20,000
MAX_DEPTH = 50  # containers in containers
_MAX_DIGITS = 100


def load_clip_data(data: bytes) -> Any:
    """Load a pickle of None, booleans, numbers, text, bytes, tuples, lists and dicts.

    Byte strings of Python 2 become bytes. Raises ValueError with reason and offset.
    """
    return _load(_Unpickler(data, BYTES, "tuples, lists, bytes, str and int", None))


def load_plain(data: bytes) -> Any:
    """Load a pickle of such data and NumPy arrays, which may be read-only.

    Byte strings of Python 2 become text. Raises ValueError with reason and offset.
    """
    return _load(_Unpickler(data, ARRAYS, "plain data and NumPy arrays", "latin1"))


def _load(unpickler: _Unpickler) -> Any:
    try:
        value = unpickler.run()
        _check_plain(value)
    except Exception as error:  # a damaged pickle can raise nearly anything
        reason = str(error) or type(error).__name__
        raise ValueError(f"not a usable pickle: {reason} (at offset {unpickler.offset})") from None
    return value


def _check_plain(value: object) -> None:
    """Walk a value as a tree: one that contains itself, or shares its items too often, exceeds the limits."""
    pending, count = [(value, 0)], 0
    while pending:
        value, depth = pending.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_STEPS:
            raise ValueError("it is nested too deeply, or holds too many values")
        if isinstance(value, (list, tuple)):
            pending.extend((item, depth + 1) for item in value)
        elif isinstance(value, dict):
            pending.extend((item, depth + 1) for item in value.values())
        elif value is not None and not isinstance(value, (bool, int, float, str, bytes, np.ndarray)):
            raise ValueError("a part of an array is where a value belongs")


class _Unpickler:
    """Stack machine that executes a pickle.

    Args:
        allowed: replacements for globals.
        plain: description of the allowed data, for messages.
        encoding: of Python 2's byte strings; None keeps them as bytes.
    """

    def __init__(self, data: bytes, allowed: StandIns, plain: str, encoding: str | None) -> None:
        self.data, self.allowed, self.plain, self.encoding = data, allowed, plain, encoding
        self.offset = 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.to_convert = 2 * len(data)  # values: text becomes bytes, bytes an array, each once

    def run(self) -> Any:
        for _ in range(MAX_STEPS):
            code = self.take(1)
            if code == pickle.STOP:
                return self.stack.pop()
            if code not in _STEPS:
                raise ValueError(f"unexpected byte {code[0]}")
            _STEPS[code](self)
        raise ValueError(f"it takes more than {MAX_STEPS} steps")

    # Arguments of opcodes

    def take(self, size: int) -> bytes:
        left = len(self.data) - self.offset
        if not 0 <= size <= left:
            raise ValueError(f"it claims {size} bytes where {left} are left")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def counted(self, form: str) -> bytes:
        return self.take(self.number(form))

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.offset)
        return self.take((end if end >= 0 else len(self.data)) + 1 - self.offset)[:-1]

    def digits(self) -> int:
        line = self.line()
        if len(line) > _MAX_DIGITS:  # the time to read them grows with their square
            raise ValueError(f"a number has {len(line)} digits")
        return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line.rstrip(b"L"))

    # Actions of opcodes

    def push(self, value: object) -> None:
        self.stack.append(value)

    def push_string(self, raw: bytes) -> None:
        """A byte string of Python 2."""
        self.push(raw if self.encoding is None else raw.decode(self.encoding))

    def push_quoted(self) -> None:
        raw = self.line()
        if len(raw) < 2 or raw[:1] not in (b"'", b'"') or raw[-1:] != raw[:1]:
            raise ValueError("a string has no quotes")
        self.push_string(cast(bytes, codecs.escape_decode(raw[1:-1])[0]))  # its type stub says str

    def pop_mark(self) -> list[Any]:
        """All that was pushed since the last mark."""
        return self.pop(len(self.stack) - self.marks.pop())

    def pop(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if count < 0 or start < 0:
            raise ValueError("it takes values that it never made")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise ValueError("it appends to what is no list")
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise ValueError("it sets items of what is no dict")
        self.stack[-1].update(make_dict(items[::2], items[1::2]))

    def make_dict(self, items: list[Any]) -> None:
        self.push({})
        self.update(items)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError(f"it refers to a value that it never made, number {index}")
        value = self.memo[index]
        self.push(value.value if isinstance(value, Array) else value)

    def find(self, module: object, name: object) -> None:
        if type(module) is not str or type(name) is not str:  # other types are not hashed or printed
            raise ValueError("a name is no text")
        if (module, name) not in self.allowed:
            raise ValueError(f"it asks for {module:.50}.{name:.50}; only {self.plain} are allowed")
        self.push(self.allowed[module, name])

    def call(self) -> None:
        function, arguments = self.pop(2)
        if not callable(function) or type(arguments) is not tuple:  # only replacements are callable
            raise ValueError("it calls what cannot be called")
        self.charge(arguments)
        self.push(function(*arguments))

    def build(self) -> None:
        target, state = self.pop(2)
        if not isinstance(target, (Array, Dtype)) or type(state) is not tuple:
            raise ValueError("it sets the state of what has none")
        self.charge(state)
        self.push(target.complete(*state))

    def charge(self, values: tuple[Any, ...]) -> None:
        """Limit the bytes that are converted, so that the same data is not copied again and again."""
        self.to_convert -= sum(len(value) for value in values if isinstance(value, (str, bytes, list, tuple)))
        if self.to_convert < 0:
            raise ValueError("it uses the same data again and again")


# Opcodes --------------------------------------------------------------------------------------------------------

Step = Callable[[_Unpickler], object]


def _check_protocol(machine: _Unpickler) -> None:
    version = machine.number("<B")
    if version > 5:
        raise ValueError(f"it is of protocol {version}; 5 is the last that is known")


def _check_frame(machine: _Unpickler) -> None:
    size, left = machine.number("<Q"), len(machine.data) - machine.offset
    if size > left:
        raise ValueError(f"a frame claims {size} bytes where {left} are left")


def _value(read: Callable[[_Unpickler], object]) -> Step:
    return lambda machine: machine.push(read(machine))


def _text(form: str) -> Step:
    return _value(lambda machine: str(machine.counted(form), "utf-8", "surrogatepass"))


def _bytes(form: str) -> Step:
    return _value(lambda machine: machine.counted(form))


def _number(form: str) -> Step:
    return _value(lambda machine: machine.number(form))


_STEPS: dict[bytes, Step] = {
    pickle.PROTO: _check_protocol,
    pickle.FRAME: _check_frame,
    pickle.MARK: lambda machine: machine.marks.append(len(machine.stack)),
    pickle.POP: lambda machine: machine.pop(1),
    pickle.POP_MARK: _Unpickler.pop_mark,
    pickle.NONE: _value(lambda _: None),
    pickle.NEWTRUE: _value(lambda _: True),
    pickle.NEWFALSE: _value(lambda _: False),
    pickle.INT: _value(_Unpickler.digits),
    pickle.LONG: _value(_Unpickler.digits),
    pickle.FLOAT: _value(lambda machine: float(machine.line())),
    pickle.BININT: _number("<i"),
    pickle.BININT1: _number("<B"),
    pickle.BININT2: _number("<H"),
    pickle.BINFLOAT: _number(">d"),
    pickle.LONG1: _value(lambda machine: int.from_bytes(machine.counted("<B"), "little", signed=True)),
    pickle.STRING: _Unpickler.push_quoted,
    pickle.BINSTRING: lambda machine: machine.push_string(machine.counted("<i")),
    pickle.SHORT_BINSTRING: lambda machine: machine.push_string(machine.counted("<B")),
    pickle.UNICODE: _value(lambda machine: str(machine.line(), "raw-unicode-escape")),
    pickle.SHORT_BINUNICODE: _text("<B"),
    pickle.BINUNICODE: _text("<I"),
    pickle.BINUNICODE8: _text("<Q"),
    pickle.SHORT_BINBYTES: _bytes("<B"),
    pickle.BINBYTES: _bytes("<I"),
    pickle.BINBYTES8: _bytes("<Q"),
    pickle.BYTEARRAY8: _bytes("<Q"),  # an array's data in protocol 5
    pickle.EMPTY_TUPLE: _value(lambda _: ()),
    pickle.TUPLE1: _value(lambda machine: tuple(machine.pop(1))),
    pickle.TUPLE2: _value(lambda machine: tuple(machine.pop(2))),
    pickle.TUPLE3: _value(lambda machine: tuple(machine.pop(3))),
    pickle.TUPLE: _value(lambda machine: tuple(machine.pop_mark())),
    pickle.EMPTY_LIST: _value(lambda _: []),
    pickle.LIST: _value(_Unpickler.pop_mark),
    pickle.APPEND: lambda machine: machine.extend(machine.pop(1)),
    pickle.APPENDS: lambda machine: machine.extend(machine.pop_mark()),
    pickle.EMPTY_DICT: _value(lambda _: {}),
    pickle.DICT: lambda machine: machine.make_dict(machine.pop_mark()),
    pickle.SETITEM: lambda machine: machine.update(machine.pop(2)),
    pickle.SETITEMS: lambda machine: machine.update(machine.pop_mark()),
    pickle.PUT: lambda machine: machine.put(machine.digits()),
    pickle.BINPUT: lambda machine: machine.put(machine.number("<B")),
    pickle.LONG_BINPUT: lambda machine: machine.put(machine.number("<I")),
    pickle.MEMOIZE: lambda machine: machine.put(len(machine.memo)),
    pickle.GET: lambda machine: machine.get(machine.digits()),
    pickle.BINGET: lambda machine: machine.get(machine.number("<B")),
    pickle.LONG_BINGET: lambda machine: machine.get(machine.number("<I")),
    pickle.GLOBAL: lambda machine: machine.find(str(machine.line(), "utf-8"), str(machine.line(), "utf-8")),
    pickle.STACK_GLOBAL: lambda machine: machine.find(*machine.pop(2)),
    pickle.REDUCE: _Unpickler.call,
    pickle.BUILD: _Unpickler.build,
}
