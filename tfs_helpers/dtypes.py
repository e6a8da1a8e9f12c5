"""The data types of TensorFlow that numpy can hold: names, numbers, and the field of a TensorProto that carries each.

From TensorFlow's `types.proto` and `tensor.proto`. bfloat16 needs the small
package `ml_dtypes`, which is imported only when one is met.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfs_helpers.errors import InputError

__all__ = ["DTYPES", "MOST_DIMENSIONS", "DType", "by_name", "by_number", "of_array"]


MOST_DIMENSIONS = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32  # of an array in numpy


class DType(NamedTuple):
    """One data type.

    Attributes:
        name: as the protos say it, `DT_FLOAT`.
        number: its number in `tensorflow.DataType`.
        word: as TensorFlow's messages say it, `float`.
        numpy: the name of numpy's type, native byte order; "object" for strings.
        field: the field of a TensorProto that carries the values one by one.
        tag: the wire tag of that field where its packed bytes are the array's own
            little-endian bytes; 0 where the values need to be written one by one.
    """

    name: str
    number: int
    word: str
    numpy: str
    field: str
    tag: int = 0

    @property
    def type(self) -> "np.dtype[Any]":
        """Numpy's type for it, native byte order.

        Raises:
            InputError: it is bfloat16, and `ml_dtypes` is not installed.
        """
        return _numpy_type(self.numpy)

    @property
    def is_text(self) -> bool:
        """Whether it is DT_STRING: bytes of any length."""
        return self.numpy == "object"

    @property
    def label(self) -> str:
        """Its name for people who think in numpy: `float32`; `string` for bytes."""
        return "string" if self.is_text else self.numpy


# A field's tag is number * 8 + 2, the wire type of packed values: float_val is field 5, so 0x2A.
DTYPES = (
    DType("DT_FLOAT", 1, "float", "float32", "float_val", 0x2A),
    DType("DT_DOUBLE", 2, "double", "float64", "double_val", 0x32),
    DType("DT_INT32", 3, "int32", "int32", "int_val"),
    DType("DT_UINT8", 4, "uint8", "uint8", "int_val"),
    DType("DT_INT16", 5, "int16", "int16", "int_val"),
    DType("DT_INT8", 6, "int8", "int8", "int_val"),
    DType("DT_STRING", 7, "string", "object", "string_val"),
    DType("DT_COMPLEX64", 8, "complex64", "complex64", "scomplex_val", 0x4A),
    DType("DT_INT64", 9, "int64", "int64", "int64_val"),
    DType("DT_BOOL", 10, "bool", "bool", "bool_val", 0x5A),
    DType("DT_BFLOAT16", 14, "bfloat16", "bfloat16", "half_val"),
    DType("DT_UINT16", 17, "uint16", "uint16", "int_val"),
    DType("DT_COMPLEX128", 18, "complex128", "complex128", "dcomplex_val", 0x62),
    DType("DT_HALF", 19, "half", "float16", "half_val"),
    DType("DT_UINT32", 22, "uint32", "uint32", "uint32_val"),
    DType("DT_UINT64", 23, "uint64", "uint64", "uint64_val"),
)

_BY_NAME = {dtype.name: dtype for dtype in DTYPES}
_BY_NUMBER = {dtype.number: dtype for dtype in DTYPES}
_BY_NUMPY = {dtype.numpy: dtype for dtype in DTYPES}
_BY_TYPE: dict[type[Any], DType] = {}
_STRING = _BY_NAME["DT_STRING"]


@cache
def _numpy_type(name: str) -> "np.dtype[Any]":
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise InputError(
                "numpy has no bfloat16 of its own.",
                "The small package ml_dtypes adds it; it comes with TensorFlow, but not with the client alone.",
                "Install it: pip install ml_dtypes.",
            ) from None
        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(name)


def by_name(name: str) -> DType:
    """The data type called `name`, such as `DT_FLOAT`.

    A reference to a variable, such as the `DT_FLOAT_REF` in signatures of TensorFlow 1, is sent as its value.

    Raises:
        InputError: numpy cannot hold it.
    """
    try:
        return _BY_NAME[name.removesuffix("_REF")]
    except KeyError:
        raise InputError(
            f"{name} tensors cannot be converted to or from numpy.",
            "Quantized types, resources and variants have no numpy type.",
            "Give the model a signature whose inputs and outputs are plain numbers, booleans or strings.",
        ) from None


def by_number(number: int) -> DType | None:
    """The data type with that number in `tensorflow.DataType`, or None where numpy cannot hold it."""
    return _BY_NUMBER.get(number)


def of_array(array: npt.NDArray[Any]) -> DType:
    """The data type of an array, whatever its byte order; text and bytes are DT_STRING.

    Raises:
        InputError: TensorFlow has no such type.
    """
    found = _BY_TYPE.get(array.dtype.type)
    if found is not None:
        return found
    if array.dtype.kind in "OSUT":
        return _STRING
    try:
        # Asking for the name takes longer than a small model runs, so it is asked once for each type.
        return _BY_TYPE.setdefault(array.dtype.type, _BY_NUMPY[array.dtype.name])
    except KeyError:
        raise InputError(
            f"TensorFlow has no tensors of numpy type {array.dtype}.",
            "Dates, structured arrays and extended precision exist in numpy only.",
            'Convert it first, for example with array.astype("float32").',
        ) from None
