"""Requests that wait, in batches (shared_batch_scheduler.h)."""

import math
import threading
import time
from collections import deque
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Protocol

from tfs_helpers.embedded.batching.options import BatchingOptions
from tfs_helpers.embedded.graphs.runner import Array
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["BatchOwner", "BatchQueue", "Task"]


class Task:
    """A request that waits for its batch, or a part of one.

    Attributes:
        feeds: its arrays by tensor name.
        size: its rows.
        queued: when it came, on the monotonic clock.
        deadline: until when it may take.
    """

    __slots__ = ("_done", "_error", "_outputs", "deadline", "feeds", "queued", "size")

    def __init__(self, feeds: dict[str, Array], size: int, queued: float, deadline: float) -> None:
        self.feeds = feeds
        self.size = size
        self.queued = queued
        self.deadline = deadline
        self._outputs: Sequence[Array] = ()
        self._error: ServingError | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def finish(self, outputs: Sequence[Array], error: ServingError | None = None) -> None:
        """Let `result` return, or raise."""
        self._outputs, self._error = outputs, error
        self._done.release()

    def wait(self) -> None:
        """Until it is finished."""
        with self._done:
            return

    def result(self) -> Sequence[Array]:
        """What came of it, once it is finished.

        Raises:
            ServingError: its batch failed.
        """
        if self._error is not None:
            # One of its own for each caller: raising an error writes into it.
            raise ServingError(self._error.code, self._error.message)
        return self._outputs

    def parts(self, first: int, most: int) -> "list[Task]":
        """The same rows as several tasks: one of `first` rows, then of `most`."""
        ends = [0, first] if first else [0]
        while ends[-1] < self.size:
            ends.append(min(ends[-1] + most, self.size))
        return [
            Task(
                {name: array[start:end] for name, array in self.feeds.items()}, end - start, self.queued, self.deadline
            )
            for start, end in pairwise(ends)
        ]


class BatchOwner(Protocol):
    """Whose batches they are.

    Attributes:
        options: how they are formed.
        closing: whether it is in a hurry: what waits is run without waiting for more.
    """

    options: BatchingOptions
    closing: bool

    def process(self, kind: Hashable, tasks: Sequence[Task]) -> None:
        """Run a batch and finish its tasks. Never raises."""


class _Batch:
    __slots__ = ("size", "tasks", "until")

    def __init__(self) -> None:
        self.tasks: list[Task] = []
        self.size = 0
        self.until = math.inf


class BatchQueue:
    """The tasks of one kind, in batches: the last is open, the others are closed.

    Whoever calls it holds the scheduler's lock.

    Args:
        owner: who runs them.
        kind: what they have in common.
    """

    def __init__(self, owner: BatchOwner, kind: Hashable) -> None:
        self.owner = owner
        self.kind = kind
        self._options = owner.options
        self._batches = deque([_Batch()])

    @property
    def empty(self) -> bool:
        return len(self._batches) == 1 and not self._batches[0].tasks

    @property
    def single(self) -> bool:
        """Whether its first batch is the one that the last task came into."""
        return len(self._batches) == 1

    @property
    def due(self) -> float:
        """From when on a batch may run; infinite where there is none."""
        first = self._batches[0]
        if not first.tasks:
            return math.inf
        ready = len(self._batches) > 1 or first.size >= self._options.batch_limit or self.owner.closing
        return -math.inf if ready else first.until

    def add(self, task: Task) -> list[Task]:
        """Put a task into the open batch, or into a new one. Returns what it was cut into, or the task itself.

        Raises:
            ServingError: it is too large, or the queue is full.
        """
        self._check(task)
        options, batches = self._options, self._batches
        free = options.batch_limit - batches[-1].size
        whole = task.size <= free or not options.enable_large_batch_splitting
        parts = [task] if whole else task.parts(free, options.batch_limit)
        for part in parts:
            if batches[-1].size + part.size > options.batch_limit:
                batches.append(_Batch())
            batch = batches[-1]
            if not batch.tasks:
                batch.until = time.monotonic() + options.batch_timeout_micros / 1e6
            batch.tasks.append(part)
            batch.size += part.size
        return parts

    def _check(self, task: Task) -> None:
        options, count, size = self._options, len(self._batches), self._batches[-1].size
        if task.size > options.max_batch_size:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Task size {task.size} is larger than maximum input batch size {options.max_batch_size}",
            )
        full = "The batch scheduling queue to which this task was submitted is full; "
        if options.enable_large_batch_splitting:
            capacity = (options.queue_limit - count) * options.batch_limit + options.batch_limit - size
            if task.size > capacity:
                raise ServingError(
                    Code.UNAVAILABLE,
                    f"{full}task size is {task.size} but scheduling capacity is only {capacity} "
                    f"(num_enqueued_batches={count}, max_enqueued_batches={options.queue_limit}, "
                    f"open_batch_size={size}, max_execution_batch_size={options.batch_limit})",
                )
        elif size + task.size > options.batch_limit and count >= options.queue_limit:
            raise ServingError(
                Code.UNAVAILABLE,
                f"{full}currently {count} batches enqueued and max_enqueued_batches is {options.queue_limit}",
            )

    def take(self) -> list[Task]:
        """The tasks of its first batch, which leaves the queue."""
        batch = self._batches.popleft()
        if not self._batches:
            self._batches.append(_Batch())
        return batch.tasks
