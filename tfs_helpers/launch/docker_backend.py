"""A server in a container, by way of the Docker SDK, which is imported when it is first needed."""

import contextlib
import os
import socket
import sys
import time
import uuid
from http.client import HTTPConnection, HTTPException
from typing import Any

from tfs_helpers.advice import Advice, advise
from tfs_helpers.errors import BackendUnavailable, LaunchError, PortInUse
from tfs_helpers.launch import command
from tfs_helpers.launch.description import ServerDescription
from tfs_helpers.launch.process import GRACE, GuardedProcess

__all__ = ["LABEL", "Container", "address", "obstacle", "owner_of", "remove_session", "serves_this_machine"]

LABEL = "tfs-helpers"
"""The label of every container of ours; with `.session`, `.parent` and `.models` after it, whose and what it is."""

_TIMEOUT = 60.0  # seconds for one request to the daemon

# What the guard runs when its parent is gone. It is told where to import from, because it starts in isolation.
_REMOVE = "import sys; sys.path[:] = sys.argv[2:]; from {module} import remove_session; remove_session(sys.argv[1])"


def address() -> str:
    """Where the Docker daemon is: `DOCKER_HOST`, else what the docker command's context says, else the usual socket."""
    if os.environ.get("DOCKER_HOST"):
        return os.environ["DOCKER_HOST"]
    from docker.context import ContextAPI
    from docker.errors import DockerException

    try:
        return str(ContextAPI.get_current_context().Host)
    except (DockerException, AttributeError):  # no such context, or one without an address
        return "unix:///var/run/docker.sock"


def obstacle(image: str, timeout: float) -> BackendUnavailable | None:
    """What keeps Docker from running `image`; None where nothing does."""
    from docker.errors import DockerException, ImageNotFound
    from requests import RequestException

    try:
        _ping(timeout)
        with contextlib.closing(_client(timeout)) as client:
            client.images.get(image)
    except ImageNotFound:
        return BackendUnavailable(
            f"Docker has no image {image}.",
            "Images are not fetched behind your back: this one is some 500 MB.",
            f"Fetch it once: docker pull {image}",
        )
    except (DockerException, RequestException, OSError, HTTPException) as error:
        return BackendUnavailable(*_no_daemon(error))
    return None


class Container:
    """A container of ours, from its start to its removal.

    A guard stands beside it, and removes it when this process is gone.

    Args:
        server: what is to run.

    Raises:
        PortInUse: the daemon finds a port taken.
        LaunchError: the daemon refuses for another reason. No container is left then.
    """

    def __init__(self, server: ServerDescription) -> None:
        self.session = uuid.uuid4().hex
        self.name = command.container_name(server)
        self._log = ""
        self._exit: int | None = None
        remove = [sys.executable, "-I", "-c", _REMOVE.format(module=__name__), self.session, *filter(None, sys.path)]
        files = {} if server.is_plain else {command.CONFIG: command.config_text(server, "docker")}
        self._guard = GuardedProcess([], files=files, cleanup=remove)
        self._client: Any = None
        try:
            self._client = _client(_TIMEOUT)
            self._container = self._run(server)
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int | None:
        """The server's process id as this machine sees it; None where it runs on another, or no more."""
        self._container.reload()
        return int(self._container.attrs["State"]["Pid"]) or None

    def _run(self, server: ServerDescription) -> Any:
        from docker.errors import DockerException
        from docker.types import Mount
        from requests import RequestException

        grpc_port, rest_port = server.ports()
        binds = [
            Mount(inside, outside, type="bind", read_only=True)
            for outside, inside in command.mounts(server, str(self._guard.scratch / command.CONFIG))
        ]
        published = {"8500/tcp": (server.host, grpc_port)}
        if rest_port:
            published["8501/tcp"] = (server.host, rest_port)
        self._remove_leftover()
        try:
            # Not `run`, which would fetch an image that is missing.
            created = self._client.containers.create(
                server.image,
                command.container_arguments(server),
                name=self.name,
                init=True,  # a shell is the image's first process, and alone it would not heed SIGTERM
                mounts=binds,
                ports=published,
                environment={"MODEL_NAME": server.models[0].name} if server.is_plain else {},
                labels={
                    LABEL: "1",
                    f"{LABEL}.session": self.session,
                    f"{LABEL}.parent": str(os.getpid()),
                    f"{LABEL}.models": server.names,
                },
            )
            created.start()
        except (DockerException, RequestException) as error:
            words = str(getattr(error, "explanation", None) or error)
            kind = PortInUse if "already allocated" in words or "address already in use" in words else LaunchError
            raise kind(f"Docker did not start the container {self.name}: {words}", *_advice(error)) from error
        return created

    def _remove_leftover(self) -> None:
        """Make room for the name, where a container of ours has ended under it and nobody took it away."""
        for old in self._client.containers.list(
            all=True, ignore_removed=True, filters={"label": LABEL, "name": f"^/{self.name}$"}
        ):
            if old.status in {"created", "exited", "dead"}:
                old.remove(force=True)

    def poll(self) -> int | None:
        """The exit status of the container, None while it runs; 137 if somebody else removed it."""
        from docker.errors import NotFound

        if self._exit is None:
            try:
                self._container.reload()
            except NotFound:
                self._exit = 137
            else:
                if self._container.status in {"exited", "dead"}:
                    self._exit = int(self._container.attrs["State"]["ExitCode"])
        return self._exit

    def log(self) -> str:
        """All that the server has written; what was known last, once it is stopped."""
        from docker.errors import NotFound

        if self._client is not None:
            with contextlib.suppress(NotFound):
                self._log = self._container.logs().decode("utf-8", errors="replace")
        return self._log

    def stop(self) -> None:
        """Stop the container, firmly after `GRACE` seconds, and remove it."""
        from docker.errors import DockerException
        from requests import RequestException

        removed = False
        if self._client is not None:
            with contextlib.suppress(DockerException, RequestException):  # then the guard tries, on its own
                if hasattr(self, "_container"):
                    self.log()
                    self._container.stop(timeout=int(GRACE))
                    self.poll()
                _remove(self._client, self.session)
                # Interrupted while the daemon was creating it, it may appear only now: the guard looks again.
                removed = hasattr(self, "_container")
            self._client.close()
            self._client = None
        self._exit = 137 if self._exit is None else self._exit
        self._guard.stop(cleaned=removed)


def owner_of(port: int) -> tuple[str, str]:
    """The name of the container that has published a port, and the models that it serves if it is ours; else empty."""
    with contextlib.closing(_client(_TIMEOUT)) as client:
        for found in client.containers.list(ignore_removed=True, filters={"publish": str(port)}):
            return str(found.name), str(found.labels.get(f"{LABEL}.models", ""))
    return "", ""


def remove_session(session: str) -> None:
    """Remove the containers of a session, also one that the daemon is only just creating."""
    with contextlib.closing(_client(_TIMEOUT)) as client:
        for _ in range(3):
            _remove(client, session)
            time.sleep(0.5)


def _remove(client: Any, session: str) -> None:
    from docker.errors import APIError

    for found in client.containers.list(all=True, ignore_removed=True, filters={"label": f"{LABEL}.session={session}"}):
        with contextlib.suppress(APIError):  # somebody else removes it at this moment
            found.remove(force=True)


class _UnixConnection(HTTPConnection):
    """HTTP over a UNIX socket."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.host)


def _ping(timeout: float) -> None:
    """Ask a local daemon whether it is there; the SDK, refused, would leave its socket open."""
    scheme, _, path = address().partition("://")
    if scheme == "unix":
        with contextlib.closing(_UnixConnection(path, 80, timeout=timeout)) as connection:
            connection.request("GET", "/_ping", headers={"Host": "docker"})
            connection.getresponse().read()


def _client(timeout: float) -> Any:
    from docker.client import DockerClient
    from docker.utils import kwargs_from_env

    return DockerClient(**{"base_url": address(), **kwargs_from_env()}, timeout=timeout)


def _no_daemon(error: Exception) -> tuple[str, str, str]:
    what = f"No Docker daemon answers at {address()}."
    return what, *(advise(f"{error!r} {what}") or _advice(error))


def _advice(error: Exception) -> Advice:
    found = advise(f"{error!r} {error}")
    return found or Advice("Docker says no more than that.", "Compare with what docker info and docker ps -a show.")


def serves_this_machine() -> bool:
    """Whether the daemon's ports are this machine's ports."""
    return address().startswith(("unix://", "npipe://"))
