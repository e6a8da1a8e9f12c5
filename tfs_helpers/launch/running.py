"""A server that runs: its clients, its log, its end."""

import atexit
import os
import threading
import time
from types import TracebackType
from typing import Any

from tfs_helpers.client import GrpcClient, RestClient
from tfs_helpers.errors import CallError, ConfigError, LaunchError, NotReadyInTime
from tfs_helpers.launch import backends, command, ports, ready
from tfs_helpers.launch.description import ServerDescription

__all__ = ["RunningServer", "all_running"]

_STATES = ("START", "LOADING", "AVAILABLE", "UNLOADING", "END")
_STOPPED = ("This server is stopped.", "", "Start it again: running = server.start()")
_LISTENS_EVERYWHERE = (
    "The real binary listens on every address of this machine, not on {host} alone: it has no flag for that. "
    "Whoever can reach its gRPC port can reconfigure it; keep a firewall before it."
)

_all: "list[RunningServer]" = []  # what this process has started and not stopped
_lock = threading.Lock()


def all_running() -> "list[RunningServer]":
    """The servers that this process has started and not stopped."""
    with _lock:
        return list(_all)


class RunningServer:
    """A server that was started here, and ends here.

    Leaving a `with` block stops it; so does `stop`, and the end of this process, whichever way it ends.

    Attributes:
        told: the description as it was given.
        server: the same with its ports as numbers.
        backend: what runs it: `docker`, `binary` or `embedded`.
        why: why that backend, in one sentence.
        command: the line to type for the same server.
        notes: what else is good to know, such as that it listens on more than was asked for.
        rest_url: where REST is, such as `http://127.0.0.1:8501`; empty where it is off.
        grpc_address: where gRPC is, such as `127.0.0.1:8500`.
    """

    def __init__(
        self, told: ServerDescription, server: ServerDescription, choice: backends.Choice, process: ready.Process
    ) -> None:
        self.told = told
        self._process = process
        self._stopped = False
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._clients: dict[str, Any] = {}
        self.server = server
        self.backend = choice.backend
        self.why = choice.why
        self.command = command.shell_line(server, choice.backend)
        self.notes: tuple[str, ...] = ()
        if self.backend == "binary" and not ports.is_everywhere(server.host):
            self.notes = (_LISTENS_EVERYWHERE.format(host=server.host),)
        grpc_port, rest_port = server.ports()
        host = ports.to_call(server.host)
        host = f"[{host}]" if ":" in host else host
        self.grpc_address = f"{host}:{grpc_port}"
        self.rest_url = f"http://{host}:{rest_port}" if rest_port else ""
        atexit.register(self.stop)
        with _lock:
            _all.append(self)

    def __repr__(self) -> str:
        state = f"gRPC {self.grpc_address}, REST {self.rest_url or 'off'}" if self.alive() else "stopped"
        return f"<RunningServer {self.server.names} ({self.backend}): {state}>"

    def __enter__(self) -> "RunningServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """The server's process id; None once it is stopped."""
        return self._process.pid if self.alive() else None

    @property
    def container(self) -> str | None:
        """The name of the server's container; None where no container runs it."""
        return getattr(self._process, "name", None)

    def alive(self) -> bool:
        """Whether it still runs."""
        return not self._stopped and self._process.poll() is None

    def log(self) -> str:
        """All that the server has written so far; also after its end."""
        return self._process.log()

    def rest(self) -> RestClient:
        """A client for REST, always the same one; it is closed when the server is stopped.

        Raises:
            ConfigError: the server was described without REST.
            LaunchError: it is stopped.
        """
        if not self.rest_url:
            raise ConfigError("This server has no REST.", "It was described with rest_port=0.", "Use grpc() instead.")
        client: RestClient = self._client("rest", RestClient, self.rest_url)
        return client

    def grpc(self) -> GrpcClient:
        """A client for gRPC, always the same one; it is closed when the server is stopped.

        Raises:
            LaunchError: the server is stopped.
        """
        client: GrpcClient = self._client("grpc", GrpcClient, self.grpc_address)
        return client

    def _client(self, wire: str, kind: Any, target: str) -> Any:
        with self._lock:
            if self._stopped:
                raise LaunchError(*_STOPPED)
            if wire not in self._clients:
                self._clients[wire] = kind(target)
            return self._clients[wire]

    def wait_for(
        self,
        model: str,
        *,
        version: int | None = None,
        label: str | None = None,
        state: str = "AVAILABLE",
        timeout: float = 30.0,
    ) -> int:
        """Wait until a version of a model is in a state, such as a new one that was just published.

        Args:
            model: its name.
            version: which version. Without it and without a label: any.
            label: the version that the description gives this label.
            state: `START`, `LOADING`, `AVAILABLE`, `UNLOADING` or `END`.
            timeout: seconds to wait at most.

        Returns:
            The version; the highest where several are in that state.

        Raises:
            ConfigError: no such state or label.
            ServerDied: the server has ended.
            NotReadyInTime: the version cannot be loaded, or time is up.
        """
        if state not in _STATES:
            raise ConfigError(f"{state!r} is no state of a version.", "", f"The states are {', '.join(_STATES)}.")
        if label is not None:
            version = self._labelled(model, label, version)
        asked = f"version {version} of {model}" if version is not None else f"a version of {model}"
        seen = "the server knows no such version"
        if self._stopped:
            raise LaunchError(*_STOPPED)
        for _ in ready.pauses(time.monotonic() + timeout):
            status = self._process.poll()
            if status is not None:
                raise ready.died(f"The server ended while {asked} was waited for", status, self.log())
            try:
                found = self.grpc().status(model, timeout=2.0)
            except CallError as error:
                seen = error.details or error.what
                continue
            those = [one for one in found if version in {None, one.version}]
            reached = [one.version for one in those if one.state == state]
            if reached:
                return max(reached)
            if state == "AVAILABLE" and version is not None:
                ready.check_loadable(model, those, self.log())
                if not reached:
                    ready.check_version(model, version, self.log())
            seen = ", ".join(f"version {one.version} {one.state}" for one in those) or seen
        raise NotReadyInTime(
            f"After {timeout:g} s: {seen}; {asked} was to become {state}.",
            "A new version is seen within a second or two, if its folder is named by a number.",
            "Look into the base path and the log.",
            log=ready.tail(self.log()),
        )

    def _labelled(self, model: str, label: str, version: int | None) -> int:
        labels = next((dict(one.labels) for one in self.server.models if one.name == model), {})
        if label not in labels or version is not None:
            raise ConfigError(
                "Wait for a version or for a label, not for both."
                if version is not None
                else f"Model {model} has no label {label!r} in this server's description.",
                "",
                f"Its labels are {', '.join(labels) or 'none'}.",
            )
        return labels[label]

    def stop(self) -> None:
        """Stop the server: politely, then firmly. Its port, its process and its temporary files are gone afterwards.

        Stopping it twice does nothing the second time; nor does it in a process that was forked from this one.
        """
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._stopped = True
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()
        self._process.stop()
        atexit.unregister(self.stop)
        with _lock:
            if self in _all:
                _all.remove(self)
