"""One version of one model through its life: START, LOADING, AVAILABLE, UNLOADING, END."""

import threading
import time
from collections.abc import Callable
from enum import IntEnum

from tfs_helpers.embedded.graphs.runner import Runner
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.status import ServingError

__all__ = ["Load", "Servable", "State"]

Load = Callable[[str, int, str], Runner]
"""Loads a version, once, from its model's name, its number and its folder; raises ServingError."""


class State(IntEnum):
    """As `GetModelStatus` answers; the numbers are the proto's."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Servable:
    """One version of one model.

    Attributes:
        name: the model's.
        version: its number.
        folder: where it is loaded from.
        state: where it is in its life.
        error: why the last try to load it failed.
        tries: how often loading it was tried.
        retry_at: when it is to be tried again, on the monotonic clock; None while nothing is due.
        cancelled: whether it is no longer wanted, or was not at some time: it is not tried again, and may come back.
    """

    def __init__(self, name: str, version: int, folder: str = "") -> None:
        self.name = name
        self.version = version
        self.folder = folder
        self.state = State.START
        self.error: ServingError | None = None
        self.tries = 0
        self.retry_at: float | None = None
        self.cancelled = False
        self._session: Runner | None = None
        self._users = 0
        self._idle = threading.Condition()

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"

    @property
    def runner(self) -> Runner | None:
        """What runs it, to be looked at only; None where it is not loaded."""
        return self._session

    @property
    def may_come_back(self) -> bool:
        """Whether it has ended, and is loaded afresh where it is wanted: not so a failure that was wanted all along."""
        return self.state == State.END and (self.cancelled or self.error is None)

    def acquire(self) -> Runner | None:
        """Its session, kept loaded until `release`; None where it is not AVAILABLE, or no longer."""
        with self._idle:
            if self.state != State.AVAILABLE:
                return None
            self._users += 1
            return self._session

    def release(self) -> None:
        """The caller of `acquire` is done with the session."""
        with self._idle:
            self._users -= 1
            self._idle.notify_all()

    def load(self, load: Load, retries: int, pause: float) -> None:
        """Try to load it, once. Ends AVAILABLE; LOADING with `retry_at` set; or END with `error` set.

        Args:
            load: what loads it.
            retries: how often a failed load is tried again.
            pause: seconds between two tries.
        """
        if self.cancelled:
            self.state = State.END
            return
        self.state = State.LOADING
        if self.tries:
            log.info("Retrying of Loading servable: %s retry: %d", self, self.tries)
        else:
            log.info("Loading servable version %s", self)
        self.tries += 1
        try:
            session = load(self.name, self.version, self.folder)
        except ServingError as error:
            self._failed(error, retries, pause)
            return
        if self.tries > retries:
            self._exhausted(retries)
        with self._idle:
            self._session, self.error, self.cancelled = session, None, False
            # Told before it is so: once it is, others go on, and tell of it.
            log.info("Successfully loaded servable version %s", self)
            self.state = State.AVAILABLE

    def _failed(self, error: ServingError, retries: int, pause: float) -> None:
        log.error("Loading servable: %s failed: %s", self, error)
        self.error = error
        if self.cancelled:
            self.give_up()
        elif self.tries > retries:
            self._exhausted(retries)
            self.end(error)
        else:
            self.retry_at = time.monotonic() + pause

    def _exhausted(self, retries: int) -> None:
        """Told after the last try that there can be, also where it went well (retrier.cc)."""
        log.info("Retrying of Loading servable: %s exhausted max_num_retries: %d", self, retries)

    def give_up(self) -> None:
        """It is not wanted any more, and is not tried again."""
        log.info("Retrying of Loading servable: %s was cancelled.", self)
        self.end(self.error)

    def end(self, error: ServingError | None) -> None:
        """It cannot be loaded."""
        log.info("Encountered an error for servable version %s: %s", self, error)
        log.error("Servable %s cannot be loaded: %s", self, error)
        self.error, self.retry_at = error, None
        self.state = State.END

    def unload(self) -> None:
        """Take it out of service, wait for the requests that are inside, free it; ends END."""
        with self._idle:
            self.state = State.UNLOADING
            log.info("Quiescing servable version %s", self)
            self._idle.wait_for(lambda: self._users == 0)
            session, self._session = self._session, None
        log.info("Done quiescing servable version %s", self)
        log.info("Unloading just-loaded servable version %s", self)
        if session is not None:
            session.close()
        log.info("Done unloading servable version %s", self)
        self.state = State.END
