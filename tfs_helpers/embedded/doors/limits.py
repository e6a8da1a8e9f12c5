"""How much the server takes at once and how long it waits: all bounds of its two doors, in one place."""

import resource
from dataclasses import dataclass

__all__ = ["DEFAULT_LIMITS", "Limits", "make_room"]

_OWN_FILES = 512


@dataclass(frozen=True)
class Limits:
    """The bounds; whoever meets one is told which. No flag sets them.

    Attributes:
        message_bytes: of a gRPC message, either way, and of a REST request's body. REST: 413.
        bodies_bytes: of the bodies of all REST requests that are inside. 503.
        line_bytes: of an HTTP request line, and of one header. 431.
        headers: how many an HTTP request has. 400.
        header_seconds: from an HTTP request's first byte to the end of its headers. 408.
        body_seconds: between two pieces of a REST body, and beyond what `body_rate` allows for all of it. 408.
        body_rate: bytes a second that a REST body comes with at least, once `body_seconds` are over.
        idle_seconds: that a connection without a request stays open. It is closed.
        answer_seconds: that a REST client may take nothing of its answer. The connection is closed.
        connections: to either door. REST closes the one that is idle longest, and without any answers 503; gRPC closes
            the new one.
        streams: calls at the same time on one gRPC connection. Its other calls wait at the client.
        calls: gRPC calls inside at the same time, where --grpc_max_threads asks for no fewer. RESOURCE_EXHAUSTED.
        handshake_seconds: that a gRPC connection may take to become one. It is closed.
        notice_seconds: between NOT_SERVING of the health service and the end of new calls.
    """

    message_bytes: int = 2**31 - 1
    bodies_bytes: int = 2**32
    line_bytes: int = 8190
    headers: int = 128
    header_seconds: float = 20.0
    body_seconds: float = 20.0
    body_rate: float = 1024.0
    idle_seconds: float = 600.0
    answer_seconds: float = 60.0
    connections: int = 2048
    streams: int = 1024
    calls: int = 4096
    handshake_seconds: float = 20.0
    notice_seconds: float = 0.5


DEFAULT_LIMITS = Limits()


def make_room(limits: Limits) -> int:
    """Let the process open the files that its connections need; returns how many connections a door may have.

    Models are loaded while strangers connect, and need files too. So where the system allows fewer, the doors get what
    is left over.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * limits.connections + _OWN_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return limits.connections
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return min(limits.connections, max(1, (allowed - _OWN_FILES) // 2))
