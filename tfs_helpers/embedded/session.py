"""One loaded SavedModel: arrays in by tensor name, arrays out, by TensorFlow's C library."""

import ctypes
import threading
from collections.abc import Mapping, Sequence
from ctypes import c_char_p, c_int64, c_void_p
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from tfs_helpers import dtypes, protos
from tfs_helpers.embedded.library import Deallocator, Output, Status, load_library
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["Session"]

Array = npt.NDArray[Any]

# Memory that TensorFlow reads in place, kept alive until it says that it is done with it.
_lent: dict[int, Any] = {}
_numbers = count(1)


def _give_back(_data: int | None, _length: int, number: int | None) -> None:
    _lent.pop(number or 0, None)


_deallocator = Deallocator(_give_back)


class Session:
    """A SavedModel, loaded and ready to run; safe to use from several threads at once.

    Args:
        folder: the version's folder.
        tags: which of its graphs to load.
        config: a serialized `tensorflow.ConfigProto`.

    Raises:
        ServingError: TensorFlow cannot load it; the code and the words are TensorFlow's.
    """

    def __init__(self, folder: str, tags: Sequence[str] = ("serve",), config: bytes = b"") -> None:
        self._library = library = load_library()
        self._graph = library.TF_NewGraph()
        self._handle: int | None = None
        self._operations: dict[str, Output] = {}
        self._lock = threading.Lock()
        options = library.TF_NewSessionOptions()
        meta_graph = library.TF_NewBuffer()
        status = Status(library)
        try:
            library.TF_SetConfig(options, config, len(config), status.handle)
            _check(status)
            tag_array = (c_char_p * len(tags))(*(tag.encode() for tag in tags))
            self._handle = library.TF_LoadSessionFromSavedModel(
                options, None, folder.encode(), tag_array, len(tags), self._graph, meta_graph, status.handle
            )
            _check(status)
            content = ctypes.string_at(meta_graph.contents.data, meta_graph.contents.length)
            self.signature_defs: dict[str, Any] = dict(protos.MetaGraphDef.FromString(content).signature_def)
        except BaseException:
            self.close()
            raise
        finally:
            library.TF_DeleteBuffer(meta_graph)
            library.TF_DeleteSessionOptions(options)

    def close(self) -> None:
        """Free its memory. Nobody may be inside `run`."""
        library = self._library
        if self._handle:
            status = Status(library)
            library.TF_CloseSession(self._handle, status.handle)
            library.TF_DeleteSession(self._handle, status.handle)
            self._handle = None
        if self._graph:
            library.TF_DeleteGraph(self._graph)
            self._graph = None

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout: float | None = None) -> list[Array]:
        """Run the graph once. The GIL is released meanwhile.

        Args:
            feeds: `{tensor name: array}`, any shapes, native byte order, C order; strings as object arrays of bytes.
            fetches: tensor names.
            timeout: seconds that the run may take; None for any.

        Returns:
            The fetched tensors in order, as arrays of their own memory.

        Raises:
            ServingError: TensorFlow's code and words.
        """
        library = self._library
        inputs = (Output * len(feeds))(*map(self._output, feeds))
        outputs = (Output * len(fetches))(*map(self._output, fetches))
        values = (c_void_p * len(feeds))()
        results = (c_void_p * len(fetches))()
        status = Status(library)
        run_options = b"" if timeout is None else _run_options(timeout)
        options = library.TF_NewBufferFromString(run_options, len(run_options)) if run_options else None
        try:
            for index, array in enumerate(feeds.values()):
                values[index] = _to_tensor(library, array)
            library.TF_SessionRun(
                self._handle,
                options,
                *(inputs, values, len(feeds)),
                *(outputs, results, len(fetches)),
                *(None, 0),
                None,
                status.handle,
            )
            _check(status)
            return [_to_array(library, result) for result in results if result]
        finally:
            for tensor in (*values, *results):
                if tensor:
                    library.TF_DeleteTensor(tensor)
            if options:
                library.TF_DeleteBuffer(options)

    def _output(self, tensor: str) -> Output:
        """The graph's output that a name such as `StatefulPartitionedCall:0` means."""
        found = self._operations.get(tensor)
        if found is not None:
            return found
        operation, _, index = tensor.rpartition(":")
        if not operation or not index.isdigit():
            operation, index = tensor, "0"
        handle = self._library.TF_GraphOperationByName(self._graph, operation.encode())
        if not handle:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Tensor {tensor}, specified in either feed_devices or fetch_devices was not found in the Graph",
            )
        with self._lock:
            return self._operations.setdefault(tensor, Output(handle, int(index)))


def _run_options(timeout: float) -> bytes:
    serialized: bytes = protos.RunOptions(timeout_in_ms=max(1, int(timeout * 1000))).SerializeToString()
    return serialized


def _check(status: Status) -> None:
    if status.code:
        raise ServingError(Code(status.code), status.message)


def _to_tensor(library: ctypes.CDLL, array: Array) -> int:
    """A TF_Tensor over the array's own memory, which it keeps alive."""
    dtype = dtypes.of_array(array)
    keep: Any = array
    if dtype.is_text:
        keep = block = _string_block(array)
        address, length = block[0].ctypes.data, block[0].nbytes
    else:
        address, length = array.ctypes.data, array.nbytes
    number = next(_numbers)
    _lent[number] = keep
    shape = (c_int64 * array.ndim)(*array.shape)
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


def _to_array(library: ctypes.CDLL, tensor: int) -> Array:
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
