"""The whole road in a terminal: export a model, serve it, show it an eye, by REST and by gRPC.

`make demo` runs it.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tfs_helpers import Model, ModelServer, TfsError, eyes, load_picture, read_signatures
from tfs_helpers.export import export_eye_encoder

T = TypeVar("T")

MODEL = "eye1_encoder"
EYE = "cat_left"
CALLS = 50
GREYS = " .:-=+*#%@"


def main() -> int:
    """Walk the road once. Returns 0 where both wires gave the same embedding."""
    # TensorFlow's own log would stand between the lines. The server has its own.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    print(f"Python {sys.version.split()[0]}, TensorFlow {version('tensorflow')}\n")
    with tempfile.TemporaryDirectory(prefix="tfs-demo-") as folder:
        base_path = Path(folder) / MODEL
        step("1. Export a model: an encoder, from a picture of an eye to 512 numbers (loads TensorFlow, some seconds)")
        version_folder, seconds = timed(lambda: export_eye_encoder(base_path, version=1))
        print(f"   {MODEL}/{version_folder.name} in {seconds:.1f} s; what it takes and gives:")
        show(str(read_signatures(version_folder)["serving_default"]))

        step("2. Serve it")
        description = ModelServer(Model(MODEL, base_path), grpc_port=None, rest_port=None)
        print("   With Docker you would type:")
        show(description.command("docker"))
        running, seconds = timed(description.start)
        with running:
            print(f"   Running: {running.why}")
            print(f"   AVAILABLE after {seconds:.1f} s.\n")
            picture = load_picture(eyes()[EYE])
            step(f"3. Show it an eye ({EYE}.png, 128 x 128)")
            print(drawn(picture))
            step("4. Call it by both wires")
            batch = picture[np.newaxis]
            rest, grpc = running.rest(), running.grpc()
            by_rest = answers("REST", lambda: rest.predict(MODEL, batch)["output_1"])
            by_grpc = answers("gRPC", lambda: grpc.predict(MODEL, batch)["output_1"])
            difference = float(np.abs(by_rest - by_grpc).max())
    same = difference <= 1e-5
    verdict = "the same" if same else "NOT the same"
    print(f"\n   Both wires give {verdict} embedding: the largest difference is {difference:.1g}.")
    print("   The server is stopped; nothing is left behind.\n")
    print("Next: make lab opens the notebooks.")
    return 0 if same else 1


def step(title: str) -> None:
    """A heading."""
    print(title, flush=True)


def show(text: str) -> None:
    """A block of text, set in, with an empty line after it."""
    print("\n".join(f"      {line}" for line in text.splitlines()) + "\n", flush=True)


def timed(function: Callable[[], T]) -> tuple[T, float]:
    """What it returns, and the seconds it took."""
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def answers(wire: str, call: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Call a model often, and print the start of the answer and the usual time."""
    embedding = call()
    times = [timed(call)[1] for _ in range(CALLS)]
    start = ", ".join(f"{number:+.4f}" for number in embedding[0, :5])
    print(f"   {wire}: {embedding.shape} [{start}, ...]   {statistics.median(times) * 1000:.1f} ms (median of {CALLS})")
    return embedding


def drawn(picture: NDArray[np.float32]) -> str:
    """A grey picture in characters, dark to bright, each for 4 x 8 pixels."""
    height, width, _ = picture.shape
    means = picture.reshape(height // 8, 8, width // 4, 4).mean(axis=(1, 3))
    means = (means - means.min()) / np.ptp(means)
    lines = ["".join(GREYS[min(int(value * len(GREYS)), len(GREYS) - 1)] for value in row) for row in means]
    return "\n".join("      " + line for line in lines) + "\n"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TfsError as error:
        sys.exit(f"\n{error}")
