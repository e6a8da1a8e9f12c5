"""A REST predict request: from its JSON to arrays, by the rules and with the error texts of the real server.

The rules are those of json_tensor.cc: shapes come from the nesting, never from
the signature; an integer input takes integers only; a string input takes text
or `{"b64": ...}`. The usual body, one full block of numbers, never becomes
Python objects at all.
"""

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfs_helpers import dtypes, protos
from tfs_helpers.embedded.answering import rapidjson
from tfs_helpers.embedded.answering.json_text import shape_text, value_text
from tfs_helpers.embedded.status import Code, ServingError, refused
from tfs_helpers.json_tensors import number_block

__all__ = ["PredictBody", "is_base64", "kind_of", "parse_body", "signature_name_of", "unbase64"]

Array = npt.NDArray[Any]

_MOST_EXACT = 2**16
_KEYS = (b"inputs", b"instances")
_INT32 = range(-(2**31), 2**31)
_RANGES = {"DT_INT64": range(-(2**63), 2**63), "DT_UINT32": range(2**32), "DT_UINT64": range(2**64)}


class PredictBody:
    """A parsed predict request.

    Attributes:
        signature_name: as the request says; empty where it does not.
        is_rows: whether it is in row form, `instances`.
    """

    def __init__(self, body: bytes) -> None:
        """Parse the body.

        Raises:
            ServingError: INVALID_ARGUMENT, where it is no JSON object or its signature name is no text.
        """
        self._body = body
        self._document: dict[str, Any] | None = None
        self._block = number_block(body, _KEYS, "d")
        if self._block is not None:
            self.signature_name, self.is_rows = "", self._block[0] == "instances"
            return
        self._document = document = parse_body(body)
        self.signature_name, self.is_rows = signature_name_of(document), "instances" in document

    def arrays(self, infos: Mapping[str, Any]) -> dict[str, Array]:
        """The inputs as arrays.

        Args:
            infos: the signature's inputs, TensorInfo protos by name.

        Raises:
            ServingError: in the real server's words.
        """
        names = sorted(infos)
        if self._block is not None:
            if len(names) == 1:
                array = self._from_block(infos[names[0]].dtype)
                if array is not None:
                    return {names[0]: array}
            self._document = parse_body(self._body)
        document = self._document or {}
        try:
            return _arrays(document, infos)
        except ServingError:
            if len(self._body) > _MOST_EXACT:
                raise
        # Error texts show numbers as RapidJSON reads them, to their last digit.
        return _arrays(rapidjson.parse(self._body), infos)

    def _from_block(self, number: int) -> Array | None:
        """The block of numbers in the signature's type; None where that needs a closer look."""
        dtype = dtypes.by_number(number)
        if dtype is None or dtype.name not in ("DT_FLOAT", "DT_DOUBLE", "DT_INT32", "DT_INT64"):
            return None
        assert self._block is not None
        if dtype.type.kind == "f":
            with np.errstate(over="ignore"):
                return self._block[1].astype(dtype.type)
        whole = number_block(self._body, _KEYS, "i")
        if whole is None or (dtype.name == "DT_INT32" and not _fits_int32(whole[1])):
            return None
        return whole[1].astype(dtype.type)


def _fits_int32(values: Array) -> bool:
    return bool(values.min() >= _INT32.start and values.max() < _INT32.stop)


# What the standard library reads otherwise: numbers beyond 64 bits or doubles, and halves of surrogate pairs.
_NEEDS_CARE = re.compile(r"[eE]\+?[0-9]{3}|(?<![0-9.])[0-9]{19}|\\u[dD]")
_decoder = json.JSONDecoder(object_pairs_hook=rapidjson.members, strict=True)


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. What follows its end is ignored; of two equal keys the first counts.

    Raises:
        ServingError: INVALID_ARGUMENT.
    """
    if not body:
        raise refused("JSON Parse error: The document is empty")
    document = _quickly(body)
    if not isinstance(document, dict):
        try:
            document = rapidjson.parse(body)
        except rapidjson.JsonError as error:
            raise refused(f"JSON Parse error: {error}") from None
    if not isinstance(document, dict):
        raise refused(f"JSON Value: {value_text(document)} Is not object")
    return document


def _quickly(body: bytes) -> Any:
    """The document by the standard library, where that reads it as the real server does; else None."""
    try:
        text = body.decode(errors="surrogateescape").lstrip(" \t\r\n")
        document, end = _decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    # Only as far as the document goes: the search holds up every other thread.
    return None if _NEEDS_CARE.search(text, 0, end) else document


def signature_name_of(document: dict[str, Any]) -> str:
    """The signature that a request asks for; empty where it does not say.

    Raises:
        ServingError: INVALID_ARGUMENT, where that is no text.
    """
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise refused(
            f"JSON Value: {value_text(document)} not formatted correctly. 'signature_name' key must be a string value."
        )
    return name


# ---- the two forms


def _arrays(document: dict[str, Any], infos: Mapping[str, Any]) -> dict[str, Array]:
    if "instances" in document and "inputs" in document:
        raise refused(
            f"JSON Value: {value_text(document)} Not formatted correctly expecting only one of "
            "'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        return _from_rows(document, infos)
    if "inputs" in document:
        return _from_columns(document["inputs"], infos)
    raise refused("Missing 'inputs' or 'instances' key")


def _is_object(value: Any) -> bool:
    """An object that is not just the base64 form of a string."""
    return isinstance(value, dict) and not is_base64(value)


def is_base64(value: Any) -> bool:
    """Whether a JSON value is `{"b64": "..."}`."""
    return type(value) is dict and len(value) == 1 and isinstance(value.get("b64"), str)


def _from_columns(value: Any, infos: Mapping[str, Any]) -> dict[str, Array]:
    if not _is_object(value):
        if len(infos) > 1:
            raise refused(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        return {name: _tensor(value, info.dtype) for name, info in infos.items()}
    arrays = {}
    for name, info in infos.items():
        if name not in value:
            raise refused(f"Missing named input: {name} in 'inputs' object.")
        arrays[name] = _tensor(value[name], info.dtype)
    return arrays


def _from_rows(document: dict[str, Any], infos: Mapping[str, Any]) -> dict[str, Array]:
    rows = document["instances"]
    if not isinstance(rows, list):
        raise refused(f"JSON Value: {value_text(document)} Expecting 'instances' to be an list/array")
    if not rows:
        raise refused(f"JSON Value: {value_text(document)} No values in 'instances' array")
    named = _is_object(rows[0])
    if not isinstance(rows[0], dict) and len(infos) > 1:
        raise refused(
            "instances is a plain list, but expecting list of objects as multiple input tensors required "
            "as per tensorinfo_map"
        )
    columns = {name: _Column(name, info.dtype) for name, info in infos.items()}
    for index, row in enumerate(rows):
        if named and not _is_object(row):
            raise refused(f"Expecting object but got list at item {index} of input list")
        if not named and _is_object(row):
            raise refused(f"Expecting value/list but got object at item {index} of input list")
        if named:
            _add_named(columns, index, row)
        else:
            _add(columns[min(columns)], row, f"Failed to process element: {index}")
    if not named and len(infos) > 1:
        # Strings in base64 pass for objects until here.
        first, *others = sorted(infos)
        raise refused(
            f"input size does not match signature: 1!={len(infos)} len({{{first}}}) != "
            f"len({{{','.join(sorted(infos))}}}). Sent extra: {{}}. Missing but required: {{{','.join(others)}}}."
        )
    return {name: column.stacked(len(rows)) for name, column in columns.items()}


def _add_named(columns: "dict[str, _Column]", index: int, row: dict[str, Any]) -> None:
    for name, value in row.pairs if isinstance(row, rapidjson.Members) else row.items():
        where = f"Failed to process element: {index} key: {name}"
        if name not in columns:
            error = refused(f"JSON object: does not have named input: {name}")
            raise refused(f"{where} of 'instances' list. Error: {error}")
        _add(columns[name], value, where)
    if row.keys() != columns.keys():
        raise refused(
            f"Failed to process element: {index} of 'instances' list. JSON object: {value_text(row)} "
            f"keys must be equal to: {','.join(sorted(columns))}"
        )


def _add(column: "_Column", value: Any, where: str) -> None:
    try:
        column.add(value)
    except ServingError as error:
        raise refused(f"{where} of 'instances' list. Error: {error}") from None


class _Column:
    """One input, gathered row by row."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self._number = number
        self._rows: list[Array] = []

    def add(self, value: Any) -> None:
        row = _tensor(value, self._number)
        first = self._rows[0] if self._rows else row
        if row.size != first.size:
            raise refused(f"Expecting tensor size: {first.size} but got: {row.size}")
        if row.shape != first.shape:
            raise refused(f"Expecting shape {shape_text(first.shape)} but got: {shape_text(row.shape)}")
        self._rows.append(row)

    def stacked(self, count: int) -> Array:
        """The first `count` rows as one array: a name that came twice in an object has put in one too many."""
        if self._rows[0].ndim == dtypes.MOST_DIMENSIONS:
            raise _too_deep()
        array = np.empty((count, *self._rows[0].shape), self._rows[0].dtype)
        for index, row in enumerate(self._rows[:count]):
            array[index] = row if row.ndim else row.item()
        return array


def _too_deep() -> ServingError:
    return refused(f"Tensors of more than {dtypes.MOST_DIMENSIONS} dimensions cannot be served")


# ---- one tensor


def _tensor(value: Any, number: int) -> Array:
    """A JSON value as an array of the signature's type; the nesting gives the shape, by its first elements."""
    shape: list[int] = []
    probe = value
    while isinstance(probe, list):
        shape.append(len(probe))
        if not probe:
            break
        probe = probe[0]
    if len(shape) > dtypes.MOST_DIMENSIONS:
        raise _too_deep()
    leaves: list[Any] = []
    dtype = dtypes.by_number(number)
    _gather(value, 0, shape, dtype, number, leaves)
    array = np.empty(len(leaves), dtype.type if dtype is not None else object)
    if dtype is not None and dtype.type.kind in "iu":
        # Narrow integers wrap around, as they do in the real server.
        array[:] = np.array(leaves, np.uint64 if dtype.name == "DT_UINT64" else np.int64).astype(dtype.type)
    else:
        with np.errstate(over="ignore"):
            array[:] = leaves
    return array.reshape(shape)


def _gather(value: Any, level: int, shape: list[int], dtype: dtypes.DType | None, number: int, out: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise refused(
                f"JSON Value: {value_text(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        out.append(_leaf(value, dtype, number))
        return
    if level >= len(shape):
        raise refused(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise refused(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    for item in value:
        _gather(item, level + 1, shape, dtype, number, out)


def _leaf(value: Any, dtype: dtypes.DType | None, number: int) -> Any:
    """One value, if the type takes it."""
    name = dtype.name if dtype is not None else ""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    word = dtype.word if dtype is not None else protos.enum_name("tensorflow.DataType", number)
    if name in ("DT_FLOAT", "DT_DOUBLE"):
        if is_number:
            return float(value)
    elif name in ("DT_INT32", "DT_INT16", "DT_INT8", "DT_UINT8"):
        if is_number and isinstance(value, int) and value in _INT32:
            return value
    elif name in _RANGES:
        if is_number and isinstance(value, int) and value in _RANGES[name]:
            return value
    elif name == "DT_BOOL":
        if isinstance(value, bool):
            return value
    elif name == "DT_STRING":
        if isinstance(value, str):
            return value.encode(errors="surrogateescape")
        if is_base64(value):
            return unbase64(value["b64"])
        if isinstance(value, dict):
            raise refused(f"JSON Value: {value_text(value)} not formatted correctly for base64 data")
    elif not isinstance(value, dict):
        raise ServingError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {value_text(value)} to type: {word}")
    raise refused(f"JSON Value: {value_text(value)} Type: {kind_of(value)} is not of expected type: {word}")


def kind_of(value: Any) -> str:
    """RapidJSON's name for the kind of a value."""
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, (dict, list)):
        return "Object" if isinstance(value, dict) else "Array"
    if isinstance(value, str):
        return "String"
    return "Null" if value is None else "Number"


_BASE64 = re.compile(r"([A-Za-z0-9+/]*)([=.]*)")
_SPACES = str.maketrans("", "", " \t\n\v\f\r")


def unbase64(text: str) -> bytes:
    """The bytes that a base64 text stands for: spaces do not count, padding may be left out, dots will do for it.

    Raises:
        ServingError: INVALID_ARGUMENT, where it is none.
    """
    match = _BASE64.fullmatch(text.translate(_SPACES))
    if match is not None:
        content, padding = match.groups()
        missing = -len(content) % 4
        if missing != 3 and len(padding) in (0, missing):
            return base64.b64decode(content + "=" * missing)
    raise refused("Unable to base64 decode")
