"""Is everything here that the tutorial needs? And what will run the servers?

print(check_environment())
"""

import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from tfs_helpers import versions
from tfs_helpers.errors import BackendUnavailable, ConfigError
from tfs_helpers.launch import ports
from tfs_helpers.launch.backends import choose, obstacle

__all__ = ["Environment", "Finding", "check_environment"]

_PYTHONS = ((3, 10), (3, 13))
_PACKAGES = {
    "tensorflow": "makes the models; its library is the embedded server's engine",
    "tensorflow-serving-api": "the stock gRPC stubs",
    "requests": "REST",
    "grpcio": "gRPC",
    "docker": "the Python package, which starts containers",
    "jupyterlab": "where you read this",
    "nbval": "checks the notebooks' outputs",
    "matplotlib": "draws",
    "pillow": "reads pictures",
    "aiohttp": "the embedded server's REST side",
}
_PINNED = {"tensorflow": versions.TENSORFLOW, "tensorflow-serving-api": versions.SERVING_API}
_MODULES = {"tensorflow-serving-api": "tensorflow_serving", "grpcio": "grpc", "pillow": "PIL"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        said: what there is.
        cure: what to do about it; empty where nothing needs doing.
        needed: whether the tutorial cannot do without.
    """

    name: str
    said: str
    cure: str = ""
    needed: bool = True

    def __str__(self) -> str:
        mark = "ok     " if not self.cure else "missing" if self.needed else "not here"
        lines = [f"{mark:<8}  {self.name:<24}{self.said}"]
        return "\n".join([*lines, *([f"{'':<10}-> {self.cure}"] if self.cure else [])])


@dataclass(frozen=True)
class Environment:
    """All that was found."""

    findings: tuple[Finding, ...]
    backend: str
    why: str

    @property
    def ready(self) -> bool:
        """Whether every notebook can run."""
        return not any(finding.cure and finding.needed for finding in self.findings)

    def __str__(self) -> str:
        verdict = f"No server can run: {self.why}" if self.backend == "none" else f"Servers will run by: {self.why}"
        return "\n".join([*map(str, self.findings), "", verdict])


def check_environment() -> Environment:
    """Look at Python, packages, Docker and ports. Starts nothing; takes a second, or three where Docker is silent."""
    packages = [_package(name, use) for name, use in _PACKAGES.items()]
    found = [_python(), *packages, _command_line(), *_servers(), _ports()]
    try:
        choice = choose(None, versions.IMAGE)
        return Environment(tuple(found), choice.backend, choice.why)
    except (BackendUnavailable, ConfigError) as error:
        found.append(Finding("a server", error.what, error.fix or error.why))
        return Environment(tuple(found), "none", error.what)


def _python() -> Finding:
    said = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    low, high = _PYTHONS
    if low <= sys.version_info[:2] <= high:
        return Finding("Python", said)
    span = f"Python {low[0]}.{low[1]} to {high[0]}.{high[1]}"
    return Finding("Python", said, f"use {span}, which TensorFlow {versions.TENSORFLOW} runs on")


def _command_line() -> Finding:
    """Programs of the environment are found only where it was activated, or JupyterLab was started by `make lab`."""
    found = shutil.which("saved_model_cli")
    if found:
        return Finding("saved_model_cli", "on the PATH")
    return Finding(
        "saved_model_cli", "not on the PATH", "start JupyterLab by `make lab`, or activate the environment first"
    )


def _package(name: str, use: str) -> Finding:
    cure = "run `make setup` in the project's folder, and start JupyterLab by `make lab`"
    try:
        installed = version(name)
    except PackageNotFoundError:
        return Finding(name, f"not installed ({use})", cure)
    wanted = _PINNED.get(name, installed)
    if installed != wanted:
        return Finding(name, f"{installed}, not {wanted} ({use})", cure)
    if importlib.util.find_spec(_MODULES.get(name, name)) is None:
        return Finding(name, f"{installed}, but it cannot be imported ({use})", cure)
    return Finding(name, f"{installed} ({use})")


def _servers() -> list[Finding]:
    """The three ways to run a server. One is enough."""
    said = {
        "docker": f"the daemon answers and has {versions.IMAGE}",
        "binary": "tensorflow_model_server is on the PATH",
        "embedded": "ready",
    }
    findings = []
    for backend, words in said.items():
        error = obstacle(backend, versions.IMAGE)
        if error is None:
            findings.append(Finding(f"server by {backend}", words))
        else:
            findings.append(Finding(f"server by {backend}", error.what, error.fix or error.why, needed=False))
    return findings


def _ports() -> Finding:
    taken = [port for port in (8500, 8501) if not ports.is_free("127.0.0.1", port)]
    if not taken:
        return Finding("ports 8500 and 8501", "free")
    listed = " and ".join(map(str, taken))
    return Finding("ports 8500 and 8501", f"{listed} taken", "the notebooks take free ports instead", needed=False)
