"""Which way a server is run on this machine, and why that one."""

import importlib.util
import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tfs_helpers.advice import advise
from tfs_helpers.errors import BackendUnavailable
from tfs_helpers.launch.command import check_backend

__all__ = ["BINARY", "Choice", "choose", "obstacle"]

BINARY = "tensorflow_model_server"
_PROBE = 2.0  # seconds for a Docker daemon to answer; a running one takes 20 ms


@dataclass(frozen=True)
class Choice:
    """One of the backends, and in one sentence why it is that one."""

    backend: str
    why: str


def choose(asked: str | None, image: str) -> Choice:
    """The backend that was asked for, by argument or by `TFS_BACKEND`; else the first that is here.

    Args:
        asked: `docker`, `binary` or `embedded`, or None.
        image: the image that Docker would run.

    Raises:
        ConfigError: there is no such backend.
        BackendUnavailable: the one asked for is not here, or none is.
    """
    by = "the argument asks for it"
    if asked is None and os.environ.get("TFS_BACKEND"):
        asked, by = os.environ["TFS_BACKEND"], "TFS_BACKEND asks for it"
    if asked is not None:
        check_backend(asked)
        found = obstacle(asked, image)
        if found is not None:
            raise found
        return Choice(asked, f"{asked}, because {by}.")
    passed: list[BackendUnavailable] = []
    for backend, reason in _REASONS.items():
        found = obstacle(backend, image)
        if found is None:
            because = [*(_lower(error.what) for error in passed), reason.format(image=image)]
            return Choice(backend, f"{backend}, because {'; '.join(because)}.")
        passed.append(found)
    raise passed[-1]


def obstacle(backend: str, image: str) -> BackendUnavailable | None:
    """What keeps a backend from running here, with the cure; None where nothing does."""
    return _PROBES[backend](image)


def _docker_obstacle(image: str) -> BackendUnavailable | None:
    if not _installed("docker"):
        return BackendUnavailable(
            "Docker cannot be asked: the package docker is not installed.",
            "It is the extra `docker` of tfs-helpers.",
            'Install it: pip install "tfs-helpers[docker]"',
        )
    from tfs_helpers.launch import docker_backend

    answer: list[BackendUnavailable | None] = []

    def probe() -> None:
        answer.append(docker_backend.obstacle(image, _PROBE))

    # In a thread of its own, because nothing else bounds the time that a dead DOCKER_HOST takes: a name to look up, a
    # connection that drips, a tunnel.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE)
    if answer:
        return answer[0]
    words = f"The Docker daemon at {docker_backend.address()} does not answer within {_PROBE:g} seconds."
    advice = advise("Cannot connect to the Docker daemon")
    assert advice is not None
    return BackendUnavailable(words, *advice)


def _binary_obstacle(_: str) -> BackendUnavailable | None:
    if shutil.which(BINARY):
        return None
    return BackendUnavailable(
        f"{BINARY} is not on the PATH.",
        "It comes with the Docker image, or as the Debian package tensorflow-model-server.",
        "Put its folder on the PATH, or choose another backend: docker or embedded.",
    )


def _embedded_obstacle(_: str) -> BackendUnavailable | None:
    missing = [name for name in ("tensorflow", "aiohttp") if not _installed(name)]
    if not missing:
        return None
    return BackendUnavailable(
        f"The embedded server cannot run: the package {missing[0]} is not installed.",
        "It is part of the extra `server` of tfs-helpers.",
        'Install it: pip install "tfs-helpers[server]"',
    )


def _installed(name: str) -> bool:
    """Whether a package can be imported; a mere folder of that name beside the notebook is none."""
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _lower(sentence: str) -> str:
    """A sentence as part of another."""
    first = sentence if sentence.startswith(("Docker", BINARY)) else sentence[:1].lower() + sentence[1:]
    return first.rstrip(".")


_REASONS = {
    "docker": "the daemon answers and has the image {image}",
    "binary": f"{BINARY} is on the PATH",
    "embedded": "the embedded server is always here",
}
_PROBES: dict[str, Callable[[str], BackendUnavailable | None]] = {
    "docker": _docker_obstacle,
    "binary": _binary_obstacle,
    "embedded": _embedded_obstacle,
}
