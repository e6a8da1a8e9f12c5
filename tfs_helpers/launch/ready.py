"""Waiting for a server: until every model is AVAILABLE, and no longer than there is hope."""

import re
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from tfs_helpers.advice import Advice, advise
from tfs_helpers.client import GrpcClient, VersionStatus
from tfs_helpers.errors import CallError, LaunchError, NotReadyInTime, PortInUse, ServerDied
from tfs_helpers.launch import ports
from tfs_helpers.launch.description import ServerDescription
from tfs_helpers.launch.folders import versions_to_wait_for

__all__ = ["Process", "check_loadable", "died", "pauses", "tail", "wait_until_available"]

_TAIL = 10  # lines of log that go with an error

# What every start writes and what helps nobody.
_NOISE = re.compile(
    r"^\s*$|cpu_feature_guard|To enable the following instructions|oneDNN|All log messages before absl"
    r"|computation_placer|Unable to register cu|cuda drivers|cuInit|getaddrinfo: address family|MallocExtension"
    r"|^\s+--\w+=|^Flags:|^usage:"
)

# Lines after which the server would go on trying, for minutes or for ever.
_HOPELESS = re.compile(
    r"Loading servable: \{name: (?P<model>.+?) version: (?P<version>-?\d+)\} failed: (?P<words>.*)"
    r"|(?P<waits>(?:No versions of servable|Could not find base path|Version \S+ of servable \S+, which was).*)"
    r"|(?P<rest>Couldn't bind to port.*|Failed to start HTTP Server.*)"
)


class Process(Protocol):
    """A server that was started, whatever runs it."""

    @property
    def pid(self) -> int | None:
        """Its process id."""

    def poll(self) -> int | None:
        """Its exit status; None while it runs."""

    def log(self) -> str:
        """All that it has written."""

    def stop(self) -> None:
        """End it, and take away what was its own."""


def wait_until_available(server: ServerDescription, process: Process, deadline: float, start: float) -> None:
    """Return when every model of a server is AVAILABLE, in every version that its policy calls for.

    Args:
        server: the description, with its ports settled.
        process: what runs it.
        deadline: when to give up, on the monotonic clock.
        start: when the waiting began.

    Raises:
        ServerDied: it has ended.
        NotReadyInTime: a model cannot be loaded, or time is up.
        PortInUse: its REST port was taken at the last moment.
    """
    wanted = {model.name: versions_to_wait_for(model) for model in server.models}
    states: dict[str, str] = dict.fromkeys(wanted, "no answer yet")
    for _ in pauses(deadline):
        _check_alive(server, process)
        _check_hope(process.log())
        states = _states(server, process, wanted)
        if not any(states.values()):
            return
    _check_alive(server, process)
    log = process.log()
    waiting = "; ".join(f"{name}: {state}" for name, state in states.items() if state)
    raise NotReadyInTime(
        f"Not AVAILABLE after {time.monotonic() - start:.0f} s: {waiting}",
        *(advise(_plain(log)) or Advice("Loading takes longer than that, or the server waits for something.", _MORE)),
        log=tail(log),
    )


_LISTENS = "Running gRPC ModelServer at"  # every server says so, of itself
_MORE = "Read the end of its log in the error's .log; give it longer with start(timeout=...)."


def _states(server: ServerDescription, process: Process, wanted: Mapping[str, set[int]]) -> dict[str, str]:
    """What is missing yet, model by model; nothing where nothing is."""
    if _LISTENS not in process.log():
        # What answers at the port is somebody else's, who took it at the same moment.
        return dict.fromkeys(wanted, "no answer yet")
    host = ports.to_call(server.host)
    grpc_port, rest_port = server.ports()
    # Asked of the port first: a gRPC channel that is refused once does not try again for a second.
    if not ports.answers(host, grpc_port) or (rest_port and not ports.answers(host, rest_port)):
        return dict.fromkeys(wanted, "no answer yet")
    with GrpcClient(f"[{host}]:{grpc_port}" if ":" in host else f"{host}:{grpc_port}") as client:
        return {name: _missing(client, name, versions, process) for name, versions in wanted.items()}


def _missing(client: GrpcClient, model: str, versions: set[int], process: Process) -> str:
    try:
        found = {status.version: status for status in client.status(model, timeout=2.0)}
    except CallError as error:
        return error.details or error.what
    check_loadable(model, found.values(), process.log())
    available = {version for version, status in found.items() if status.state == "AVAILABLE"}
    if available and versions <= available:
        return ""
    shown = {version: found[version].state if version in found else "not seen" for version in versions | set(found)}
    return ", ".join(f"version {version} {state}" for version, state in sorted(shown.items())) or "no version"


def check_loadable(model: str, statuses: Iterable[VersionStatus], log: str) -> None:
    """Make sure that none of these versions has been given up by the server.

    Raises:
        NotReadyInTime: one has; with the server's words.
    """
    for status in statuses:
        if status.state == "END" and status.error_code != "OK":
            raise _cannot_load(model, status.version, f"{status.error_code}: {status.error_message}", log)


def _check_alive(server: ServerDescription, process: Process) -> None:
    status = process.poll()
    if status is not None:
        raise died(f"The server ended before {server.names} became AVAILABLE", status, process.log())


def check_version(model: str, version: int, log: str) -> None:
    """Make sure that the log of a running server does not say that this version cannot be loaded.

    Raises:
        NotReadyInTime: it does; with the server's words.
    """
    for found in _HOPELESS.finditer(log):
        if found["model"] == model and int(found["version"]) == version:
            raise _cannot_load(model, version, found["words"], log)


def _check_hope(log: str) -> None:
    found = _HOPELESS.search(log)
    if found is None:
        return
    if found["rest"]:
        raise PortInUse("The server could not open its REST port: " + found["rest"], *_explained(found["rest"]))
    if found["model"]:
        raise _cannot_load(found["model"], int(found["version"]), found["words"], log)
    raise NotReadyInTime("The server waits for a folder: " + found["waits"], *_explained(found["waits"]), log=tail(log))


def _cannot_load(model: str, version: int, words: str, log: str) -> LaunchError:
    first = (words.splitlines() or [""])[0]
    what = f"Model {model}, version {version}, cannot be loaded: {first}"
    return NotReadyInTime(what, *_explained(words, _plain(log)), log=tail(log))


def died(what: str, status: int, log: str) -> ServerDied:
    """The error for a server that has ended: its exit status, its last words, and what usually lies behind them."""
    lines = _plain(log).splitlines()
    last = lines[-1] if lines and status <= 128 else ""  # who is killed does not say so
    said = next((line for line in reversed(lines) if re.search("Failed to start server|Check failed", line)), last)
    how = f"exit status {status}"
    how += "".join(f", {number.name}" for number in signal.Signals if number == status - 128)
    return ServerDied(
        f"{what} ({how})" + (f": {said.strip()}" if said else "."),
        *_explained(said, f"exit status {status}", _plain(log)),
        log=tail(log),
        exit_code=status,
    )


def _explained(*texts: str) -> Advice:
    """What is known about the first of these texts of which anything is."""
    found = (advise(text) for text in texts)
    return next((advice for advice in found if advice), Advice("", "Read the end of its log in the error's .log."))


def tail(log: str) -> str:
    """The last lines of a log that say something."""
    return "\n".join(_plain(log).splitlines()[-_TAIL:])


def _plain(log: str) -> str:
    """A log without what every start writes."""
    return "\n".join(line for line in log.splitlines() if not _NOISE.search(line))


def pauses(deadline: float, first: float = 0.05, longest: float = 0.5) -> Iterator[None]:
    """Go through a loop until `deadline`, at least once: often at first, less often later."""
    pause = first
    while True:
        yield
        left = deadline - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(pause, left))
        pause = min(pause * 1.1, longest)
