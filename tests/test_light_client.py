"""The client is light: what it imports, what it needs, and how much memory it takes, each in a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

from tfs_helpers import RunningServer

ROOT = Path(__file__).parent.parent
MOST_MEGABYTES = 80
# What only a server, Docker, the lab or the export needs; `ml_dtypes` comes with TensorFlow.
ABSENT = (
    "tensorflow",
    "tensorflow_serving",
    "aiohttp",
    "uvloop",
    "docker",
    "matplotlib",
    "PIL",
    "IPython",
    "ml_dtypes",
)
BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} here", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run(code: str, *arguments: str) -> str:
    """The output of a Python of its own; its failure is ours."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_blocker_blocks() -> None:
    for name in ABSENT:
        run(BLOCKER + f"try:\n    import {name}\nexcept ModuleNotFoundError:\n    pass\nelse:\n    sys.exit(1)")


def test_nothing_heavy_is_imported() -> None:
    loaded = run("import sys, tfs_helpers.client\nprint(*{name.partition('.')[0] for name in sys.modules})").split()
    assert {"grpc", "requests", "numpy", "tfs_helpers"} <= set(loaded)
    assert not set(ABSENT) & set(loaded)


def test_neither_launch_nor_the_server_is_imported() -> None:
    ours = run(
        "import sys, tfs_helpers.client\nprint(*(n for n in sys.modules if n.startswith('tfs_helpers')))"
    ).split()
    rooms = {name.split(".")[1] for name in ours if "." in name}
    assert rooms == {
        "advice",
        "client",
        "dtypes",
        "errors",
        "json_tensors",
        "protos",
        "signatures",
        "tensors",
        "versions",
    }


def test_the_whole_process_is_small(server: RunningServer) -> None:
    """Printed for information: seconds. Held, on Linux: megabytes, after both wires have been used."""
    code = """
import resource, sys, time
begin = time.perf_counter()
from tfs_helpers.client import GrpcClient, RestClient
seconds = time.perf_counter() - begin

def peak():
    if sys.platform == "linux":  # where ru_maxrss starts with that of the parent
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2

imported = peak()
for client in (RestClient(sys.argv[1]), GrpcClient(sys.argv[2])):
    with client:
        assert client.predict("half_plus_two", [1.0, 2.0, 5.0], version=1)["y"].tolist() == [2.5, 3.0, 4.5]
print(seconds, imported, peak())
"""
    seconds, imported, used = map(float, run(code, server.rest_url, server.grpc_address).split())
    print(f"import {seconds:.2f} s; at most {imported:.1f} MB after it, {used:.1f} MB after a call on each wire")
    assert 10 < imported <= used
    if sys.platform == "linux":  # elsewhere shared pages are counted in another way
        assert used < MOST_MEGABYTES


def test_it_works_where_nothing_else_is_installed(server: RunningServer) -> None:
    """Both wires, all calls, errors too."""
    code = (
        BLOCKER
        + """
import numpy as np
from tfs_helpers import GrpcClient, RestClient, TfsError, errors, read_signatures
for client in (RestClient(sys.argv[1]), GrpcClient(sys.argv[2])):
    with client:
        eyes = np.zeros((2, 128, 128, 1), np.float32)
        assert client.predict("eye1_encoder", eyes)["output_1"].shape == (2, 512)
        assert client.predict("half_plus_two", [1.0, np.inf], label="stable")["y"].tolist() == [2.5, np.inf]
        assert [row.state for row in client.status("half_plus_two")] == ["AVAILABLE"] * 2
        assert "eye1_encoder, version" in str(client.metadata("eye1_encoder"))
        for wrong in (np.zeros(2), {"y": [1.0]}, [[1], [2, 3]]):
            try:
                client.predict("half_plus_two", wrong)
            except errors.InputError:
                continue
            sys.exit("no error")
        try:
            client.predict("none", [1.0])
        except errors.NotFound as error:
            assert "Servable not found" in error.details
from tfs_helpers import dtypes
try:
    dtypes.by_name("DT_BFLOAT16").type
except errors.InputError as error:
    assert "ml_dtypes" in str(error)
print("well")
"""
    )
    assert run(code, server.rest_url, server.grpc_address) == "well\n"


def test_signatures_are_read_from_disk_without_tensorflow(models: Path) -> None:
    code = BLOCKER + "from tfs_helpers import read_signatures\nprint(read_signatures(sys.argv[1])['serving_default'])"
    folder = next(path for path in sorted((models / "half_plus_two").iterdir()) if path.name.isdecimal())
    assert run(code, str(folder)) == "serving_default\n  in   x  float32 (?,)\n  out  y  float32 (?,)\n"
