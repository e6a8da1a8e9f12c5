"""Servers of the benchmarks, and the load that h2load puts on them."""

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measuring import ROOT

_RATE = re.compile(r"finished in [^,]+, ([\d.]+) req/s")
_GOOD = re.compile(r"requests: (\d+) total.* (\d+) succeeded")


class NoLoadGenerator(Exception):
    """h2load is not installed."""

    def __str__(self) -> str:
        return "not measured: h2load is missing (Debian: apt-get install nghttp2-client; macOS: brew install nghttp2)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def program(module: str, *arguments: str, port: int) -> Iterator[int]:
    """A module as a process, once it listens on `port`; gives its process number."""
    child = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while child.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield child.pid
    finally:
        child.terminate()
        child.wait()


@contextmanager
def embedded(folder: Path, *flags: str) -> Iterator[tuple[str, str, int]]:
    """The embedded server with every model below `folder`: its gRPC and REST URLs, and its process number."""
    grpc, rest = free_port(), free_port()
    entries = [
        f'config {{ name: "{base.name}" base_path: "{base}" model_platform: "tensorflow" }}'
        for base in sorted(folder.iterdir())
        if base.is_dir()
    ]
    config = folder / "models.config"
    config.write_text(f"model_config_list {{ {' '.join(entries)} }}")
    flags = (f"--port={grpc}", f"--rest_api_port={rest}", f"--model_config_file={config}", *flags)
    with program("tfs_helpers.embedded", *flags, port=rest) as pid:
        yield f"http://127.0.0.1:{grpc}", f"http://127.0.0.1:{rest}", pid


def rate(url: str, body: Path, *, grpc: bool, requests: int, connections: int) -> float:
    """Requests per second, each answered well.

    Raises:
        NoLoadGenerator
    """
    if shutil.which("h2load") is None:
        raise NoLoadGenerator
    wire: Sequence[str] = ["-H", "content-type: application/grpc", "-H", "te: trailers"] if grpc else ["--h1"]
    line = ["h2load", "-t1", f"-n{requests}", f"-c{connections}", f"-d{body}", *wire, url]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    good = _GOOD.search(said)
    if good is None or good[1] != good[2]:
        raise RuntimeError(f"not all requests were answered well:\n{said}")
    found = _RATE.search(said)
    assert found
    return float(found[1])
