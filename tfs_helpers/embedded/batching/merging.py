"""The arrays of several requests in one, and the answer cut up again (batching_session.cc, batching_util.cc)."""

from collections.abc import Mapping, Sequence

import numpy as np

from tfs_helpers import dtypes
from tfs_helpers.embedded.graphs.runner import Array
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["concatenate", "merge", "padded_size", "rows", "split"]

_MOST_DIMENSIONS = 6


def rows(feeds: Mapping[str, Array]) -> int:
    """How many rows a request has.

    Raises:
        ServingError: INVALID_ARGUMENT, its inputs do not agree.
    """
    if not feeds:
        raise ServingError(Code.INVALID_ARGUMENT, "Batching Run() must have at least one input tensor")
    size = -1
    for array in feeds.values():
        if not array.ndim:
            raise ServingError(Code.INVALID_ARGUMENT, "Batching Run() input tensors must have at least one dimension")
        if size not in (-1, len(array)):
            raise ServingError(Code.INVALID_ARGUMENT, "Batching Run() input tensors must have equal 0th-dimension size")
        size = len(array)
    return size


def padded_size(size: int, allowed: Sequence[int]) -> int:
    """The first allowed size that holds a batch; its own where none does."""
    return next((each for each in allowed if each >= size), size)


def merge(name: str, arrays: Sequence[Array], padding: int, *, pad: bool) -> Array:
    """One input of all requests of a batch.

    Args:
        name: the tensor's name.
        arrays: what each request has there.
        padding: how many rows are added: the last request's first row, which is sure to be a valid one.
        pad: whether arrays of unequal shapes are padded to the largest.

    Raises:
        ServingError: they do not fit together.
    """
    if pad:
        arrays = _padded(name, arrays)
    elif any(array.shape[1:] != arrays[0].shape[1:] for array in arrays):
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"Tensors with name '{name}' from different tasks have different shapes and padding is turned off. "
            "Set pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal "
            "dimensions starting with the first dim.",
        )
    if padding:
        # The real server dies where the last request has no row; the last one that has any serves as well.
        row = next(array[:1] for array in reversed(arrays) if len(array))
        arrays = [*arrays, np.broadcast_to(row, (padding, *row.shape[1:]))]
    return concatenate(arrays)


def concatenate(arrays: Sequence[Array]) -> Array:
    """The arrays one below the other, in C order; the array itself where there is one.

    Raises:
        ServingError: INTERNAL, their types or their shapes differ.
    """
    first = arrays[0]
    if len(arrays) == 1:
        return first
    for array in arrays:
        if array.dtype != first.dtype:
            raise _no_concatenation(
                "Cannot concatenate tensors that have different data types. "
                f"Got {dtypes.of_array(first).word} and {dtypes.of_array(array).word}."
            )
        if array.shape[1:] != first.shape[1:]:
            raise _no_concatenation(f"Cannot concatenate tensors of shapes {first.shape} and {array.shape}.")
    merged = np.empty((sum(map(len, arrays)), *first.shape[1:]), first.dtype)
    np.concatenate(arrays, out=merged)
    return merged


def split(outputs: Sequence[Array], sizes: Sequence[int], padding: int) -> list[list[Array]]:
    """For each request its part of each output.

    Raises:
        ServingError: FAILED_PRECONDITION, an output does not have the batch's rows.
    """
    total = sum(sizes) + padding
    for output in outputs:
        if not output.ndim:
            raise ServingError(Code.FAILED_PRECONDITION, "Batched output tensor has 0 dimensions")
        if len(output) != total:
            raise ServingError(
                Code.FAILED_PRECONDITION,
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes "
                "of the input tensors",
            )
    parts, start = [], 0
    for size in sizes:
        parts.append([output[start : start + size] for output in outputs])
        start += size
    return parts


def _no_concatenation(words: str) -> ServingError:
    return ServingError(Code.INTERNAL, f"Tensor concat operation failed: INVALID_ARGUMENT: {words}")


def _padded(name: str, arrays: Sequence[Array]) -> list[Array]:
    """The arrays with every dimension but the first as long as the longest, filled up with each one's first element."""
    if any(array.ndim != arrays[0].ndim for array in arrays):
        # The real server reads past its arrays here.
        raise ServingError(
            Code.FAILED_PRECONDITION,
            f"Tensors with name '{name}' from different tasks have different ranks, which padding cannot make equal.",
        )
    if arrays[0].ndim > _MOST_DIMENSIONS:
        raise ServingError(Code.INVALID_ARGUMENT, "Only tensors with rank from 1 to 6 can be padded.")
    longest = tuple(map(max, zip(*(array.shape[1:] for array in arrays), strict=True)))
    return [_filled_up(array, (len(array), *longest)) for array in arrays]


def _filled_up(array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape == shape:
        return array
    larger = np.empty(shape, array.dtype)
    if larger.size:
        if not array.size:
            raise ServingError(Code.INVALID_ARGUMENT, "Got empty tensor in batch of non-empty tensors.")
        larger[...] = array.flat[0]
        larger[tuple(map(slice, array.shape))] = array
    return larger
