"""What both clients have in common: which model a call means, what a status says, how signatures are kept."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from tfs_helpers.advice import advise
from tfs_helpers.errors import (
    CallError,
    ConfigError,
    DeadlineExceeded,
    FailedPrecondition,
    InputError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServerFault,
    Unavailable,
    Unimplemented,
    Unreachable,
)
from tfs_helpers.signatures import ModelMetadata, Signature, find_signature

__all__ = ["MISFITS", "SignatureCache", "Target", "VersionStatus", "call_error", "seconds"]

MISFITS = (FailedPrecondition, InvalidArgument, NotFound, ServerFault)
"""Errors which may mean that the model is another one since its signature was read."""

_VERSIONS = range(2**63)
_A_DAY = 86400.0

_KINDS: dict[str, type[CallError]] = {
    "NOT_FOUND": NotFound,
    "INVALID_ARGUMENT": InvalidArgument,
    "OUT_OF_RANGE": InvalidArgument,
    "FAILED_PRECONDITION": FailedPrecondition,
    "ABORTED": FailedPrecondition,
    "ALREADY_EXISTS": FailedPrecondition,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "CANCELLED": Unavailable,
    "UNAUTHENTICATED": CallError,
    "PERMISSION_DENIED": CallError,
    "UNAVAILABLE": Unavailable,
    "UNIMPLEMENTED": Unimplemented,
    "UNREACHABLE": Unreachable,
}


@dataclass(frozen=True)
class VersionStatus:
    """Where one version of a model stands.

    Attributes:
        version: its number.
        state: START, LOADING, AVAILABLE, UNLOADING or END.
        error_code: the canonical name, `OK` unless loading failed.
        error_message: the server's words; empty unless loading failed.
    """

    version: int
    state: str
    error_code: str = "OK"
    error_message: str = ""


@dataclass(frozen=True)
class Target:
    """Which version of which model a call means: the latest, unless a version or a label is given.

    Raises:
        ConfigError: no name, a name that no URL can carry, both a version and a label, or a version that is no whole
            number from 0 on, below 2**63.
    """

    model: str
    version: int | None = None
    label: str | None = None

    def __post_init__(self) -> None:
        names: list[tuple[str, object]] = [("model name", self.model)]
        if self.label is not None:
            names.append(("label", self.label))
        for kind, name in names:
            if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set("/: "):
                raise ConfigError(
                    f"{name!r} cannot be a {kind}.",
                    "It stands in the URL between slashes and before a colon, so it has none of them, and no blanks.",
                    "Give the name that the server was started with, without a path.",
                )
        if self.version is not None and self.label is not None:
            raise ConfigError(
                f"A call is for version {self.version} or for label {self.label!r}, not for both.",
                "A label stands for a version, so one of them says it all.",
                "Leave one out; leave both out for the latest version.",
            )
        if self.version is not None and (type(self.version) is not int or self.version not in _VERSIONS):
            raise ConfigError(
                f"{self.version!r} cannot be a version.",
                "Versions are whole numbers from 0 on, as folders are named; names such as 'stable' are labels.",
                "Give a number, or use label= for a name.",
            )

    def __str__(self) -> str:
        if self.version is not None:
            return f"{self.model}, version {self.version}"
        return f"{self.model}, label {self.label}" if self.label is not None else self.model

    def where(self, **more: object) -> dict[str, object]:
        """The coordinates of a call to it: what `CallError.where` holds."""
        named = {"model": self.model, "version": self.version, "label": self.label, **more}
        return {name: value for name, value in named.items() if value is not None}


def seconds(timeout: object) -> float:
    """A timeout that can be waited for.

    Raises:
        ConfigError: it is no number above 0, or more than a day.
    """
    if isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and 0 < timeout <= _A_DAY:
        return float(timeout)
    raise ConfigError(
        f"{timeout!r} cannot be a timeout.",
        "A call waits so many seconds for its answer: more than 0, at most a day.",
        "Give a number such as timeout=10.0.",
    )


def call_error(code: str, details: str, target: Target, where: Mapping[str, object]) -> CallError:
    """The error for a status: the server's own words, and what is known about them.

    Args:
        code: the canonical name, or `UNREACHABLE` where no server answered.
        details: the server's or the library's words.
        target: what was called.
        where: wire, address and method.
    """
    kind = _KINDS.get(code, ServerFault)
    advice = advise(details)
    first = details.strip().splitlines()[0] if details.strip() else "(no details)"
    return kind(
        f"{where['wire']} {target}: {code}: {first}",
        advice.cause if advice else "",
        advice.cure if advice else "",
        code=code,
        details=details,
        where=target.where(**where),
    )


class SignatureCache:
    """Signatures by model, version and label, read from the server once.

    A server does not say when another version takes over. So they are read anew where inputs do not fit them, and
    after any answer which says that request and model do not fit each other.
    """

    def __init__(self, fetch: Callable[[Target, float], ModelMetadata]) -> None:
        self._fetch = fetch
        self._known: dict[Target, ModelMetadata] = {}
        self._lock = threading.Lock()

    def checked(
        self, target: Target, name: str, inputs: Any, timeout: float
    ) -> tuple[Signature, dict[str, npt.NDArray[Any]]]:
        """The signature called `name` of that model, and the inputs as arrays that it takes.

        Raises:
            InputError: there is no such signature, or the inputs do not fit it.
            CallError: the server cannot say.
        """
        known = self._known.get(target)
        if known is not None:
            try:
                return _checked(known, name, inputs)
            except InputError:
                # The version behind this target may be another one by now: see what the server says today.
                self.forget(target)
        metadata = self._fetch(target, timeout)
        with self._lock:
            self._known[target] = metadata
        return _checked(metadata, name, inputs)

    def forget(self, target: Target) -> None:
        """The next call reads that model's signatures anew."""
        with self._lock:
            self._known.pop(target, None)


def _checked(metadata: ModelMetadata, name: str, inputs: Any) -> tuple[Signature, dict[str, npt.NDArray[Any]]]:
    signature = find_signature(metadata.signatures, name)
    return signature, signature.check(inputs)
