"""Brings the versions that are served into line with those that are wanted, without a gap in between.

A new version is loaded before the old one goes (TensorFlow Serving's
availability-preserving policy). One model that fails, or is slow, holds up no other.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tfs_helpers.embedded.loading import LoadOptions
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.servable import Servable, State

__all__ = ["Manager"]

_TICK = 0.1


class Manager:
    """Loads and unloads versions on threads of its own.

    Args:
        options: how versions are loaded.
        threads: how many at once.
    """

    def __init__(self, options: LoadOptions, threads: int) -> None:
        self._options = options
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="load")
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._aspired: dict[str, dict[int, str]] = {}
        self._servables: dict[str, dict[int, Servable]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="manager", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def close(self) -> None:
        """Stop working; loads that wait for another try are given up."""
        self._closing.set()
        for servable in self._all():
            servable.cancelled.set()
        if self._thread.is_alive():
            self._thread.join()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def aspire(self, name: str, versions: Mapping[int, str]) -> None:
        """From now on these versions of a model are wanted, `{version: folder}`, and no others."""
        with self._lock:
            self._aspired[name] = dict(versions)
        self.tick()

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

    def wait(self, timeout: float | None = None) -> None:
        """Until something changes, or for so many seconds."""
        with self._changed:
            self._changed.wait(timeout)

    def _all(self) -> list[Servable]:
        with self._lock:
            return [servable for versions in self._servables.values() for servable in versions.values()]

    def _run(self) -> None:
        while not self._closing.wait(_TICK):
            self.tick()

    def tick(self) -> None:
        """Start what the policy calls for: loads of new versions, unloads of those no longer wanted."""
        with self._lock:
            for name, aspired in self._aspired.items():
                known = self._servables.get(name, {})
                for version in self._to_load(known, aspired):
                    self._load(name, version, aspired[version])
                for servable in self._to_unload(known, aspired):
                    servable.state = State.UNLOADING
                    self._submit(servable.unload)
                for version, servable in known.items():
                    if version not in aspired and servable.state in (State.START, State.LOADING):
                        servable.cancelled.set()
            self._changed.notify_all()

    def _to_load(self, known: Mapping[int, Servable], aspired: Mapping[int, str]) -> list[int]:
        """Wanted versions that are not there. A failed one is not tried again until it was un-wanted in between."""
        return [
            version
            for version in sorted(aspired, reverse=True)
            if version not in known or (known[version].state == State.END and known[version].cancelled.is_set())
        ]

    def _to_unload(self, known: Mapping[int, Servable], aspired: Mapping[int, str]) -> list[Servable]:
        unwanted = [s for v, s in sorted(known.items()) if v not in aspired and s.state == State.AVAILABLE]
        for version, servable in known.items():
            if version not in aspired and servable.state == State.END:
                servable.cancelled.set()
        replaced = any(version in aspired and s.state == State.AVAILABLE for version, s in known.items())
        if not aspired or replaced:
            return unwanted
        return unwanted[:-1]

    def _load(self, name: str, version: int, folder: str) -> None:
        servable = Servable(name, version, folder)
        log.info("Successfully reserved resources to load servable %s", servable)
        log.info("Approving load for servable version %s", servable)
        self._servables[name] = {**self._servables.get(name, {}), version: servable}
        self._submit(servable.load, self._options)

    def _submit(self, function: Callable[..., None], *arguments: Any) -> None:
        if self._closing.is_set():
            return
        future = self._pool.submit(function, *arguments)
        future.add_done_callback(self._done)

    def _done(self, future: "Future[None]") -> None:
        with self._changed:
            self._changed.notify_all()
        if not future.cancelled() and future.exception() is not None:
            log.error("Loading or unloading broke off", exc_info=future.exception())
