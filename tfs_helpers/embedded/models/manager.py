"""Brings the versions that are served into line with those that are wanted.

Two policies, as in TensorFlow Serving. Availability-preserving: a new version is
loaded before the old one goes, so there is always one that answers.
Resource-preserving: the old one goes first, so there is memory for the new one.
The real server takes one step at a time, over all models; here each model has its
own way, so one that fails, or is slow, holds up no other.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.models.servable import Load, Servable, State
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["Manager", "ManagerOptions"]

_TICK = 0.1


@dataclass(frozen=True)
class ManagerOptions:
    """How versions come and go.

    Attributes:
        load_threads: how many versions are loaded at once, after the first configuration; 0 for as many as need be.
        unload_threads: how many are unloaded at once; 0 for as many as need be.
        retries: how often a failed load is tried again.
        pause: seconds between two tries.
        resource_preserving: whether the old version goes before the new one comes.
    """

    load_threads: int = 0
    unload_threads: int = 0
    retries: int = 5
    pause: float = 60.0
    resource_preserving: bool = False


class Manager:
    """Loads and unloads versions on threads of its own."""

    def __init__(self, options: ManagerOptions) -> None:
        self._options = options
        many = 4 * (os.cpu_count() or 1)
        self._first_loads = ThreadPoolExecutor(many, thread_name_prefix="load")
        self._loads = self._first_loads
        self._unloads = ThreadPoolExecutor(max(0, options.unload_threads) or many, thread_name_prefix="unload")
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._aspired: dict[str, dict[int, str]] = {}
        self._loaders: dict[str, Load] = {}
        self._servables: dict[str, dict[int, Servable]] = {}
        self._closing = threading.Event()
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._run, name="manager", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def first_loads_done(self) -> None:
        """The first configuration is loaded, on as many threads as can be of use: from now on, on as many as asked."""
        if self._options.load_threads > 0 and self._loads is self._first_loads:
            self._loads = ThreadPoolExecutor(self._options.load_threads, thread_name_prefix="load")

    def close(self) -> None:
        """Start nothing any more. What is inside TensorFlow is not waited for: it may hang."""
        self._closing.set()
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()
        for pool in (self._first_loads, self._loads, self._unloads):
            pool.shutdown(wait=False, cancel_futures=True)

    def aspire(self, name: str, versions: Mapping[int, str], load: Load) -> None:
        """From now on these versions of a model are wanted, `{version: folder}`, and no others.

        Args:
            name: the model's.
            versions: what is wanted.
            load: what loads them.
        """
        with self._lock:
            self._loaders[name] = load
            self._aspired[name] = dict(versions)
        self._due.set()

    def latest(self, name: str) -> Servable | None:
        """The highest version of a model that answers now."""
        # Read without the lock, on every request: the dictionary is replaced, never changed.
        best = None
        for version, servable in self._servables.get(name, {}).items():
            if servable.state == State.AVAILABLE and (best is None or version > best.version):
                best = servable
        return best

    def find(self, name: str, version: int) -> Servable | None:
        """That version, if it answers now."""
        servable = self._servables.get(name, {}).get(version)
        return servable if servable is not None and servable.state == State.AVAILABLE else None

    def history(self, name: str) -> list[Servable]:
        """Every version ever seen of a model, the highest first; ended ones stay."""
        with self._lock:
            return [servable for _, servable in sorted(self._servables.get(name, {}).items(), reverse=True)]

    def wanted(self, name: str) -> list[Servable]:
        """Those versions that are wanted now, as far as they have begun, the highest first."""
        with self._lock:
            aspired = self._aspired.get(name, {})
            return [s for s in self.history(name) if s.version in aspired and not s.cancelled and not s.may_come_back]

    def wait(self, timeout: float | None = None) -> None:
        """Until something changes, or for so many seconds."""
        with self._changed:
            self._changed.wait(timeout)

    def _run(self) -> None:
        while not self._closing.is_set():
            self._due.wait(_TICK)
            self._due.clear()
            self._tick()

    def _tick(self) -> None:
        """Start what the policy calls for: loads of new versions, unloads of those no longer wanted."""
        with self._lock:
            if self._closing.is_set():
                return
            for name, aspired in self._aspired.items():
                known = self._servables.get(name, {})
                self._forgive(known, aspired)
                for servable in self._to_unload(known, aspired):
                    servable.state = State.UNLOADING
                    self._submit(self._unloads, servable, servable.unload)
                for version in self._to_load(known, aspired):
                    self._begin(name, version, aspired[version])
                for servable in known.values():
                    if servable.retry_at is not None and servable.retry_at <= time.monotonic():
                        servable.retry_at = None
                        self._load(servable)
            self._changed.notify_all()

    def _forgive(self, known: Mapping[int, Servable], aspired: Mapping[int, str]) -> None:
        """What is not wanted is tried no more; and once it was not wanted, it may be tried from the start."""
        for version, servable in known.items():
            if version not in aspired and servable.state != State.AVAILABLE:
                servable.cancelled = True
                if servable.retry_at is not None:
                    servable.give_up()

    def _to_load(self, known: Mapping[int, Servable], aspired: Mapping[int, str]) -> list[int]:
        """Wanted versions that are not there. A failed one is not tried again until it was un-wanted in between."""
        if self._options.resource_preserving and any(
            version not in aspired and servable.state != State.END for version, servable in known.items()
        ):
            return []
        return [
            version for version in sorted(aspired, reverse=True) if version not in known or known[version].may_come_back
        ]

    def _to_unload(self, known: Mapping[int, Servable], aspired: Mapping[int, str]) -> list[Servable]:
        unwanted = [s for v, s in sorted(known.items()) if v not in aspired and s.state == State.AVAILABLE]
        replaced = any(version in aspired and s.state == State.AVAILABLE for version, s in known.items())
        if not aspired or replaced or self._options.resource_preserving:
            return unwanted
        return unwanted[:-1]

    def _begin(self, name: str, version: int, folder: str) -> None:
        servable = Servable(name, version, folder)
        log.info("Successfully reserved resources to load servable %s", servable)
        log.info("Approving load for servable version %s", servable)
        self._servables[name] = {**self._servables.get(name, {}), version: servable}
        self._load(servable)

    def _load(self, servable: Servable) -> None:
        # A try at a time: whoever waits for the next one holds no thread.
        load = partial(servable.load, self._loaders[servable.name], self._options.retries, self._options.pause)
        self._submit(self._loads, servable, load)

    def _submit(self, pool: ThreadPoolExecutor, servable: Servable, work: Callable[[], None]) -> None:
        pool.submit(work).add_done_callback(partial(self._done, servable))

    def _done(self, servable: Servable, future: "Future[None]") -> None:
        if not future.cancelled() and (broken := future.exception()) is not None:
            log.error("Loading or unloading %s broke off", servable, exc_info=broken)
            servable.end(ServingError(Code.INTERNAL, f"{type(broken).__name__}: {broken}"))
        self._due.set()
