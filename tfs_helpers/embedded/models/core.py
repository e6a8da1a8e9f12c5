"""What is served: the configured models, their versions and labels, and which version a request means."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from tfs_helpers.embedded.graphs.runner import Runner
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.models.manager import Manager, ManagerOptions
from tfs_helpers.embedded.models.model_config import check_models, check_platforms, model_list
from tfs_helpers.embedded.models.servable import Load, Servable, State
from tfs_helpers.embedded.models.storage import aspired_versions, read_versions
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["InUse", "ServerCore"]


class InUse(NamedTuple):
    """A loaded version, held while a request uses it."""

    servable: Servable
    session: Runner


class ServerCore:
    """The models that a server serves.

    Args:
        platforms: what loads the versions of a model, by its platform.
        options: how versions come and go.
        poll_seconds: how often base paths are looked at for new versions; 0: once, negative: never.
        labels_may_wait: whether a new label may point at a version that is not there yet.
    """

    def __init__(
        self,
        platforms: Mapping[str, Load],
        options: ManagerOptions,
        *,
        poll_seconds: float = 1.0,
        labels_may_wait: bool = False,
    ) -> None:
        self.manager = Manager(options)
        self._platforms = platforms
        self._poll_seconds = poll_seconds
        self._labels_may_wait = labels_may_wait
        self._models: dict[str, Any] = {}
        self._loaders: dict[str, Load] = {}
        # None until there is a configuration at all.
        self._labels: dict[str, dict[str, int]] | None = None
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
        self.manager.close()

    # ---- configuration

    def serve_first(self, config: Any) -> None:
        """Serve a first ModelServerConfig proto, and return when its models are AVAILABLE.

        Raises:
            ServingError: the config is refused, or a model of it cannot be loaded; in the real server's words.
        """
        if added := self.apply(config):
            self._wait_for(added, "servable(s)", None, self._closing)
            log.info("Finished adding/updating models")
        self.manager.first_loads_done()

    def reload(self, config: Any, *, deadline: float | None = None, given_up: threading.Event | None = None) -> None:
        """Serve what a ModelServerConfig proto says from now on, and return when new models are AVAILABLE.

        Args:
            deadline: on the monotonic clock; None waits for ever.
            given_up: set when nobody waits for the end any more.

        Raises:
            ServingError: the config is refused, and nothing is changed; or a new model cannot be loaded.
        """
        if added := self.apply(config):
            self._wait_for(added, "model(s)", deadline, given_up or self._closing)
            log.info("Finished adding/updating models")

    def apply(self, config: Any) -> list[str]:
        """Serve what a ModelServerConfig proto says from now on. Returns the names of models that are new.

        Raises:
            ServingError: the config is refused; nothing is changed.
        """
        with self._reloading:
            models = model_list(config, first=self._labels is None)
            if models is None:
                log.info("Taking no action for empty config.")
                return []
            check_models(models, self._models)
            labels = self._checked_labels(models)
            platforms = check_platforms(models, self._platforms)
            log.info("Adding/updating models.")
            for model in models:
                log.info(" (Re-)adding model: %s", model.name)
            added = [model.name for model in models if model.name not in self._models]
            gone = [name for name in self._models if name not in platforms]
            self._labels = labels
            self._loaders |= {name: self._platforms[platform] for name, platform in platforms.items()}
            self._models = {model.name: model for model in models}
            for name in gone:
                self.manager.aspire(name, {}, self._loaders.pop(name))
        if self._poll_seconds >= 0:
            self._poll()
        if not added:
            log.info("Finished adding/updating models")
        return added

    def _checked_labels(self, models: Any) -> dict[str, dict[str, int]]:
        """The labels of a config; refused where they point at versions that do not answer."""
        labels: dict[str, dict[str, int]] = {}
        for model in models:
            for label, version in model.version_labels.items():
                known = (self._labels or {}).get(model.name, {}).get(label)
                may_wait = self._labels_may_wait and known in (None, version)
                if not may_wait and self.manager.find(model.name, version) is None:
                    raise ServingError(
                        Code.FAILED_PRECONDITION,
                        f"Request to assign label to version {version} of model {model.name}, "
                        "which is not currently available for inference",
                    )
                labels.setdefault(model.name, {})[label] = version
        return labels

    def _wait_for(self, names: list[str], what: str, deadline: float | None, given_up: threading.Event) -> None:
        """Until each of these models has a version AVAILABLE, or has failed for good."""
        while not all(map(self._is_settled, names)):
            if self._closing.is_set():
                raise ServingError(Code.CANCELLED, "The server is stopping")
            if given_up.is_set():
                raise ServingError(Code.CANCELLED, "Nobody waits for the models to become available any more")
            if deadline is not None and time.monotonic() >= deadline:
                raise ServingError(Code.DEADLINE_EXCEEDED, "Timed out waiting for models to become available")
            self.manager.wait(0.1)
        # By model the highest of its versions, as the real server counts them (servable_state_monitor.cc).
        failed = [
            servables[0]
            for name in sorted(names)
            if (servables := self.manager.wanted(name)) and servables[0].state == State.END
        ]
        if failed:
            each = ", ".join(f"{{{servable} due to error: {servable.error}}}" for servable in failed)
            raise ServingError(Code.UNKNOWN, f"{len(failed)} {what} did not become available: {{{each}, }}")

    def _is_settled(self, name: str) -> bool:
        """Whether a model answers and each wanted version of it had its try, or all have failed for good."""
        if name not in self._models:
            return True  # Another configuration came and took it away.
        versions = self.manager.wanted(name)
        if self.manager.latest(name) is not None:
            # Between two tries is settled, too; `error` alone is set a moment before the last one's END.
            return all(
                each.state not in (State.START, State.LOADING) or each.retry_at is not None or each.tries > 1
                for each in versions
            )
        return bool(versions) and all(servable.state == State.END for servable in versions)

    # ---- finding versions

    def _poll_for_ever(self) -> None:
        while not self._closing.wait(self._poll_seconds):
            self._poll()

    def _poll(self) -> None:
        """Look at every base path once. One that is missing says nothing about the others."""
        with self._polling:
            for name, model in self._models.items():
                found = read_versions(name, model.base_path)
                if found is None:
                    continue
                aspired = aspired_versions(name, model.base_path, model.model_version_policy, found)
                with self._reloading:
                    # The configuration may have changed meanwhile: what was removed is not to come back.
                    if self._models.get(name) is model:
                        self.manager.aspire(name, aspired, self._loaders[name])

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

    def peek(self, spec: Any) -> Servable | None:
        """The version that a ModelSpec proto means, if it answers; it is not kept loaded."""
        try:
            return self._finder(spec)()[0]
        except ServingError:
            return None

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
            if self._labels is None:
                raise ServingError(Code.UNAVAILABLE, f"Model labels does not init yet.{label}")
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
