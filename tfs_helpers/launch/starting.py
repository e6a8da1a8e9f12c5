"""How a server comes to run: checked, started, waited for; and stopped again where it does not become ready."""

import os
import shutil
import sys
import time
from pathlib import Path

import tfs_helpers
from tfs_helpers.errors import ConfigError, PortInUse
from tfs_helpers.launch import backends, command, folders, ports, ready
from tfs_helpers.launch.description import ServerDescription
from tfs_helpers.launch.process import GuardedProcess
from tfs_helpers.launch.running import RunningServer, all_running

__all__ = ["start"]


def start(told: ServerDescription, backend: str | None = None, timeout: float = 60.0) -> RunningServer:
    """Start a server and wait until it is ready. See `ModelServer.start`."""
    begin = time.monotonic()
    _check_files(told)
    choice = backends.choose(backend, told.image)
    _make_room(told)
    server = told.settled()
    _check_ports(server, choice.backend)
    process = _launch(server, choice.backend)
    running = RunningServer(told, server, choice, process)
    try:
        ready.wait_until_available(server, process, begin + timeout, begin)
    except BaseException:  # Ctrl-C among them
        running.stop()
        raise
    return running


def _check_files(server: ServerDescription) -> None:
    if server.options.get("prefer_tflite_model"):
        folders.check_folders(server.models, graphs=("saved_model.pb", "saved_model.pbtxt", "model.tflite"))
    else:
        folders.check_folders(server.models)
    for name, path in command.option_files(server).items():
        if not path.is_file():
            raise ConfigError(f"There is no file {path}.", f"The option {name} names it.", "Correct the path.")


def _make_room(told: ServerDescription) -> None:
    """Stop what runs by the same description: a cell that starts a server may be run again.

    On free ports equal descriptions may be replicas, so there it must be the very same object.
    """
    for running in all_running():
        if running.told is told or (running.told == told and told.grpc_port is not None):
            running.stop()


def _check_ports(server: ServerDescription, backend: str) -> None:
    wanted = [(port, use) for port, use in zip(server.ports(), ("gRPC", "REST"), strict=True) if port]
    ours = [(running, set(running.server.ports())) for running in all_running() if running.alive()]
    for port, use in wanted:
        for running, taken in ours:
            if port in taken:
                raise PortInUse(
                    f"Port {port}, wanted for {use}, is taken by a server that this process started: {running!r}",
                    "Two servers cannot share a port.",
                    "Call its stop(), or take free ports: ModelServer(..., grpc_port=None, rest_port=None).",
                )
    host = server.host
    if backend == "docker":
        from tfs_helpers.launch import docker_backend

        if not docker_backend.serves_this_machine():
            return  # the ports are another machine's, and the daemon will say
        for port, use in wanted:
            name, models = docker_backend.owner_of(port)
            if name:
                raise PortInUse(
                    f"Port {port}, wanted for {use}, is taken by the container {name}"
                    + (f", a server of ours: {models}." if models else "."),
                    "A container keeps its ports until it is stopped.",
                    f"Stop it (docker rm -f {name}), or take another port.",
                )
    elif backend == "binary":
        host = ports.everywhere(host)
    for port, use in wanted:
        ports.check_free(host, port, use)


def _launch(server: ServerDescription, backend: str) -> ready.Process:
    if backend == "docker":
        from tfs_helpers.launch.docker_backend import Container

        return Container(server)
    program = [sys.executable, "-m", "tfs_helpers.embedded"] if backend == "embedded" else [_binary()]
    return GuardedProcess(
        [*program, *command.arguments(server, f"{{scratch}}/{command.CONFIG}", backend)],
        files={} if server.is_plain else {command.CONFIG: command.config_text(server, backend)},
        # The log must say when the server listens, however quiet TensorFlow was told to be in this process.
        environment={ports.MARK: server.names, "TF_CPP_MIN_LOG_LEVEL": "0", **_importable()},
    )


def _binary() -> str:
    found = shutil.which(backends.BINARY)
    assert found is not None  # the choice of the backend has seen it
    return found


def _importable() -> dict[str, str]:
    """What lets another Python find this package where it is not installed: in a notebook, say, beside the sources."""
    home = Path(tfs_helpers.__file__).resolve().parent.parent
    if home.name in {"site-packages", "dist-packages"}:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH", "")]))}
