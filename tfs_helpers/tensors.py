"""numpy <-> TensorProto, as the clients and the embedded server both need it.

Going out, numbers travel as `tensor_content` (the array's bytes in one piece)
unless typed fields are asked for, which is what the real server answers with.
Coming in, both are read, with the rules of TensorFlow's own `Tensor::FromProto`:
too few values repeat the last one (up to 64 MiB of it), none means zeros,
surplus ones are ignored, `tensor_content` wins. The JSON forms are in `json_tensors.py`.
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
# So that a few bytes on the wire do not become gigabytes: a tensor may repeat its last value, up to this size.
_MOST_REPEATED = 2**26
_SEQUENCES = (list, tuple)


def as_array(value: Any, dtype: dtypes.DType | None = None) -> Array:
    """Any array-like as an array ready to be sent: native byte order, in C order, strings as an object array of bytes.

    Args:
        value: an array, a number, a string, bytes, or nested lists of them; any shape.
        dtype: what the signature wants. Python numbers and lists take it where every value fits: whole numbers may
            become floats, never the other way round; an array, or what turns itself into one, keeps its own type.

    Raises:
        InputError: ragged lists, numbers too large for `dtype`, or values that no tensor holds.
    """
    array = np.asarray(value) if _is_array(value) else _from_python(value, dtype)
    found = dtypes.of_array(array)
    if found.is_text:
        return _texts(array)
    if array.dtype.byteorder == (">" if sys.byteorder == "little" else "<"):
        array = array.astype(array.dtype.newbyteorder("="))
    return array if array.flags.c_contiguous else array.copy(order="C")


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "__array_interface__")


def _from_python(value: Any, dtype: dtypes.DType | None) -> Array:
    """Python values as an array, of the wanted type where they fit it."""
    try:
        if (dtype is not None and dtype.is_text) or isinstance(_first(value), (str, bytes)):
            return _object_array(value)
        array = np.asarray(value)
        if array.dtype.kind in "SU":
            return _object_array(value)
        if array.dtype.kind == "O":
            return _large_numbers(_object_array(value), dtype)
        if array.dtype.kind == "f" and array.size and dtype is not None and dtype.numpy == "uint64":
            # Numpy makes floats of whole numbers on both sides of 2**63.
            items = _object_array(value)
            return items.astype(np.uint64) if all(type(item) is int for item in items.flat) else array
    except (ValueError, OverflowError):
        raise InputError(
            "The value is no tensor: its lists are ragged, or its numbers are too large for the type.",
            "A tensor is a full block: every row has the same length and one kind of value.",
            "Pad the rows to one length, or send them one at a time; bring the numbers into range.",
        ) from None
    if dtype is None:
        return array
    kind, wanted = array.dtype.kind, dtype.type.kind
    may_become = {"i": wanted != "b", "u": wanted != "b", "f": wanted not in "iub", "c": wanted == "c"}
    return _fitted(array, dtype) if array.size == 0 or may_become.get(kind) else array


def _first(value: Any) -> Any:
    while isinstance(value, _SEQUENCES) and value:
        value = value[0]
    return value


def _fitted(array: Array, dtype: dtypes.DType) -> Array:
    """An array of Python's numbers in another type of tensor."""
    with np.errstate(over="ignore"):
        cast = array.astype(dtype.type)
    lost = cast != array if dtype.type.kind in "iu" else np.isfinite(array) & ~np.isfinite(cast)
    if lost.any():
        raise InputError(
            f"{array[lost][0]} does not fit {dtype.label}.",
            "A number beyond the range of its type would become another number without a word.",
            "Bring the values into that range, or give the model an input of a wider type.",
        )
    return cast


def _large_numbers(array: Array, dtype: dtypes.DType | None) -> Array:
    """Whole numbers beyond 64 bits as floats, where floats are wanted; objects that are no numbers as they are."""
    if not all(isinstance(item, (int, float)) for item in array.flat):
        return array
    if dtype is None or dtype.type.kind in "iub":
        raise OverflowError
    return _fitted(array.astype(np.float64), dtype)


def _object_array(value: Any) -> Array:
    """Nested lists as an object array of what is in them. By hand, since numpy drops trailing NULs from bytes."""
    shape: list[int] = []
    value = _unwrapped(value)
    probe = value
    while isinstance(probe, _SEQUENCES):
        shape.append(len(probe))
        if not probe:
            break
        probe = _unwrapped(probe[0])
    flat = [value]
    for length in shape:
        if not all(isinstance(row, _SEQUENCES) and len(row) == length for row in flat):
            raise ValueError("the lists are ragged")
        flat = [_unwrapped(item) for row in flat for item in row]
    if any(isinstance(item, _SEQUENCES) for item in flat):
        raise ValueError("the lists are ragged")
    array = np.empty(len(flat), object)
    array[:] = flat
    return array.reshape(shape)


def _unwrapped(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _texts(array: Array) -> Array:
    """An array of str or bytes as an object array of bytes; str becomes UTF-8."""
    flat = np.empty(array.size, object)
    for index, item in enumerate(array.ravel().tolist()):
        if isinstance(item, str):
            flat[index] = _utf8(item)
        elif isinstance(item, (bytes, bytearray, memoryview)):
            flat[index] = bytes(item)
        else:
            raise InputError(
                f"A tensor holds numbers, or text and bytes, but element {index} is of type {type(item).__name__}.",
                "A list of mixed or other Python objects has no numeric type, so numpy keeps the objects.",
                "Use str or bytes throughout, or numbers throughout; None is no value of a tensor.",
            )
    return flat.reshape(array.shape)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InputError(
            f"The text {text[:40]!r} cannot be written as UTF-8.",
            "It holds half of a surrogate pair, often from a file name or from bytes decoded in another way.",
            "Send the bytes themselves.",
        ) from None


def to_proto(value: Any, *, typed: bool = False) -> Any:
    """A TensorProto that holds `value`.

    Args:
        value: anything that `as_array` takes.
        typed: write the values one by one (`float_val`, `int_val`, ...), as the real server answers,
            rather than as `tensor_content`. Strings are always `string_val`.

    Raises:
        InputError: as `as_array`; or the value needs more than 2 GiB, which no message carries.
    """
    array = as_array(value)
    dtype = dtypes.of_array(array)
    if array.nbytes > _MOST_BYTES:
        raise InputError(
            f"The array has {array.nbytes / 2**30:.1f} GiB, and a message ends at 2 GiB.",
            "Protobuf, and so gRPC, carries no larger ones.",
            "Send it in smaller batches.",
        )
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

    A proto without a shape is a scalar.

    Returns:
        An array of the proto's shape, native byte order, writable; strings as an object array of bytes.

    Raises:
        InputError: no such dtype, a negative dimension, more of them than numpy has, more than 2 GiB or more than
            64 MiB of repeated values, or content of the wrong length.
    """
    dtype = dtypes.by_number(proto.dtype)
    if dtype is None:
        name = protos.enum_name("tensorflow.DataType", proto.dtype)
        raise InputError(f"The tensor has dtype {name}, which no array has.")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    if min(shape, default=0) < 0:
        raise InputError(f"The tensor has no full shape: {list(shape)}.")
    if len(shape) > dtypes.MOST_DIMENSIONS:
        most = dtypes.MOST_DIMENSIONS
        raise InputError(f"The tensor has {len(shape)} dimensions; numpy arrays have {most} at most.")
    count = math.prod(shape)
    if count * dtype.type.itemsize > _MOST_BYTES:
        raise InputError(f"The tensor's shape {list(shape)} needs more than 2 GiB, which no message carries.")
    if math.prod(size or 1 for size in shape) * dtype.type.itemsize >= 2**63:
        raise InputError(
            f"The tensor is empty, but numpy cannot tell how far apart the rows of {list(shape)} would be."
        )
    if dtype.is_text:
        return _texts_from(proto, count).reshape(shape)
    if count == 0:
        return np.empty(shape, dtype.type)
    if proto.tensor_content:
        if len(proto.tensor_content) != count * dtype.type.itemsize:
            raise InputError(
                f"The tensor's content has {len(proto.tensor_content)} bytes, but shape {list(shape)} "
                f"of {dtype.word} needs {count * dtype.type.itemsize}."
            )
        if dtype.type.kind == "b" and max(proto.tensor_content) > 1:
            raise InputError("The tensor's content has bytes other than 0 and 1, which are no booleans.")
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
    _check_repeats(count - len(values), dtype.type.itemsize)
    array = np.zeros(count, dtype.type)
    if len(values):
        array[: len(values)] = values
        array[len(values) :] = values[-1]
    return array


def _check_repeats(missing: int, size: int) -> None:
    if missing * size > _MOST_REPEATED:
        raise InputError(
            f"The tensor's shape needs {missing} values more than it brings, {missing * size} bytes of them.",
            "Missing values are filled in with the last one, but a short message may not fill the memory.",
            "Send all the values.",
        )


def _texts_from(proto: Any, count: int) -> Array:
    values: list[bytes] = list(proto.string_val)
    if proto.tensor_content and count:
        values = _split_content(proto.tensor_content, count)
    last = values[-1] if values else b""
    _check_repeats(count - len(values), len(last) + 24)  # TensorFlow keeps 24 bytes for each
    array = np.empty(count, object)
    if len(values) < count:
        array[:] = last
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
