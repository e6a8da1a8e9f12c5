"""JSON as the real server writes it: its layout, its numbers, its strings.

The layout is RapidJSON's pretty writer with an indent of four, whose arrays
stand on one line in row form and on a line per element in column form. A
number is `%g` where that reads back as the same float, else `%.9g` (float32)
or `%.17g` (float64): json_tensor.cc of the real server. Blocks of more than
`EXACT` numbers are written compactly by orjson instead: the same numbers,
ten times as fast, in a text that nobody reads.
"""

import base64
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from tfs_helpers import dtypes
from tfs_helpers.embedded.answering.grisu import double_text
from tfs_helpers.embedded.answering.rapidjson import Members
from tfs_helpers.embedded.status import Code, ServingError

__all__ = [
    "classify_results",
    "column_form",
    "error_text",
    "number_texts",
    "quoted",
    "regress_results",
    "row_form",
    "shape_text",
    "value_text",
]

Array = npt.NDArray[Any]

EXACT = 256
_MOST_SHOWN = 256
_INDENT = "    "
_SPECIAL = re.compile(r'["\\\x00-\x1f]')
_ESCAPES = {code: f"\\u{code:04X}" for code in range(32)} | {
    ord(character): "\\" + letter for character, letter in zip('"\\\b\f\n\r\t', '"\\bfnrt', strict=True)
}
_UNWRITABLE = {"DT_HALF", "DT_BFLOAT16", "DT_UINT16", "DT_COMPLEX64", "DT_COMPLEX128"}


def error_text(message: str) -> str:
    """The body of an error answer."""
    return f'{{\n    "error": {quoted(message)}\n}}'


def quoted(text: str) -> str:
    """A JSON string: only what must be escaped is."""
    return f'"{text.translate(_ESCAPES) if _SPECIAL.search(text) else text}"'


def number_texts(array: Array) -> list[str]:
    """Each number of an array as the real server writes it."""
    kind = array.dtype.kind
    if kind == "b":
        return ["true" if value else "false" for value in array.ravel().tolist()]
    if kind != "f":
        return [str(value) for value in array.ravel().tolist()]
    precise = ".9g" if array.dtype.itemsize == 4 else ".17g"
    return [_float_text(value, array.dtype.type, precise) for value in array.ravel().tolist()]


def _float_text(value: float, kind: Any, precise: str) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = f"{value:g}"
    if kind(float(text)) != value:
        text = format(value, precise)
    return text if "." in text or "e" in text else text + ".0"


def row_form(outputs: Mapping[str, Array]) -> str:
    """The answer to `instances`: a list with one element per example.

    Raises:
        ServingError: an output without that first dimension, or of a type that JSON cannot carry.
    """
    batch = _batch_size(outputs)
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        if _is_big(array):
            return f'{{\n    "predictions": {_compact(array)}\n}}'
        body = _nested(_leaves(name, array, 1), array.shape, flat=True)[1:-1]
        return f'{{\n    "predictions": [{body}\n    ]\n}}' if batch else '{\n    "predictions": []\n}'
    leaves = {name: _leaves(name, array, 2) for name, array in outputs.items()}
    rows = []
    for _ in range(batch):
        members = [
            f"{_INDENT * 3}{quoted(name)}: {_nested(leaves[name], array.shape[1:], flat=True)}"
            for name, array in outputs.items()
        ]
        rows.append("{\n" + ",\n".join(members) + "\n        }")
    return '{\n    "predictions": [' + ", ".join(rows) + ("\n    ]\n}" if rows else "]\n}")


def column_form(outputs: Mapping[str, Array]) -> str:
    """The answer to `inputs`: each output as one array.

    Raises:
        ServingError: a type that JSON cannot carry.
    """
    if len(outputs) == 1:
        ((name, array),) = outputs.items()
        return f'{{\n    "outputs": {_column(name, array, 1)}\n}}'
    members = [f"{_INDENT * 2}{quoted(name)}: {_column(name, array, 2)}" for name, array in outputs.items()]
    return '{\n    "outputs": {\n' + ",\n".join(members) + "\n    }\n}"


def _column(name: str, array: Array, level: int) -> str:
    if _is_big(array):
        return _compact(array)
    return _nested(_leaves(name, array, level), array.shape, flat=False, level=level)


def classify_results(result: Any) -> str:
    """A ClassificationResult: per example a list of [label, score]."""
    rows = []
    for classification in result.classifications:
        scores = number_texts(np.array([found.score for found in classification.classes], np.float32))
        pairs = zip(classification.classes, scores, strict=True)
        rows.append("[" + ", ".join(f"[{quoted(found.label)}, {score}]" for found, score in pairs) + "]")
    return '{\n    "results": [' + ", ".join(rows) + "\n    ]\n}"


def regress_results(result: Any) -> str:
    """A RegressionResult: a number per example."""
    values = number_texts(np.array([regression.value for regression in result.regressions], np.float32))
    return '{\n    "results": [' + ", ".join(values) + "]\n}"


def _batch_size(outputs: Mapping[str, Array]) -> int:
    batch = None
    for name, array in outputs.items():
        if not array.ndim:
            raise ServingError(Code.INVALID_ARGUMENT, f"Tensor name: {name} has no shape information ")
        if batch is None:
            batch = array.shape[0]
        elif array.shape[0] != batch:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Tensor name: {name} has inconsistent batch size: {array.shape[0]} expecting: {batch}",
            )
    return batch or 0


def _is_big(array: Array) -> bool:
    """Whether an array is written compactly: many numbers, all of which orjson can write."""
    if array.size <= EXACT or array.dtype.kind not in "fiub" or dtypes.of_array(array).name in _UNWRITABLE:
        return False
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _compact(array: Array) -> str:
    return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _leaves(name: str, array: Array, level: int) -> Iterator[str]:
    """Each value of an array as text; `level` objects and lists are open around the array."""
    dtype = dtypes.of_array(array)
    if dtype.name in _UNWRITABLE and array.size:
        raise ServingError(Code.INVALID_ARGUMENT, f"Failed to write JSON value for tensor type: {dtype.word}")
    if not dtype.is_text:
        return iter(number_texts(array))
    if name.endswith("_bytes"):
        pad = _INDENT * (level + array.ndim)
        return (f'{{\n{pad}{_INDENT}"b64": "{base64.b64encode(text).decode()}"\n{pad}}}' for text in array.ravel())
    return (quoted(text.decode(errors="surrogateescape")) for text in array.ravel())


def _nested(leaves: Iterator[str], shape: Sequence[int], *, flat: bool, level: int = 0) -> str:
    """An array of that shape as text, its leaves taken one after the other."""
    if not shape:
        return next(leaves)
    if not shape[0]:
        return "[]"
    items = [_nested(leaves, shape[1:], flat=flat, level=level + 1) for _ in range(shape[0])]
    if flat:
        return "[" + ", ".join(items) + "]"
    pad = "\n" + _INDENT * (level + 1)
    return "[" + pad + ("," + pad).join(items) + "\n" + _INDENT * level + "]"


def shape_text(shape: Sequence[int]) -> str:
    """A shape as error texts show it: `[2,3]`."""
    return "[" + ",".join(map(str, shape)) + "]"


def value_text(value: Any) -> str:
    """A parsed JSON value as error texts show it: objects over several lines, arrays on one, cut at 256 bytes."""
    text = b""
    for piece in _pieces(value, 1):
        # At a number that is not finite RapidJSON's writer gives up.
        if piece is None or len(text) > _MOST_SHOWN:
            break
        text += piece.encode(errors="surrogateescape")
    return text[:_MOST_SHOWN].decode(errors="surrogateescape")


def _pieces(value: Any, level: int) -> Iterator[str | None]:
    """The texts that make up a value, `level` containers deep in another; None where it cannot be written."""
    if isinstance(value, dict):
        pad = "\n" + _INDENT * level
        separator = "{"
        for key, item in value.pairs if isinstance(value, Members) else value.items():
            yield f"{separator}{pad}{quoted(key)}: "
            yield from _pieces(item, level + 1)
            separator = ","
        yield "{}" if separator == "{" else pad[: -len(_INDENT)] + "}"
    elif isinstance(value, list):
        yield "["
        for index, item in enumerate(value):
            if index:
                yield ", "
            yield from _pieces(item, level + 1)
        yield "]"
    elif isinstance(value, str):
        yield quoted(value)
    elif isinstance(value, float):
        yield double_text(value) if math.isfinite(value) else None
    else:
        yield "null" if value is None else str(value).lower()
