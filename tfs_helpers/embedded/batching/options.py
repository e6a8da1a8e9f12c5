"""What a batching configuration says: TensorFlow Serving's `BatchingParameters` with its defaults and its checks."""

import os
from dataclasses import dataclass
from typing import Any

from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["BatchingOptions", "batching_options"]


@dataclass(frozen=True)
class BatchingOptions:
    """How requests are gathered into batches (session_bundle_config.proto, shared_batch_scheduler.h).

    Attributes:
        max_batch_size: the most rows of one request, and of one batch.
        batch_timeout_micros: how long a batch waits for more, counted from its first request.
        max_enqueued_batches: how many batches of one kind may wait, the open one among them.
        num_batch_threads: how many batches run at once, of all models together.
        thread_pool_name: what those threads are called.
        allowed_batch_sizes: a batch is padded to the first of these that holds it.
        pad_variable_length_inputs: whether tensors of unequal shapes are padded to the largest.
        enable_large_batch_splitting: whether a request may be spread over several batches.
        max_execution_batch_size: the most rows of one batch, where requests are spread.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 1
    thread_pool_name: str = "batch_threads"
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 1000

    @property
    def batch_limit(self) -> int:
        """The most rows of one batch."""
        return self.max_execution_batch_size if self.enable_large_batch_splitting else self.max_batch_size

    @property
    def queue_limit(self) -> int:
        """The most batches of one queue; without splitting, 0 means 1, as the real scheduler rewrites it."""
        return self.max_enqueued_batches or 1

    def check_threads(self) -> None:
        """Refuse what no server can start with.

        Raises:
            ServingError: in the real server's words.
        """
        if self.num_batch_threads < 1:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"num_batch_threads must be positive; was {self.num_batch_threads}"
            )

    def check_queues(self) -> None:
        """Refuse what no model can be loaded with.

        Raises:
            ServingError: in the real server's words.
        """
        sizes, splitting = self.allowed_batch_sizes, self.enable_large_batch_splitting
        words = ""
        if sizes and sizes[-1] != self.max_batch_size:
            words = (
                "Last entry in allowed_batch_sizes must match max_batch_size; "
                f"last entry was {sizes[-1]}; expected {self.max_batch_size}"
            )
        elif not self.max_batch_size:
            words = "input_batch_size_limit must be positive; was 0"
        elif self.batch_timeout_micros < 0:
            words = f"batch_timeout_micros must be non-negative; was {self.batch_timeout_micros}"
        elif splitting and not self.max_enqueued_batches:
            words = "max_enqueued_batches must be positive; was 0"
        elif splitting and self.max_batch_size < self.max_execution_batch_size:
            # The three numbers are run together there too.
            words = (
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
                f"max_execution_batch_size.1{self.max_batch_size}{self.max_execution_batch_size}"
            )
        elif splitting and not self.max_execution_batch_size:
            # The real server loads the model, and then refuses every request.
            words = "max_execution_batch_size must be positive; was 0"
        if words:
            raise ServingError(Code.INVALID_ARGUMENT, words)


def batching_options(parameters: Any = None) -> BatchingOptions:
    """The options that a `BatchingParameters` proto says; None is `--enable_batching` without a file."""
    if parameters is None:
        return BatchingOptions(num_batch_threads=_processors(), thread_pool_name="model_server_batch_threads")

    def value(name: str, default: Any) -> Any:
        return getattr(parameters, name).value if parameters.HasField(name) else default

    defaults = BatchingOptions()
    most = _size(value("max_batch_size", defaults.max_batch_size))
    return BatchingOptions(
        max_batch_size=most,
        batch_timeout_micros=value("batch_timeout_micros", defaults.batch_timeout_micros),
        max_enqueued_batches=_size(value("max_enqueued_batches", defaults.max_enqueued_batches)),
        num_batch_threads=value("num_batch_threads", _processors()),
        thread_pool_name=value("thread_pool_name", defaults.thread_pool_name),
        allowed_batch_sizes=tuple(parameters.allowed_batch_sizes),
        pad_variable_length_inputs=parameters.pad_variable_length_inputs,
        enable_large_batch_splitting=value("enable_large_batch_splitting", False),
        max_execution_batch_size=_size(value("max_execution_batch_size", most)),
    )


def _size(number: int) -> int:
    """As C++ reads an int64 into a size_t: a negative number is no limit at all."""
    return number % 2**64


def _processors() -> int:
    """The processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
