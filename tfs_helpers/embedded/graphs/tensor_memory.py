"""Arrays to TensorFlow's tensors and back, through memory."""

import ctypes
from ctypes import c_int64
from itertools import count
from typing import Any

import numpy as np

from tfs_helpers import dtypes, protos
from tfs_helpers.embedded.graphs.library import Deallocator
from tfs_helpers.embedded.graphs.runner import Array
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["to_array", "to_tensor"]

_SMALL = 4096

# Memory that TensorFlow reads in place, kept alive until it says that it is done with it.
_lent: dict[int, Any] = {}
_numbers = count(1)


def _give_back(_data: int | None, _length: int, number: int | None) -> None:
    _lent.pop(number or 0, None)


_deallocator = Deallocator(_give_back)


def to_tensor(library: ctypes.CDLL, array: Array) -> int:
    """A TF_Tensor that holds an array: a copy of a small one, and the memory itself of a large one, kept alive."""
    dtype = dtypes.of_array(array)
    shape = (c_int64 * array.ndim)(*array.shape)
    if array.nbytes <= _SMALL and not dtype.is_text:
        small: int | None = library.TF_AllocateTensor(dtype.number, shape, array.ndim, array.nbytes)
        if small:
            ctypes.memmove(library.TF_TensorData(small), array.tobytes(), array.nbytes)
            return small
    keep: Any = array
    if dtype.is_text:
        keep = block = _string_block(array)
        address, length = block[0].ctypes.data, block[0].nbytes
    else:
        address, length = array.ctypes.data, array.nbytes
    number = next(_numbers)
    _lent[number] = keep
    tensor: int | None = library.TF_NewTensor(dtype.number, shape, array.ndim, address, length, _deallocator, number)
    if not tensor:
        _lent.pop(number, None)
        raise ServingError(Code.INTERNAL, f"TensorFlow refuses a tensor of {length} bytes")
    return tensor


def _string_block(array: Array) -> tuple[Array, bytes]:
    """The strings as TensorFlow keeps them: 24 bytes each (size * 4 + 1, capacity, address), and the texts themselves.

    That is the "large" form of `TF_TString` (ctstring_internal.h). TensorFlow
    copies the text whenever it copies such a string, so nothing of ours
    outlives the tensor; each text ends in a NUL, as there.
    """
    items: list[bytes] = array.ravel().tolist()
    texts = b"\0".join(items) + b"\0"
    sizes = np.fromiter(map(len, items), np.uint64, len(items))
    start = np.frombuffer(texts, np.uint8).ctypes.data
    records = np.empty((len(items), 3), np.uint64)
    records[:, 0] = sizes * np.uint64(4) + np.uint64(1)
    records[:, 1] = sizes
    if len(items):
        records[0, 2] = start
        records[1:, 2] = np.uint64(start) + np.cumsum(sizes[:-1] + np.uint64(1), dtype=np.uint64)
    return records, texts


def to_array(library: ctypes.CDLL, tensor: int) -> Array:
    """The tensor's values in memory of their own."""
    number = library.TF_TensorType(tensor)
    dtype = dtypes.by_number(number)
    if dtype is None:
        name = protos.enum_name("tensorflow.DataType", number)
        raise ServingError(Code.UNIMPLEMENTED, f"Output of type {name} cannot be answered")
    shape = tuple(library.TF_Dim(tensor, axis) for axis in range(library.TF_NumDims(tensor)))
    length = library.TF_TensorByteSize(tensor)
    content = ctypes.string_at(library.TF_TensorData(tensor), length) if length else b""
    if dtype.is_text:
        return _strings(content).reshape(shape)
    return np.frombuffer(content, dtype.type).reshape(shape)


def _strings(content: bytes) -> Array:
    """Strings out of 24-byte records: short ones lie in the record, others where it points."""
    array = np.empty(len(content) // 24, object)
    records = np.frombuffer(content, np.uint64).reshape(-1, 3)
    for index, (head, _, address) in enumerate(records.tolist()):
        kind = head & 3
        if kind == 0:
            start = index * 24 + 1
            array[index] = content[start : start + ((head & 0xFF) >> 2)]
        elif kind == 1:
            array[index] = ctypes.string_at(address, head >> 2)
        else:
            # A view: size and address; the offset form never leaves a file that is mapped into memory.
            array[index] = ctypes.string_at(int(records[index, 1]), head >> 2)
    return array
