"""One version of one model through its life: LOADING, AVAILABLE, UNLOADING, END."""

import threading
from enum import IntEnum

from tfs_helpers.embedded.loading import LoadOptions, load
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.runner import Runner
from tfs_helpers.embedded.status import ServingError

__all__ = ["Servable", "State"]


class State(IntEnum):
    """As `GetModelStatus` answers; the numbers are the proto's."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class Servable:
    """One version of one model."""

    def __init__(self, name: str, version: int, folder: str) -> None:
        self.name = name
        self.version = version
        self.folder = folder
        self.state = State.START
        self.error: ServingError | None = None
        self.cancelled = threading.Event()
        self._session: Runner | None = None
        self._users = 0
        self._idle = threading.Condition()

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"

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

    def load(self, options: LoadOptions) -> None:
        """Load it, trying again as often as the options say; ends AVAILABLE, or END with `error` set."""
        self.state = State.LOADING
        log.info("Loading servable version %s", self)
        for attempt in range(options.retries + 1):
            if attempt:
                log.info("Retrying of Loading servable: %s retry: %d", self, attempt)
            try:
                session = load(self.folder, options)
            except ServingError as error:
                log.error("Loading servable: %s failed: %s", self, error)
                self.error = error
            else:
                with self._idle:
                    self._session, self.error = session, None
                    self.state = State.AVAILABLE
                log.info("Successfully loaded servable version %s", self)
                return
            if self.cancelled.is_set() or (attempt < options.retries and self.cancelled.wait(options.pause)):
                break
        else:
            log.info("Retrying of Loading servable: %s exhausted max_num_retries: %d", self, options.retries)
        self.state = State.END
        log.error("Servable %s cannot be loaded: %s", self, self.error)

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
        self.state = State.END
        log.info("Done unloading servable version %s", self)
