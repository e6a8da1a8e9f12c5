"""One version of one model through its life: LOADING, AVAILABLE, UNLOADING, END."""

import threading
import time
from enum import IntEnum
from pathlib import Path

from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.session import Session
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["LoadOptions", "Servable", "State"]


class State(IntEnum):
    """As `GetModelStatus` answers; the numbers are the proto's."""

    UNKNOWN = 0
    START = 10
    LOADING = 20
    AVAILABLE = 30
    UNLOADING = 40
    END = 50


class LoadOptions:
    """How versions are loaded.

    Args:
        tags: the graph to load.
        session_config: a serialized `tensorflow.ConfigProto`.
        retries: how often a failed load is tried again.
        pause: seconds between two tries.
    """

    def __init__(
        self, tags: tuple[str, ...] = ("serve",), session_config: bytes = b"", retries: int = 5, pause: float = 60.0
    ) -> None:
        self.tags = tags
        self.session_config = session_config
        self.retries = retries
        self.pause = pause


class Servable:
    """One version of one model."""

    def __init__(self, name: str, version: int, folder: str) -> None:
        self.name = name
        self.version = version
        self.folder = folder
        self.state = State.START
        self.error: ServingError | None = None
        self.cancelled = threading.Event()
        self._session: Session | None = None
        self._users = 0
        self._idle = threading.Condition()

    def __str__(self) -> str:
        return f"{{name: {self.name} version: {self.version}}}"

    def acquire(self) -> Session | None:
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
                session = self._load_once(options)
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

    def _load_once(self, options: LoadOptions) -> Session:
        if not any((Path(self.folder) / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
            raise ServingError(
                Code.NOT_FOUND,
                "Specified file path does not appear to contain a SavedModel bundle "
                f"(should have a file called `saved_model.pb`)\nSpecified file path: {self.folder}",
            )
        started = time.monotonic()
        session = Session(self.folder, options.tags, options.session_config)
        log.info("Loaded %s in %.0f ms", self.folder, (time.monotonic() - started) * 1000)
        return session

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
