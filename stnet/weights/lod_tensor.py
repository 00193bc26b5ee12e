"""LoDTensor, Paddle's binary format of one tensor in releases 1.x: read with every bound checked, and written.

uint32 version = 0; uint64 LoD levels, each uint64 bytes and data; uint32 tensor version = 0;
int32 n; n bytes of protobuf TensorDesc (field 1: data type, field 2: dims); little-endian data
"""

from __future__ import annotations

import struct
from math import prod

import numpy as np

_DTYPES: dict[int, np.dtype] = {4: np.dtype("<f2"), 5: np.dtype("<f4"), 6: np.dtype("<f8")}
_FLOAT32 = 5
_MAX_LEVELS = 8
_MAX_DESC = 256  # bytes; a TensorDesc of nine dims takes at most 102
HEADER = struct.pack("<IQ", 0, 0)  # first bytes of a parameter


class LodTensorError(ValueError):
    """Damaged data, with its offset."""


def read_tensor(data: bytes | memoryview, offset: int = 0) -> tuple[np.ndarray, int]:
    """Read one tensor from the data of a file. Returns (array, offset of its end).

    Raises:
        LodTensorError: damaged data; nothing is allocated for sizes that the data only claims.
    """
    data = memoryview(data)
    version, offset = _unpack(data, offset, "<I", "the version")
    if version:
        raise LodTensorError(f"the version is {version}, expected 0, at offset {offset - 4}")
    levels, offset = _unpack(data, offset, "<Q", "the number of LoD levels")
    if levels > _MAX_LEVELS:
        raise LodTensorError(f"{levels} LoD levels are not a parameter's, at offset {offset - 8}")
    for _ in range(levels):
        size, offset = _unpack(data, offset, "<Q", "the size of a LoD level")
        _, offset = _take(data, offset, size, "a LoD level")
    version, offset = _unpack(data, offset, "<I", "the tensor version")
    if version:
        raise LodTensorError(f"the tensor version is {version}, expected 0, at offset {offset - 4}")
    size, offset = _unpack(data, offset, "<i", "the size of the description")
    if not 0 < size <= _MAX_DESC:
        raise LodTensorError(f"the description claims {size} bytes at offset {offset - 4}")
    desc, offset = _take(data, offset, size, "the description")
    dtype, dims = _parse_desc(bytes(desc), offset - size)
    raw, offset = _take(data, offset, prod(dims) * dtype.itemsize, f"the data of shape {dims}")
    return np.frombuffer(raw, dtype).reshape(dims), offset


def tensor_bytes(array: np.ndarray) -> bytes:
    """Encode one float32 tensor as Paddle does."""
    desc = b"\x08" + _varint(_FLOAT32) + b"".join(b"\x10" + _varint(n) for n in array.shape)
    head = HEADER + struct.pack("<Ii", 0, len(desc))
    return head + desc + np.ascontiguousarray(array, "<f4").tobytes()


def _take(data: memoryview, offset: int, size: int, what: str) -> tuple[memoryview, int]:
    if size > len(data) - offset:
        raise LodTensorError(f"{what} claims {size} bytes at offset {offset}, where {len(data) - offset} are left")
    return data[offset : offset + size], offset + size


def _unpack(data: memoryview, offset: int, form: str, what: str) -> tuple[int, int]:
    raw, offset = _take(data, offset, struct.calcsize(form), what)
    return struct.unpack(form, raw)[0], offset


def _parse_desc(desc: bytes, offset: int) -> tuple[np.dtype, list[int]]:
    """(dtype, dims) of a TensorDesc."""
    position = 0
    dtype: np.dtype | None = None
    dims: list[int] = []
    while position < len(desc):
        field, position = _read_varint(desc, position, offset)
        if field == 0x08:
            code, position = _read_varint(desc, position, offset)
            if code not in _DTYPES:
                raise LodTensorError(f"the data type {code} is not one of floats, at offset {offset}")
            dtype = _DTYPES[code]
        elif field == 0x10:
            n, position = _read_varint(desc, position, offset)
            dims.append(n)
        elif field == 0x12:
            size, position = _read_varint(desc, position, offset)
            end = position + size
            if end > len(desc):
                raise LodTensorError(f"the dims claim {size} bytes at offset {offset + position}")
            while position < end:
                n, position = _read_varint(desc, position, offset)
                dims.append(n)
        else:
            raise LodTensorError(f"the description has an unknown field {field} at offset {offset + position - 1}")
    if dtype is None or len(dims) > 8 or not all(0 < n < 2**31 for n in dims):
        raise LodTensorError(f"the description of a tensor with dims {dims} is not a parameter's, at offset {offset}")
    return dtype, dims


def _read_varint(data: bytes, position: int, offset: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise LodTensorError(f"a number does not end, at offset {offset + position}")


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
