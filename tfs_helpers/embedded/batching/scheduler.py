"""Which batch runs next, on the threads that all of a server's models share (shared_batch_scheduler.h).

A batch runs when it is closed or full, or when its time has come, and a thread
is free; the queues take turns.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from tfs_helpers.embedded.batching.options import BatchingOptions
from tfs_helpers.embedded.batching.queue import BatchOwner, BatchQueue, Task
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["BatchScheduler"]


class BatchScheduler:
    """Runs the batches of all models of a server, so many at once; its threads start when they are needed.

    Where a task completes a batch and nothing else is to be done, the caller's own thread runs it, in the place of
    one of the pool's: to hand it to another thread and back takes longer than to run a small model.

    Args:
        options: how many batches at once, and what the threads are called.

    Raises:
        ServingError: INVALID_ARGUMENT, in the real server's words.
    """

    def __init__(self, options: BatchingOptions) -> None:
        options.check_threads()
        self._most = options.num_batch_threads
        self._name = options.thread_pool_name
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # Queues with tasks in them, whose turn it is first. They come and go: what a client asks for makes the kinds.
        self._queues: OrderedDict[Hashable, BatchQueue] = OrderedDict()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._running = 0
        self._closing = False

    def schedule(self, owner: BatchOwner, kind: Hashable, task: Task) -> list[Task]:
        """Queue a task with others of its kind. Returns what it was cut into, each to be waited for.

        Raises:
            ServingError: it is too large, or the queue is full, in the real server's words.
        """
        key = (id(owner), kind)
        with self._lock:
            if self._closing:
                raise ServingError(Code.UNAVAILABLE, "The server is stopping")
            queue = self._queues.get(key) or BatchQueue(owner, kind)
            before = queue.due
            parts = queue.add(task)
            self._queues.setdefault(key, queue)
            mine = self._take_own(key, queue, parts)
            if mine is None and queue.due < before:
                self._wake()
        if mine is not None:
            owner.process(kind, mine)
            self._leave()
        return parts

    def hurry(self) -> None:
        """Look at the queues again: an owner is closing."""
        with self._lock:
            self._wake()

    def close(self) -> None:
        """Run what waits, and end the threads. Takes nothing more."""
        with self._lock:
            self._closing = True
            self._wake()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _wake(self) -> None:
        """Have one more thread look at the queues, if that is any use. It wakes the next if there is more to do."""
        if not self._queues or self._running == self._most:
            return
        if self._idle:
            self._changed.notify()
        elif len(self._threads) < self._most:
            name = f"{self._name}_{len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while (found := self._next()) is not None:
            queue, tasks = found
            queue.owner.process(queue.kind, tasks)
            # Nothing of a batch is kept while the thread waits for the next.
            del found, queue, tasks
            with self._lock:
                self._running -= 1

    def _next(self) -> tuple[BatchQueue, list[Task]] | None:
        """The next batch, waited for; None at the end."""
        with self._lock:
            while (found := self._take()) is None:
                if self._closing and not self._queues:
                    self._changed.notify_all()
                    return None
                self._idle += 1
                self._changed.wait(self._pause())
                self._idle -= 1
            # Somebody has to watch the clock for the others.
            self._wake()
            return found

    def _pause(self) -> float | None:
        """Seconds until a batch may run; None where only another thread can change that, which then wakes this one."""
        due = min((queue.due for queue in self._queues.values()), default=math.inf)
        return None if due == math.inf or self._running == self._most else max(0.0, due - time.monotonic())

    def _leave(self) -> None:
        """A caller has run its batch."""
        with self._lock:
            # As long as batches may run some thread watches the queues; when none may, none does.
            none_watched = self._running == self._most
            self._running -= 1
            if none_watched:
                self._wake()

    def _take(self) -> tuple[BatchQueue, list[Task]] | None:
        """The batch whose turn it is, of those that may run now."""
        if self._running == self._most:
            return None
        now = time.monotonic()
        for _ in range(len(self._queues)):
            key, queue = next(iter(self._queues.items()))
            self._queues.move_to_end(key)
            if queue.due <= now or self._closing:
                return queue, self._taken(key, queue)
        return None

    def _take_own(self, key: Hashable, queue: BatchQueue, parts: Sequence[Task]) -> list[Task] | None:
        """The batch that a task has just come into, where it may run now and no other is waiting to."""
        if self._running == self._most or len(parts) > 1 or not queue.single:
            return None
        now = time.monotonic()
        if queue.due > now or any(other.due <= now for other in self._queues.values() if other is not queue):
            return None
        return self._taken(key, queue)

    def _taken(self, key: Hashable, queue: BatchQueue) -> list[Task]:
        tasks = queue.take()
        if queue.empty:
            del self._queues[key]
        self._running += 1
        return tasks
