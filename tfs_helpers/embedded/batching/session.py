"""A loaded version whose requests run together: many small calls become few large ones (batching_session.cc)."""

import math
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tfs_helpers.embedded.batching.merging import concatenate, merge, padded_size, rows, split
from tfs_helpers.embedded.batching.options import BatchingOptions
from tfs_helpers.embedded.batching.queue import Task
from tfs_helpers.embedded.batching.scheduler import BatchScheduler
from tfs_helpers.embedded.graphs.runner import Array, Runner
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["BatchObserver", "BatchingSession"]


class BatchObserver(Protocol):
    """Who counts requests and batches."""

    def request(self, size: int, tensors: int) -> None:
        """A request with so many rows in each of its input tensors is about to be queued."""

    def queuing(self, seconds: float) -> None:
        """A request has waited so long for its batch."""

    def batch(self, processed_size: int, padding: int) -> None:
        """A batch is put together: so many rows, so many of which are padding."""

    def run(self) -> None:
        """A batch was run, whatever came of it."""


class _Kind(NamedTuple):
    """What requests must have in common to share a batch: the tensors that they feed and fetch, sorted."""

    feeds: tuple[str, ...]
    fetches: tuple[str, ...]


class BatchingSession:
    """Runs the calls of a loaded version in batches; safe to use from several threads at once.

    Args:
        session: the loaded version. It belongs to the new object, which also closes it where the options are refused.
        scheduler: the server's.
        options: how its calls are gathered.
        observer: who is told of every batch.

    Attributes:
        options: as given.
        closing: whether `close` was called.
        signatures: the loaded version's.
        is_bounded: never: a call waits for others.

    Raises:
        ServingError: INVALID_ARGUMENT, in the real server's words.
    """

    def __init__(
        self,
        session: Runner,
        scheduler: BatchScheduler,
        options: BatchingOptions,
        observer: BatchObserver | None = None,
    ) -> None:
        try:
            options.check_queues()
        except ServingError:
            session.close()
            raise
        self.options = options
        self.signatures = session.signatures
        self.is_bounded = False
        self._session = session
        self._scheduler = scheduler
        self._observer = observer
        self._idle = threading.Condition()
        self._inside = 0
        self.closing = False

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout: float | None = None) -> list[Array]:
        """Run it together with other calls that feed and fetch the same tensors.

        Args:
            feeds: `{tensor name: array}`; all have the same number of rows.
            fetches: tensor names; each has as many rows as the inputs.
            timeout: seconds that it may take, the time in the queue included; None for any.

        Returns:
            The fetched tensors in order; parts of larger arrays.

        Raises:
            ServingError: TensorFlow's code and words, or those of the batching; where another call spoils the
                batch, its error.
        """
        with self._idle:
            if self.closing:
                raise ServingError(Code.UNAVAILABLE, "The model is being unloaded")
            self._inside += 1
        try:
            outputs = self._queued(_Kind(tuple(sorted(feeds)), tuple(sorted(set(fetches)))), dict(feeds), timeout)
        finally:
            with self._idle:
                self._inside -= 1
                if self.closing:
                    self._idle.notify_all()
        return [outputs[name] for name in fetches]

    def close(self) -> None:
        """Let the calls that are inside finish, at once, and free the version's memory."""
        with self._idle:
            self.closing = True
        self._scheduler.hurry()
        with self._idle:
            self._idle.wait_for(lambda: not self._inside)
        self._session.close()

    def _queued(self, kind: _Kind, feeds: dict[str, Array], timeout: float | None) -> dict[str, Array]:
        now = time.monotonic()
        task = Task(feeds, rows(feeds), now, math.inf if timeout is None else now + timeout)
        if self._observer is not None:
            self._observer.request(task.size, len(feeds))
        parts = self._scheduler.schedule(self, kind, task)
        for part in parts:
            part.wait()
        results = [part.result() for part in parts]
        return {
            name: concatenate(arrays) for name, arrays in zip(kind.fetches, zip(*results, strict=True), strict=True)
        }

    def process(self, kind: Hashable, tasks: Sequence[Task]) -> None:
        """Run a batch and finish its tasks: all of them with the same error where there is one."""
        assert isinstance(kind, _Kind)
        try:
            results = self._run_batch(kind, tasks)
        except ServingError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  the thread goes on, and the callers have their answer
            log.exception("A batch broke off")
            failure = ServingError(Code.INTERNAL, f"{type(error).__name__} in a batch: {error}")
        else:
            for task, outputs in zip(tasks, results, strict=True):
                task.finish(outputs)
            return
        for task in tasks:
            task.finish((), failure)

    def _run_batch(self, kind: _Kind, tasks: Sequence[Task]) -> list[list[Array]]:
        now = time.monotonic()
        if self._observer is not None:
            for task in tasks:
                self._observer.queuing(now - task.queued)
        deadline = max(task.deadline for task in tasks)
        if deadline <= now:
            raise ServingError(Code.RESOURCE_EXHAUSTED, "Run() timeout exceeded while waiting in batching queue")
        sizes = [task.size for task in tasks]
        size = sum(sizes)
        # A batch without any row has nothing to be padded with.
        padding = padded_size(size, self.options.allowed_batch_sizes) - size if size else 0
        if self._observer is not None:
            self._observer.batch(size + padding, padding)
        pad = self.options.pad_variable_length_inputs
        feeds = {name: merge(name, [task.feeds[name] for task in tasks], padding, pad=pad) for name in kind.feeds}
        try:
            outputs = self._session.run(feeds, kind.fetches, None if deadline == math.inf else deadline - now)
        finally:
            if self._observer is not None:
                self._observer.run()
        return split(outputs, sizes, padding)
