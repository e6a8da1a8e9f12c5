"""Every error that this package raises on purpose.

    TfsError
    ├── ConfigError             what a server is told cannot be right: names, paths, labels, flags
    ├── InputError              the inputs do not fit the signature, or cannot be encoded at all
    ├── ExportError             a model cannot be exported or read
    │   └── PublishError        a version cannot be published; nothing that was there is touched
    ├── LaunchError             a server cannot be started
    │   ├── BackendUnavailable  what should run it is not here: no daemon, no image, no binary
    │   ├── PortInUse           somebody else listens on that port
    │   ├── ServerDied          it ended while we waited for it
    │   └── NotReadyInTime      it runs, but not every model became AVAILABLE
    └── CallError               a call to a server failed; carries its code, words and coordinates
        ├── Unreachable         nobody answers at that address, or the connection broke
        ├── DeadlineExceeded    no answer in time
        ├── NotFound            no such model or version is served
        ├── InvalidArgument     the server refuses the request as it stands
        ├── FailedPrecondition  the server's present state does not allow it
        ├── ResourceExhausted   a limit was met: message size, threads, a queue
        ├── Unavailable         the server is up but cannot take it now: try again
        ├── Unimplemented       the server does not do this
        └── ServerFault         the server failed inside: INTERNAL, UNKNOWN, DATA_LOSS

Each says in three lines at most: what happened, why it usually happens, what
to do next.
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "BackendUnavailable",
    "CallError",
    "ConfigError",
    "DeadlineExceeded",
    "ExportError",
    "FailedPrecondition",
    "InputError",
    "InvalidArgument",
    "LaunchError",
    "NotFound",
    "NotReadyInTime",
    "PortInUse",
    "PublishError",
    "ResourceExhausted",
    "ServerDied",
    "ServerFault",
    "TfsError",
    "Unavailable",
    "Unimplemented",
    "Unreachable",
]


class TfsError(Exception):
    """The root of them all: `except TfsError` catches whatever this package raises on purpose.

    Args:
        what: what happened, one line.
        why: the usual cause, one line; empty where there is nothing to say.
        fix: what to do next, one line; empty likewise.
    """

    def __init__(self, what: str, why: str = "", fix: str = "") -> None:
        super().__init__(what, why, fix)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return "\n".join(line for line in (self.what, self.why, self.fix) if line)


class ConfigError(TfsError, ValueError):
    """What a server is told cannot be right."""


class InputError(TfsError, ValueError):
    """The inputs do not fit the signature, or cannot be encoded at all. Nothing was sent."""


class ExportError(TfsError):
    """A model cannot be exported or read."""


class PublishError(ExportError):
    """A version cannot be published. What was there before is untouched."""


class LaunchError(TfsError):
    """A server cannot be started."""


class BackendUnavailable(LaunchError):
    """What should run the server is not on this machine."""


class PortInUse(LaunchError):
    """Somebody else listens on a port that the server needs."""


class ServerDied(LaunchError):
    """The server ended while we waited for it. `log` holds the end of its log."""

    def __init__(self, what: str, why: str = "", fix: str = "", *, log: str = "", exit_code: int | None = None) -> None:
        super().__init__(what, why, fix)
        self.log = log
        self.exit_code = exit_code


class NotReadyInTime(LaunchError):
    """The server runs, but not every model became AVAILABLE in time. `log` holds the end of its log."""

    def __init__(self, what: str, why: str = "", fix: str = "", *, log: str = "") -> None:
        super().__init__(what, why, fix)
        self.log = log


class CallError(TfsError):
    """A call to a server failed.

    Args:
        what, why, fix: as in `TfsError`; `what` holds the server's own words.
        code: the canonical status name, such as `NOT_FOUND`, on either wire.
        details: the server's own words, unchanged; empty where none came.
        where: the coordinates of the call: wire, address, model, version, label, signature.
    """

    def __init__(
        self,
        what: str,
        why: str = "",
        fix: str = "",
        *,
        code: str = "UNKNOWN",
        details: str = "",
        where: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        super().__init__(what, why, fix)
        self.code = code
        self.details = details
        self.where = dict(where)


class Unreachable(CallError):
    """Nobody answers at that address, or the connection broke."""


class DeadlineExceeded(CallError):
    """No answer in time."""


class NotFound(CallError):
    """No such model or version is served."""


class InvalidArgument(CallError):
    """The server refuses the request as it stands."""


class FailedPrecondition(CallError):
    """The server's present state does not allow it."""


class ResourceExhausted(CallError):
    """A limit was met: message size, threads, a queue."""


class Unavailable(CallError):
    """The server is up but cannot take the call now."""


class Unimplemented(CallError):
    """The server does not do this."""


class ServerFault(CallError):
    """The server failed inside."""
