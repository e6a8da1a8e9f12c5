"""How soon the client can be used and the embedded server answers, and what they weigh."""

import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measuring import ROOT, Figure, peak_of, process
from tfs_helpers.export import export_half_plus_two

Runs = Sequence[tuple[float, float]]  # seconds and megabytes

ROUNDS = 7
IMPORT = "import tfs_helpers.client as c; c.RestClient(); c.GrpcClient()"
FLOOR = "import grpc, numpy, requests"
BARE = (
    "import sys; from tfs_helpers.embedded.graphs.session import Session; import numpy; s = Session(sys.argv[1]);"
    "d = s.signatures['serving_default'].definition;"
    "s.run({d.inputs['x'].name: numpy.ones(1, 'f4')}, [d.outputs['y'].name])"
)


def measure() -> Iterator[Figure]:
    """Whole processes, each with a floor that does the least that any such process must."""
    client, floor = zip(*[(process(IMPORT), process(FLOOR)) for _ in range(ROUNDS)], strict=True)
    yield from _figures("client, both wires", client, (0.35, 80), floor, "import of grpc, numpy, requests")
    with tempfile.TemporaryDirectory() as folder:
        version = export_half_plus_two(Path(folder) / "half_plus_two")
        runs = [(_server(version.parent), process(BARE, str(version))) for _ in range(ROUNDS)]
    server, bare = zip(*runs, strict=True)
    yield from _figures("embedded server to AVAILABLE", server, (1.3, 350), bare, "load and run the model, no server")


def _figures(name: str, ours: Runs, bounds: tuple[float, float], floor: Runs, of: str) -> Iterator[Figure]:
    """Seconds and peak memory: against the floor, and each by itself against what is promised."""
    for column, (what, unit, bound) in enumerate(zip(("", ", peak memory"), ("s", "MB"), bounds, strict=True)):
        value, least = (statistics.median(run[column] for run in runs) for runs in (ours, floor))
        yield Figure(name + what, value, unit, at_most=bound)
        yield Figure(f"{name}{what}, beside it", value, unit, least, of)


def _server(base_path: Path) -> tuple[float, float]:
    """Seconds until a fresh server's REST port, which opens when the model is loaded, and its peak memory."""
    rest, grpc = _free_port(), _free_port()
    flags = [f"--port={grpc}", f"--rest_api_port={rest}", "--model_name=m", f"--model_base_path={base_path}"]
    started = time.perf_counter()
    command = [sys.executable, "-m", "tfs_helpers.embedded", *flags]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", rest)) == 0:
                break
        time.sleep(0.005)
    seconds = time.perf_counter() - started
    peak = peak_of(child.pid)
    child.terminate()
    child.wait()
    return seconds, peak


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
