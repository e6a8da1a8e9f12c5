"""Versions that replace each other while clients call: none of their calls fails, and nothing is left behind."""

import shutil
import statistics
import threading
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from served_models import export_graph
from test_embedded_server import Clients, process, reload, resident, states, until

from tfs_helpers import protos
from tfs_helpers.client import GrpcClient, RestClient
from tfs_helpers.errors import TfsError

SWAPS = 20
FIRST = 5
CLIENTS = 8


def _draw(v1: Any) -> Any:
    """y is the number at place x, out of 4 MB of them: a version that stays in memory shows."""
    x = v1.placeholder("int32", (None,), name="x")
    numbers = v1.constant(np.arange(2**20, dtype="f4"))
    return {"serving_default": ({"x": x}, {"y": v1.gather(numbers, x)})}


def _config(base: Path, version: int) -> str:
    """Which version is served. A reload that says so is quicker than waiting for the next look at the base path."""
    config = protos.ModelServerConfig()
    model = config.model_config_list.config.add(name="m", base_path=str(base), model_platform="tensorflow")
    model.model_version_policy.specific.versions.append(version)
    return str(text_format.MessageToString(config))


class Callers:
    """Clients that call without a pause, by both wires.

    Attributes:
        failures: what went wrong.
        calls: how many there were, by client.
    """

    def __init__(self, clients: Clients) -> None:
        self._addresses = clients[0].address, clients[1].url
        self._stop = threading.Event()
        self.failures: list[str] = []
        self.calls = [0] * CLIENTS
        self._threads = [threading.Thread(target=self._call, args=(index,)) for index in range(CLIENTS)]

    def _call(self, index: int) -> None:
        address, url = self._addresses
        with GrpcClient(address) if index % 2 else RestClient(url) as client:
            while not self._stop.is_set():
                try:
                    [y] = client.predict("m", np.array([index], "i4"), timeout=30)["y"]
                    if y != index:
                        self.failures.append(f"{y}, not {index}")
                except TfsError as error:
                    self.failures.append(f"{error}")
                self.calls[index] += 1

    def __enter__(self) -> "Callers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def _publish(made: Path, base: Path, version: int) -> None:
    hidden = base / f".coming-{version}"
    shutil.copytree(made, hidden)
    hidden.rename(base / str(version))


def test_no_call_fails_while_versions_replace_each_other(tmp_path: Path) -> None:
    made, base = tmp_path / "made", tmp_path / "m"
    export_graph(made, _draw)
    base.mkdir()
    _publish(made, base, 1)
    file = tmp_path / "models.config"
    file.write_text(_config(base, 1))
    with process(tmp_path, f"--model_config_file={file}", "--num_load_threads=1", "--num_unload_threads=1") as (
        child,
        client,
        rest,
    ):
        until(lambda: child.poll() is not None or _available(client) == {1})
        memory = []
        with Callers((client, rest)) as callers:
            for version in range(2, SWAPS + 2):
                _publish(made, base, version)
                reload((client, rest), _config(base, version))
                until(lambda version=version: _available(client) == {version})
                shutil.rmtree(base / str(version - 1))
                memory.append(resident(child.pid))
                before = list(callers.calls)
                until(lambda before=before: all(a < b for a, b in zip(before, callers.calls, strict=True)))
        assert not callers.failures, callers.failures[:5]
        assert set(states(client, "m").values()) == {"AVAILABLE", "END"}
        # It takes a few swaps until the allocator has all that it keeps.
        assert statistics.median(memory[-5:]) <= 1.1 * statistics.median(memory[FIRST : FIRST + 5])


def _available(client: GrpcClient) -> set[int]:
    try:
        return {version for version, state in states(client, "m").items() if state == "AVAILABLE"}
    except TfsError:
        return set()
