"""Ports: a free one, and who has the one that is not."""

import errno
import ipaddress
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tfs_helpers.errors import ConfigError, LaunchError, PortInUse

__all__ = [
    "MARK",
    "PortOwner",
    "answers",
    "check_free",
    "everywhere",
    "find_free",
    "is_everywhere",
    "is_free",
    "owner_of",
    "to_call",
]

MARK = "TFS_HELPERS_MODELS"
"""The environment variable by which a server of ours is known: the models it serves."""

_PROC = Path("/proc")
_LISTEN = "0A"


@dataclass(frozen=True)
class PortOwner:
    """A process that listens. `models` is what it serves if it is one of ours, else empty."""

    pid: int
    program: str
    models: str


def find_free(host: str) -> int:
    """A port on `host` that nobody listens on now."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there, and alone.

    An exclusive bind tells: gRPC listens with SO_REUSEPORT, so that a second server on its port would start without a
    word and take half of the connections. Where a bind to one address does not see a listener on all of them (macOS),
    a connection does.

    Raises:
        ConfigError: `host` is not an address of this machine.
        LaunchError: this user may not listen there.
    """
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        # Ports of connections that have just ended are free to a server, which sets the same.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)  # until then, two that have only bound do not disturb each other
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            if error.errno == errno.EACCES:
                raise LaunchError(
                    f"Port {port} is not for this user.",
                    "Ports below 1024 belong to the system.",
                    "Choose one from 1024 on; 8500 and 8501 are the usual ones.",
                ) from error
            raise ConfigError(
                f"Nothing can listen at {host}: {error.strerror}.",
                "It is not an address of this machine.",
                "Use 127.0.0.1, or 0.0.0.0 for every address.",
            ) from error
    return not answers(host, port)


def answers(host: str, port: int, timeout: float = 0.2) -> bool:
    """Whether somebody accepts a connection there."""
    with socket.socket(_family(host), socket.SOCK_STREAM) as probe:
        probe.settimeout(timeout)
        return probe.connect_ex((to_call(host), port)) == 0


def check_free(host: str, port: int, use: str) -> None:
    """Make sure that a server can have this port.

    Args:
        host: the address to listen on.
        port: the port.
        use: what for, such as `gRPC`.

    Raises:
        PortInUse: somebody listens there; names them where it can be known.
    """
    if is_free(host, port):
        return
    owner = owner_of(port)
    keyword = "grpc_port" if use == "gRPC" else "rest_port"
    other = f"or take another port: ModelServer(..., {keyword}=None) finds a free one."
    what = f"Port {port}, wanted for {use}, is taken"
    if owner is None:
        raise PortInUse(f"{what}.", "Which program listens there cannot be seen from here.", f"End it, {other}")
    if owner.models:
        raise PortInUse(
            f"{what} by a server of ours: {owner.models} (process {owner.pid}).",
            "It was started by another notebook or program, and ends with it.",
            f"Stop it there, {other}",
        )
    raise PortInUse(f"{what} by process {owner.pid}: {owner.program}.", "", f"End it, {other}")


def owner_of(port: int) -> PortOwner | None:
    """Who listens on a TCP port of this machine; None where nobody does, or where it cannot be seen.

    Reads /proc, so it knows on Linux only, and only of processes that this user may look into.
    """
    if sys.platform != "linux":
        return None
    wanted = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in _PROC.iterdir() if wanted else ():
        if process.name.isdecimal() and not wanted.isdisjoint(_links(process / "fd")):
            words = _read(process / "cmdline").rstrip("\0").split("\0")
            variables = dict(line.partition("=")[::2] for line in _read(process / "environ").split("\0"))
            shown = " ".join(words)
            return PortOwner(
                int(process.name), shown if len(shown) <= 80 else f"{shown[:77]}...", variables.get(MARK, "")
            )
    return None


def _listening(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on a port."""
    for table in ("tcp", "tcp6"):
        for line in _read(_PROC / "net" / table).splitlines()[1:]:
            columns = line.split()
            if columns[3] == _LISTEN and int(columns[1].rpartition(":")[2], 16) == port:
                yield columns[9]


def _links(folder: Path) -> Iterator[str]:
    """Where the links in a folder lead; nothing where the process has ended, or is somebody else's."""
    try:
        yield from map(_target, folder.iterdir())
    except OSError:
        return


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:  # closed meanwhile
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def is_everywhere(host: str) -> bool:
    """Whether `host` stands for every address of this machine."""
    return ipaddress.ip_address(host).is_unspecified


def everywhere(host: str) -> str:
    """Every address of this machine, of the same kind as `host`: `0.0.0.0` or `::`."""
    return str(ipaddress.IPv6Address(0) if ":" in host else ipaddress.IPv4Address(0))


def to_call(host: str) -> str:
    """Where to call somebody who listens on `host`: an address to listen on everywhere is none to call."""
    if is_everywhere(host):
        return "::1" if ":" in host else "127.0.0.1"
    return host
