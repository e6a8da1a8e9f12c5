"""numpy <-> the JSON of the REST API: what a client writes and reads, and the quick way to read a block of numbers.

Numbers go out through orjson and come in through simdjson, which are 10 times
as fast as the standard library (measured in the benchmarks). Neither knows
`NaN` or `Infinity`, which the REST API writes as bare words, so an array that
holds any takes the slow road through `json`.
"""

import base64
import json
import math
import re
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import simdjson

from tfs_helpers import dtypes
from tfs_helpers.errors import InputError
from tfs_helpers.signatures import Signature, TensorSpec
from tfs_helpers.tensors import as_array

__all__ = ["decode_outputs", "encode_inputs", "number_block"]

Array = npt.NDArray[Any]

_local = threading.local()
_NUMBER_BYTES = b"0123456789+-.eE \t\r\n"
_MOST_DIMENSIONS = 32  # of an array in any numpy
_MOST_STEPS = 256
# REST has no way to write these (json_tensor.cc): the server answers UNIMPLEMENTED.
_NOT_IN_JSON = {"DT_HALF", "DT_BFLOAT16", "DT_UINT16", "DT_COMPLEX64", "DT_COMPLEX128"}


# ---- out: what a client sends


def encode_inputs(arrays: Mapping[str, Array], signature_name: str = "", *, rows: bool = False) -> bytes:
    """The body of a predict request.

    Args:
        arrays: by input name, as `Signature.check` gives them.
        signature_name: the signature to run; empty for the default.
        rows: write `instances`, one element per example, rather than `inputs`, one array per input.

    Raises:
        InputError: a dtype or an empty shape that JSON cannot carry; in row form, arrays without a common first
            dimension.
    """
    arrays = {name: as_array(array) for name, array in arrays.items()}
    for name, array in arrays.items():
        dtype = dtypes.of_array(array)
        if dtype.name in _NOT_IN_JSON:
            raise InputError(
                f"Input {name!r} is {dtype.word}, which the REST API cannot carry.",
                "The real server refuses half, bfloat16, uint16 and complex numbers in JSON.",
                "Call the model by gRPC, which carries every type.",
            )
        if array.size == 0 and array.shape.index(0) < array.ndim - 1:
            raise InputError(
                f"Input {name!r} is empty, and JSON cannot carry its shape {array.shape}.",
                "An empty list does not say how many dimensions would follow, so the server would see another shape.",
                "Call the model by gRPC, or send nothing at all.",
            )
    head: dict[str, Any] = {"signature_name": signature_name} if signature_name else {}
    if rows:
        return _dumps({**head, "instances": _rows(arrays)}, arrays)
    values = {name: _values(array) for name, array in arrays.items()}
    return _dumps({**head, "inputs": next(iter(values.values())) if len(values) == 1 else values}, arrays)


def _rows(arrays: Mapping[str, Array]) -> Any:
    sizes = {array.shape[0] if array.ndim else None for array in arrays.values()}
    if len(sizes) != 1 or None in sizes:
        raise InputError(
            "The row form needs inputs with one common first dimension.",
            f"Their shapes are {', '.join(f'{name} {array.shape}' for name, array in arrays.items())}.",
            "Use the column form, which takes any shapes.",
        )
    values = {name: _values(array) for name, array in arrays.items()}
    if len(values) == 1:
        return next(iter(values.values()))
    return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]


def _values(array: Array) -> Any:
    """Something that orjson writes as this array: the array itself, or lists of text and base64 objects."""
    if array.dtype.kind != "O":
        return array if array.ndim else array.item()
    return _texts(array.tolist())


def _texts(value: Any) -> Any:
    if isinstance(value, list):
        return [_texts(item) for item in value]
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _dumps(document: dict[str, Any], arrays: Mapping[str, Array]) -> bytes:
    if all(array.dtype.kind != "f" or bool(np.isfinite(array).all()) for array in arrays.values()):
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
    return json.dumps(document, default=_plain).encode()


def _plain(value: Any) -> Any:
    """Arrays for `json`: floats as the shortest text that is that float."""
    if not isinstance(value, (np.ndarray, np.generic)):
        raise TypeError(f"{type(value).__name__} is not JSON serializable")
    if value.dtype == np.float32:
        return value.astype("U32").astype(np.float64).tolist()
    return value.tolist()


# ---- in: what a client receives


def decode_outputs(body: bytes, signature: Signature) -> dict[str, Array]:
    """The arrays of a predict answer, in row or column form.

    Args:
        body: the answer, `{"outputs": ...}` or `{"predictions": ...}`.
        signature: what the model gives; a single output comes without its name.

    Returns:
        The arrays by output name, writable, of the signature's dtypes; strings as object arrays of bytes.

    Raises:
        ValueError: it is no JSON, or not of the form that the signature promises.
    """
    outputs = signature.outputs
    if len(outputs) == 1:
        ((name, spec),) = outputs.items()
        kind = {"f": "d", "i": "i", "u": "u"}.get(dtypes.by_name(spec.dtype).type.kind)
        found = number_block(body, (b"outputs", b"predictions"), kind) if kind else None
        if found is not None:
            return {name: _cast(found[1], spec)}
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        # NaN, infinities, or a string output that is no UTF-8 and comes as raw bytes all the same.
        document = json.loads(body.decode(errors="surrogateescape"))
    try:
        values = document["outputs"] if "outputs" in document else document["predictions"]
        if len(outputs) == 1:
            values = dict.fromkeys(outputs, values)
        elif "outputs" not in document:
            values = {name: [row[name] for row in values] for name in outputs}
        return {name: _array(values[name], spec) for name, spec in outputs.items()}
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _array(values: Any, spec: TensorSpec) -> Array:
    dtype = dtypes.by_name(spec.dtype)
    array = as_array(_bytes(values) if dtype.is_text else values, dtype)
    if dtypes.of_array(array) != dtype:
        raise ValueError(f"{spec.name} is {array.dtype}, not {dtype.label}")
    return array


def _bytes(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes(item) for item in value]
    if isinstance(value, dict):
        return base64.b64decode(value["b64"], validate=True)
    return value.encode(errors="surrogateescape")


def _cast(array: Array, spec: TensorSpec) -> Array:
    dtype = dtypes.by_name(spec.dtype)
    with np.errstate(over="ignore"):
        cast = array.astype(dtype.type, copy=False)
    if dtype.type.kind in "iu" and not np.array_equal(cast, array):
        raise ValueError(f"{spec.name} holds numbers that do not fit {dtype.label}")
    return cast


# ---- both: a block of numbers, read at once


def number_block(body: bytes, keys: tuple[bytes, ...], kind: str) -> tuple[str, Array] | None:
    """The array in a document of one key, `{"inputs": [[1.0, 2.0], [3.0, 4.0]]}`, where it is a full block of numbers.

    Args:
        body: the JSON text.
        keys: the names that the one key may have.
        kind: `d` for float64, `i` for int64 (whole numbers only), `u` for uint64.

    Returns:
        The key and the array; None where the document has any other form: then take the slow road.
    """
    head = _head(keys).match(body)
    if head is None:
        return None
    # Without its numbers, a full block has a skeleton that its shape determines: "[[,],[,]]" is (2, 2).
    skeleton = body[head.end() - 1 :].translate(None, _NUMBER_BYTES)
    shape = _shape_of(skeleton)
    if shape is None or skeleton != _skeleton_of(shape):
        return None
    key = head[1].decode()
    parser = _parser()
    try:
        document = parser.parse(body)
        values = np.frombuffer(document[key].as_buffer(of_type=kind), {"d": "f8", "i": "i8", "u": "u8"}[kind])
    except (ValueError, TypeError, RuntimeError):
        return None
    finally:
        # The parser takes no other text while anybody holds a document of it.
        document = None
    return (key, values.reshape(shape)) if len(values) == math.prod(shape) else None


@lru_cache(maxsize=16)
def _head(keys: tuple[bytes, ...]) -> "re.Pattern[bytes]":
    return re.compile(rb'\s*\{\s*"(' + b"|".join(map(re.escape, keys)) + rb')"\s*:\s*\[')


def _parser() -> Any:
    parser = getattr(_local, "parser", None)
    if parser is None:
        parser = _local.parser = simdjson.Parser()
    return parser


def _shape_of(skeleton: bytes) -> tuple[int, ...] | None:
    """The shape that a skeleton has if it is full; whether it is, its whole text must tell."""
    rank = len(skeleton) - len(skeleton.lstrip(b"["))
    if rank > _MOST_DIMENSIONS:
        return None
    shape: list[int] = []
    inner = 0
    for depth in reversed(range(rank)):
        length = _length_at(skeleton, depth, inner, b"]" * (rank - depth))
        count, rest = divmod(length - 1, inner + 1)
        if rest:
            return None
        shape.insert(0, count)
        inner = length
    return tuple(shape)


def _length_at(skeleton: bytes, depth: int, inner: int, closing: bytes) -> int:
    """The length of the first list at a depth, whose elements have `inner` bytes each, if the skeleton is full."""
    at = depth + 1 + inner
    for _ in range(_MOST_STEPS):
        if skeleton[at : at + 1] != b",":
            return at + 1 - depth
        at += inner + 1
    # Looking for its end takes time for every list inside, so it is for long ones.
    return skeleton.find(closing, at) + len(closing) - depth


def _skeleton_of(shape: tuple[int, ...]) -> bytes:
    unit = b""
    for size in reversed(shape):
        unit = b"[" + ((unit + b",") * size)[:-1] + b"]"
    return unit + b"}"
