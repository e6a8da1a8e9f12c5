"""numpy <-> TensorProto, as the clients and the embedded server both need it.

Going out, numbers travel as `tensor_content` (the array's bytes in one piece)
unless typed fields are asked for, which is what the real server answers with.
Coming in, both are read, with the rules of TensorFlow's own `Tensor::FromProto`:
too few values repeat the last one, none means zeros, surplus ones are ignored,
`tensor_content` wins. The JSON forms are in `json_tensors.py`.
"""

import math
import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from tfs_helpers import dtypes, protos
from tfs_helpers.errors import InputError

__all__ = ["as_array", "from_proto", "to_proto"]

Array = npt.NDArray[Any]

# A protobuf message ends at 2 GiB, so no honest tensor is larger; a shape that promises more is refused at once.
_MOST_BYTES = 2**31 - 1


def as_array(value: Any, dtype: dtypes.DType | None = None) -> Array:
    """Any array-like as an array ready to be sent: native byte order, in C order, strings as an object array of bytes.

    Args:
        value: an array, a number, a string, bytes, or nested lists of them; any shape.
        dtype: what the signature wants. Python numbers and lists take it, where they fit without loss of kind;
            an array keeps its own type.

    Raises:
        InputError: ragged lists, or values that no tensor holds.
    """
    if not isinstance(value, (np.ndarray, np.generic)):
        value = _from_python(value, dtype)
    array = np.asarray(value)
    found = dtypes.of_array(array)
    if found.is_text:
        return _texts(array)
    if array.dtype.byteorder == (">" if sys.byteorder == "little" else "<"):
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.c_contiguous else array.copy(order="C")


def _from_python(value: Any, dtype: dtypes.DType | None) -> Array:
    """Python values as an array; whole numbers may become floats, never the other way round."""
    try:
        if dtype is not None and dtype.is_text:
            return _text_array(value)
        array = np.asarray(value)
        if array.dtype.kind in "SUO":
            return _text_array(value)
    except (ValueError, OverflowError):
        raise InputError(
            "The value is no tensor: its lists are ragged, or its numbers are too large for any type.",
            "A tensor is a full block: every row has the same length and one kind of value.",
            "Pad the rows to one length, or send them one at a time.",
        ) from None
    if dtype is None or array.size == 0:
        return array if dtype is None else array.astype(dtype.type)
    if array.dtype.kind == "f" and dtype.type.kind not in "iub":
        return array.astype(dtype.type)
    if array.dtype.kind in "iu" and dtype.type.kind != "b":
        cast = array.astype(dtype.type)
        if dtype.type.kind not in "iu" or (cast == array).all():
            return cast
    return array


def _text_array(value: Any) -> Array:
    """Nested lists of str and bytes as an object array. By hand, since numpy drops trailing NULs from bytes."""
    shape: list[int] = []
    probe = value
    while isinstance(probe, (list, tuple)):
        shape.append(len(probe))
        if not probe:
            break
        probe = probe[0]
    flat = [value]
    for length in shape:
        if not all(isinstance(row, (list, tuple)) and len(row) == length for row in flat):
            raise ValueError("the lists are ragged")
        flat = [item for row in flat for item in row]
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(shape)


def _texts(array: Array) -> Array:
    """An array of str or bytes as an object array of bytes; str becomes UTF-8."""
    flat = np.empty(array.size, object)
    for index, item in enumerate(array.ravel().tolist()):
        if isinstance(item, str):
            flat[index] = item.encode()
        elif isinstance(item, (bytes, bytearray, memoryview)):
            flat[index] = bytes(item)
        else:
            raise InputError(
                f"A string tensor holds text and bytes, but element {index} is of type {type(item).__name__}.",
                "An array of mixed Python objects, or a ragged list, becomes an object array in numpy.",
                "Use str or bytes throughout, or give numbers a numeric dtype.",
            )
    return flat.reshape(array.shape)


def to_proto(value: Any, *, typed: bool = False) -> Any:
    """A TensorProto that holds `value`.

    Args:
        value: anything that `as_array` takes.
        typed: write the values one by one (`float_val`, `int_val`, ...), as the real server answers,
            rather than as `tensor_content`. Strings are always `string_val`.

    Raises:
        InputError: as `as_array`.
    """
    array = as_array(value)
    dtype = dtypes.of_array(array)
    proto = protos.TensorProto(dtype=dtype.number)
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    if not array.ndim:
        proto.tensor_shape.SetInParent()
    if dtype.is_text:
        proto.string_val.extend(array.ravel().tolist())
    elif array.size == 0:
        return proto
    elif typed:
        _fill_typed(proto, array, dtype)
    else:
        proto.tensor_content = _little(array).tobytes()
    return proto


def _little(array: Array) -> Array:
    """Between the machine's byte order and the wire's, which is little-endian."""
    return array if sys.byteorder == "little" else array.byteswap()


def _fill_typed(proto: Any, array: Array, dtype: dtypes.DType) -> None:
    if dtype.tag:
        # The packed form of these fields on the wire is the array itself, so it is copied, not walked through.
        content = _little(array).tobytes()
        proto.MergeFromString(bytes([dtype.tag]) + _varint(len(content)) + content)
    elif dtype.field == "half_val":
        proto.half_val.extend(array.ravel().view(np.uint16).tolist())
    else:
        getattr(proto, dtype.field).extend(array.ravel().tolist())


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def from_proto(proto: Any) -> Array:
    """The array that a TensorProto holds, by the rules of TensorFlow's `Tensor::FromProto`.

    A proto without a shape, or of unknown rank, is a scalar.

    Returns:
        An array of the proto's shape, native byte order, writable; strings as an object array of bytes.

    Raises:
        InputError: no such dtype, a negative dimension, or content of the wrong length.
    """
    dtype = dtypes.by_number(proto.dtype)
    if dtype is None:
        name = protos.enum_name("tensorflow.DataType", proto.dtype)
        raise InputError(f"The tensor has dtype {name}, which no array has.")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if min(shape, default=0) < 0:
        raise InputError(f"The tensor has no full shape: {list(shape)}.")
    count = math.prod(shape)
    if dtype.is_text:
        return _texts_from(proto, count).reshape(shape)
    if count * dtype.type.itemsize > _MOST_BYTES:
        raise InputError(f"The tensor's shape {list(shape)} needs more than 2 GiB, which no message carries.")
    if proto.tensor_content:
        if len(proto.tensor_content) != count * dtype.type.itemsize:
            raise InputError(
                f"The tensor's content has {len(proto.tensor_content)} bytes, but shape {list(shape)} "
                f"of {dtype.word} needs {count * dtype.type.itemsize}."
            )
        return _little(np.frombuffer(proto.tensor_content, dtype.type)).copy().reshape(shape)
    return _filled(_typed_values(proto, dtype), count, dtype).reshape(shape)


def _typed_values(proto: Any, dtype: dtypes.DType) -> Array:
    values = getattr(proto, dtype.field)
    if dtype.field == "half_val":
        return np.array(values, np.int32).astype(np.uint16).view(dtype.type)
    if dtype.type.kind == "c":
        parts = np.array(values, np.float32 if dtype.numpy == "complex64" else np.float64)
        return parts[: len(parts) // 2 * 2].view(dtype.type)
    wide = np.int32 if dtype.field == "int_val" else dtype.type
    return np.array(values, wide).astype(dtype.type)


def _filled(values: Array, count: int, dtype: dtypes.DType) -> Array:
    """`count` values: surplus ones dropped, missing ones like the last, none at all as zeros."""
    if len(values) == count:
        return values
    if len(values) > count:
        return values[:count].copy()
    array = np.zeros(count, dtype.type)
    if len(values):
        array[: len(values)] = values
        array[len(values) :] = values[-1]
    return array


def _texts_from(proto: Any, count: int) -> Array:
    if count > _MOST_BYTES:
        raise InputError(f"The tensor's shape promises {count} strings, more than a message carries.")
    values: list[bytes] = list(proto.string_val)
    if proto.tensor_content:
        values = _split_content(proto.tensor_content, count)
    array = np.empty(count, object)
    if len(values) < count:
        array[:] = values[-1] if values else b""
    array[: len(values)] = values[:count]
    return array


def _split_content(content: bytes, count: int) -> list[bytes]:
    """Strings in `tensor_content`: all the lengths as varints, then all the bytes."""
    lengths, position = [], 0
    for _ in range(count):
        length = shift = 0
        while True:
            if position >= len(content) or shift > 28:
                raise InputError("The string tensor's content ends before its lengths do.")
            byte = content[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        lengths.append(length)
    if sum(lengths) != len(content) - position:
        raise InputError("The string tensor's content does not have the length that it says.")
    values = []
    for length in lengths:
        values.append(content[position : position + length])
        position += length
    return values
