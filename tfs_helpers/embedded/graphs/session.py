"""One loaded SavedModel: arrays in by tensor name, arrays out, by TensorFlow's C library."""

import ctypes
import re
import threading
import time
from collections.abc import Mapping, Sequence
from ctypes import c_char_p, c_void_p
from itertools import chain
from typing import Any

from tfs_helpers import protos
from tfs_helpers.embedded.graphs.graph_signature import graph_signatures
from tfs_helpers.embedded.graphs.library import Output, Status, load_library
from tfs_helpers.embedded.graphs.pace import Pace
from tfs_helpers.embedded.graphs.runner import Array
from tfs_helpers.embedded.graphs.tensor_memory import to_array, to_tensor
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["Session"]

_UNBOUNDED = re.compile(
    "(Stateless)?While|For|Enter|RefEnter|NextIteration|(Eager)?PyFunc(Stateless)?|(Un)?[Bb]atch(Function)?|"
    ".*Queue.*|.*Iterator.*|.*Dataset.*|.*Barrier.*|.*Reader.*|_?(Host)?Recv|(Un)?[Ss]tage.*|Map(Un)?[Ss]tage.*|ReadFile"
)
_QUICK = 0.02
_VERY_QUICK = 0.0001
_NEVER = float("inf")
_MOST_PLANS = 1000  # each output filter of each signature is one
_local = threading.local()
# `inter_op_thread_pool: -1`: run on the calling thread, which saves two changes of thread, 0.07 ms. It cannot be
# interrupted there, so it is for what is known to be quick (config.proto, direct_session.cc).
_HERE = bytes([0x18]) + b"\xff" * 9 + b"\x01"


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
        self._plans: dict[tuple[tuple[str, ...], tuple[str, ...]], _Plan] = {}
        self._pace = Pace()
        self._here = library.TF_NewBufferFromString(_HERE, len(_HERE))
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
            graph = protos.MetaGraphDef.FromString(content)
            self.signatures = graph_signatures(graph.signature_def)
            self.is_bounded = _is_bounded(graph.graph_def)
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
            library.TF_DeleteBuffer(self._here)
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
        plan = self._plan(tuple(feeds), tuple(fetches))
        values, results = plan.values(), plan.results()
        status = _status(library)
        size = sum(array.nbytes for array in feeds.values())
        expected = self._pace.expected(size) if self.is_bounded else _NEVER
        run = library.quick_run if expected < _VERY_QUICK else library.TF_SessionRun
        here = expected < (_QUICK if timeout is None else min(timeout / 10, _QUICK))
        options = self._here if here else _timeout_options(library, timeout)
        try:
            for index, array in enumerate(feeds.values()):
                values[index] = to_tensor(library, array)
            started = time.perf_counter()
            run(
                self._handle,
                options,
                *(plan.inputs, values, len(feeds)),
                *(plan.outputs, results, len(fetches)),
                *(None, 0),
                None,
                status.handle,
            )
            _check(status)
            self._pace.note(size, time.perf_counter() - started)
            return [to_array(library, result) for result in results if result]
        finally:
            for tensor in (*values, *results):
                if tensor:
                    library.TF_DeleteTensor(tensor)
            if options and not here:
                library.TF_DeleteBuffer(options)

    def _plan(self, feeds: tuple[str, ...], fetches: tuple[str, ...]) -> "_Plan":
        plan = self._plans.get((feeds, fetches))
        if plan is None:
            plan = _Plan([self._output(name) for name in feeds], [self._fetched(name) for name in fetches])
            if len(self._plans) < _MOST_PLANS:
                self._plans[feeds, fetches] = plan
        return plan

    def _output(self, tensor: str) -> Output:
        """The graph's output that a name such as `StatefulPartitionedCall:0` means."""
        operation, _, index = tensor.rpartition(":")
        if not operation or not index.isdigit():
            operation, index = tensor, "0"
        handle = self._library.TF_GraphOperationByName(self._graph, operation.encode())
        if not handle:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Tensor {tensor}, specified in either feed_devices or fetch_devices was not found in the Graph",
            )
        return Output(handle, int(index))

    def _fetched(self, tensor: str) -> Output:
        """The same for what is fetched, which must be there (subgraph.cc; the C API would say it in other words)."""
        output = self._output(tensor)
        count = self._library.TF_OperationNumOutputs(output.operation)
        if not count:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Tried to fetch data for '{tensor}', which produces no output.  To run to a node but not fetch any "
                f"data, pass '{tensor}' as an argument to the 'target_node_names' argument of the Session::Run API.",
            )
        if output.index >= count:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"FetchOutputs {tensor}: output index too large, must be < {count}"
            )
        return output


class _Plan:
    """What a run of these feeds and fetches passes to TensorFlow each time."""

    def __init__(self, inputs: list[Output], outputs: list[Output]) -> None:
        self.inputs = (Output * len(inputs))(*inputs)
        self.outputs = (Output * len(outputs))(*outputs)
        self.values = c_void_p * len(inputs)
        self.results = c_void_p * len(outputs)


def _is_bounded(graph: Any) -> bool:
    """Whether a GraphDef proto holds nothing that loops or waits."""
    nodes = chain(graph.node, *(function.node_def for function in graph.library.function))
    return not any(_UNBOUNDED.fullmatch(node.op) for node in nodes)


def _timeout_options(library: ctypes.CDLL, timeout: float | None) -> Any:
    """A buffer with RunOptions, to be deleted; None where there is nothing to say."""
    if timeout is None:
        return None
    content = protos.RunOptions(timeout_in_ms=max(1, int(timeout * 1000))).SerializeToString()
    return library.TF_NewBufferFromString(content, len(content))


def _status(library: ctypes.CDLL) -> Status:
    """This thread's own."""
    status: Status | None = getattr(_local, "status", None)
    if status is None:
        status = _local.status = Status(library)
    return status


def _check(status: Status) -> None:
    if status.code:
        raise ServingError(Code(status.code), status.message)
