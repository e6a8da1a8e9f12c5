"""Hot swaps under load: what fails, and what they leave in memory."""

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.measuring import Figure, peak_of, resident_of
from tfs_helpers import Model, ModelServer
from tfs_helpers.errors import TfsError
from tfs_helpers.export import export_half_plus_two

SWAPS = 100
FIRST = 10
CLIENTS = 8
MODEL = "half_plus_two"


def measure() -> Iterator[Figure]:
    """One version replaces another, again and again, while clients call over both wires."""
    with tempfile.TemporaryDirectory() as scratch:
        made = export_half_plus_two(Path(scratch) / "made")
        base = Path(scratch) / MODEL
        _publish(made, base, 1)
        with ModelServer(Model(MODEL, base), grpc_port=None, rest_port=None).start("embedded") as running:
            stop = threading.Event()
            calls, failures = [0] * CLIENTS, [0] * CLIENTS

            def call(index: int) -> None:
                client = running.grpc() if index % 2 else running.rest()
                numbers = np.array([1.0, 2.0, 5.0], "f4")
                while not stop.is_set():
                    try:
                        client.predict(MODEL, numbers, timeout=30)
                    except TfsError:
                        failures[index] += 1
                    calls[index] += 1

            threads = [threading.Thread(target=call, args=(index,)) for index in range(CLIENTS)]
            for thread in threads:
                thread.start()
            pid = running.pid
            assert pid is not None
            memory = []
            for version in range(2, SWAPS + 2):
                _publish(made, base, version)
                while [row.version for row in running.grpc().status(MODEL) if row.state == "AVAILABLE"] != [version]:
                    time.sleep(0.05)
                shutil.rmtree(base / str(version - 1))
                memory.append(resident_of(pid))
            stop.set()
            for thread in threads:
                thread.join()
            peak = peak_of(pid)
    yield Figure(f"calls during {SWAPS} swaps", sum(calls), "")
    yield Figure("of these failed", sum(failures), "", at_most=0)
    yield Figure("memory after them", memory[-1], "MB", memory[FIRST - 1], f"after the first {FIRST}", at_most=1.1)
    yield Figure("peak memory", peak, "MB")


def _publish(made: Path, base: Path, version: int) -> None:
    base.mkdir(exist_ok=True)
    hidden = base / f".coming-{version}"
    shutil.copytree(made, hidden)
    hidden.rename(base / str(version))
