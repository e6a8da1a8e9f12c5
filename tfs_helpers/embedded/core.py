"""What is served: the configured models, their versions and labels, and which version a request means."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from tfs_helpers.embedded.loading import LoadOptions
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.manager import Manager
from tfs_helpers.embedded.model_config import check_models
from tfs_helpers.embedded.runner import Runner
from tfs_helpers.embedded.servable import Servable, State
from tfs_helpers.embedded.status import Code, ServingError
from tfs_helpers.embedded.storage import aspired_versions, read_versions

__all__ = ["InUse", "ServerCore"]


class InUse(NamedTuple):
    """A loaded version, held while a request uses it."""

    servable: Servable
    session: Runner


class ServerCore:
    """The models that a server serves.

    Args:
        options: how versions are loaded.
        load_threads: how many at once.
        poll_seconds: how often base paths are looked at for new versions; 0: once, negative: never.
        labels_may_wait: whether a new label may point at a version that is not there yet.
    """

    def __init__(
        self,
        options: LoadOptions,
        *,
        load_threads: int = 4,
        poll_seconds: float = 1.0,
        labels_may_wait: bool = False,
    ) -> None:
        self.manager = Manager(options, load_threads)
        self._poll_seconds = poll_seconds
        self._labels_may_wait = labels_may_wait
        self._models: dict[str, Any] = {}
        self._labels: dict[str, dict[str, int]] = {}
        self._reloading = threading.Lock()
        self._polling = threading.Lock()
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._poll_for_ever, name="poll", daemon=True)

    def start(self) -> None:
        """Begin to load and to look for versions."""
        self.manager.start()
        if self._poll_seconds > 0:
            self._poller.start()

    def close(self) -> None:
        """Stop looking and loading."""
        self._closing.set()
        if self._poller.is_alive():
            self._poller.join()
        self.manager.close()

    # ---- configuration

    def reload(self, config: Any, *, deadline: float | None = None) -> None:
        """Serve what a ModelServerConfig proto says from now on, and return when new models are AVAILABLE.

        Args:
            deadline: on the monotonic clock; None waits for ever.

        Raises:
            ServingError: the config is refused, and nothing is changed; or a new model cannot be loaded.
        """
        self._wait_for(self.apply(config), deadline)
        log.info("Finished adding/updating models")

    def apply(self, config: Any) -> list[str]:
        """Serve what a ModelServerConfig proto says from now on. Returns the names of models that are new.

        Raises:
            ServingError: the config is refused; nothing is changed.
        """
        if config.WhichOneof("config") is None:
            log.info("Taking no action for empty config.")
            return []
        models = config.model_config_list.config
        with self._reloading:
            check_models(models)
            labels = self._checked_labels(models)
            added = [model.name for model in models if model.name not in self._models]
            self._labels = labels
            log.info("Adding/updating models.")
            for model in models:
                log.info(" (Re-)adding model: %s", model.name)
            gone = [name for name in self._models if name not in {model.name for model in models}]
            self._models = {model.name: model for model in models}
            for name in gone:
                self.manager.aspire(name, {})
        if self._poll_seconds >= 0:
            self._poll()
        return added

    def _checked_labels(self, models: Any) -> dict[str, dict[str, int]]:
        """The labels of a config; refused where they point at versions that do not answer."""
        labels: dict[str, dict[str, int]] = {}
        for model in models:
            for label, version in model.version_labels.items():
                known = self._labels.get(model.name, {}).get(label)
                may_wait = self._labels_may_wait and known in (None, version)
                if not may_wait and self.manager.find(model.name, version) is None:
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference",
                    )
                labels.setdefault(model.name, {})[label] = version
        return labels

    def _wait_for(self, names: list[str], deadline: float | None) -> None:
        """Until each of these models has a version AVAILABLE."""

        def settled() -> bool:
            return all(self._is_settled(name) for name in names)

        while not settled():
            if self._closing.is_set():
                raise ServingError(Code.CANCELLED, "The server is stopping")
            if deadline is not None and time.monotonic() >= deadline:
                raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for models to become available")
            self.manager.wait(0.1)
        seen = [servable for name in names for servable in self.manager.history(name)]
        failed = [servable for servable in seen if servable.state == State.END and servable.error is not None]
        if failed:
            each = ", ".join(f"{{{servable} due to error: {servable.error}}}" for servable in failed)
            raise ServingError(Code.UNKNOWN, f"{len(failed)} servable(s) did not become available: {{{each}, }}")

    def _is_settled(self, name: str) -> bool:
        """Whether all versions that are wanted of a model have been loaded, or have failed for good."""
        states = [servable.state for servable in self.manager.history(name)]
        return bool(states) and not any(state in (State.START, State.LOADING) for state in states)

    # ---- finding versions

    def _poll_for_ever(self) -> None:
        while not self._closing.wait(self._poll_seconds):
            self._poll()

    def _poll(self) -> None:
        """Look at every base path once."""
        with self._polling:
            for name, model in self._models.items():
                found = read_versions(model.base_path)
                if found is None:
                    log.error(
                        "FileSystemStoragePathSource encountered a filesystem access error: Could not find base path "
                        "%s for servable %s with error NOT_FOUND: %s not found",
                        *(model.base_path, name, model.base_path),
                    )
                else:
                    policy = model.model_version_policy
                    self.manager.aspire(name, aspired_versions(name, model.base_path, policy, found))

    # ---- requests

    @contextmanager
    def use(self, spec: Any) -> Iterator[InUse]:
        """The version that a ModelSpec proto means, kept loaded meanwhile.

        Raises:
            ServingError: NOT_FOUND or INVALID_ARGUMENT, in the real server's words.
        """
        find = self._finder(spec)
        while True:
            servable, request = find()
            if servable is None:
                raise ServingError(Code.NOT_FOUND, f"Servable not found for request: {request}")
            session = servable.acquire()
            if session is not None:
                break
            # It was unloaded between finding and taking it: look again, its successor is there.
        try:
            yield InUse(servable, session)
        finally:
            servable.release()

    def _finder(self, spec: Any) -> Callable[[], tuple[Servable | None, str]]:
        """How to look a ModelSpec up: a function that gives the version, if it answers, and what was asked for."""
        name = spec.name
        if not name:
            raise ServingError(Code.INVALID_ARGUMENT, "ModelSpec has no name specified.")
        choice = spec.WhichOneof("version_choice")
        if choice is None:
            return lambda: (self.manager.latest(name), f"Latest({name})")
        if choice == "version":
            version = spec.version.value
            return lambda: (self.manager.find(name, version), f"Specific({name}, {version})")
        label = spec.version_label

        def labelled() -> tuple[Servable | None, str]:
            pointed = self._labels.get(name, {}).get(label)
            if pointed is None:
                raise ServingError(Code.INVALID_ARGUMENT, f"Unrecognized servable version label: {label}")
            return self.manager.find(name, pointed), f"Specific({name}, {pointed})"

        return labelled

    def status(self, name: str, version: int | None = None) -> list[Servable]:
        """Every version ever seen of a model, or the one asked for.

        Raises:
            ServingError: NOT_FOUND.
        """
        seen = self.manager.history(name)
        if not seen:
            raise ServingError(Code.NOT_FOUND, f"Could not find any versions of model {name}")
        if version is None:
            return seen
        found = [servable for servable in seen if servable.version == version]
        if not found:
            raise ServingError(Code.NOT_FOUND, f"Could not find version {version} of model {name}")
        return found
