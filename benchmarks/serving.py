"""What the embedded server adds to an echo server on the same libraries, and to a bare run of the model."""

import json
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import requests
import tensorflow as tf

from benchmarks.load import embedded, free_port, program, rate
from benchmarks.measuring import ROOT, Figure
from tfs_helpers import eyes, load_picture, protos
from tfs_helpers.export import export_eye_encoder, export_half_plus_two
from tfs_helpers.tensors import to_proto

ROUNDS = 5
PREDICT = "/tensorflow.serving.PredictionService/Predict"
FLOATS = (128, 128)


class Load(NamedTuple):
    """One kind of call: where to, with what."""

    url: str
    body: Path
    grpc: bool
    requests: int

    def rate(self, connections: int) -> float:
        return rate(self.url, self.body, grpc=self.grpc, requests=self.requests, connections=connections)

    def seconds(self) -> float:
        """Of one call, on one connection."""
        return 1 / self.rate(1)


def measure() -> Iterator[Figure]:
    """Each figure takes turns with its floor, in this run."""
    with tempfile.TemporaryDirectory() as scratch:
        models, bodies = Path(scratch) / "models", Path(scratch) / "bodies"
        export_half_plus_two(models / "half_plus_two")
        eye = export_eye_encoder(models / "eye1_encoder")
        _export_identity(models / "identity" / "1")
        bodies.mkdir()
        grpc_port, rest_port = free_port(), free_port()
        with (
            embedded(models) as (grpc, rest, _),
            program("benchmarks.echo", "grpc", str(grpc_port), port=grpc_port),
            program("benchmarks.echo", "rest", str(rest_port), port=rest_port),
        ):
            loads = _loads(bodies, grpc, rest)
            echo_grpc, echo_rest = f"http://127.0.0.1:{grpc_port}/echo.Echo/Predict", f"http://127.0.0.1:{rest_port}/"
            yield from _small("gRPC half_plus_two", loads["grpc half"], echo_grpc, at_most=1.3, at_least=0.75)
            yield from _small("REST half_plus_two", loads["rest half"], echo_rest, at_most=1.8, at_least=0.55)
            yield from _eye(loads["grpc eye"], loads["rest eye"], eye)
            yield _floats(loads["rest floats"])


def _small(name: str, ours: Load, echo: str, *, at_most: float, at_least: float) -> Iterator[Figure]:
    floor = ours._replace(url=echo)
    value, least = _in_turn([ours.seconds, floor.seconds])
    yield Figure(f"{name}, 1 connection", value * 1e6, "us", least * 1e6, "echo", at_most=at_most)
    value, least = _in_turn([lambda: ours.rate(8), lambda: floor.rate(8)])
    yield Figure(f"{name}, 8 connections", value, "/s", least, "echo", at_least=at_least)


def _eye(grpc: Load, rest: Load, version: Path) -> Iterator[Figure]:
    def bare() -> tuple[float, float]:
        line = [sys.executable, "-m", "benchmarks.bare", str(version), "1", "128", "128", "1"]
        said = subprocess.run(line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout
        alone, together = map(float, said.split())
        return alone, together

    rounds = [(grpc.seconds(), rest.seconds(), grpc.rate(8), *bare()) for _ in range(ROUNDS)]
    by_grpc, by_rest, rate8, alone, together = (statistics.median(column) for column in zip(*rounds, strict=True))
    floor = "bare Session.run"
    yield Figure("gRPC eye encoder, 1 connection", by_grpc * 1e3, "ms", alone * 1e3, floor, at_most=1.8)
    yield Figure("REST eye encoder, 1 connection", by_rest * 1e3, "ms", alone * 1e3, floor, at_most=2.7)
    yield Figure("gRPC eye encoder, 8 connections", rate8, "/s", together, f"{floor}, 8 threads", at_least=0.7)


def _floats(ours: Load) -> Figure:
    text = ours.body.read_text()

    def by_json() -> float:
        started = time.perf_counter()
        array = np.array(json.loads(text)["inputs"], np.float32)
        json.dumps({"outputs": array.tolist()})
        return time.perf_counter() - started

    value, least = _in_turn([ours.seconds, lambda: statistics.median(by_json() for _ in range(20))])
    return Figure("REST 16,384 floats in and out", value * 1e3, "ms", least * 1e3, "json and numpy", at_most=0.2)


def _in_turn(measurements: Sequence[Callable[[], float]]) -> list[float]:
    """The median of each, taking turns; once before for nothing."""
    for each in measurements:
        each()
    rounds = [[each() for each in measurements] for _ in range(ROUNDS)]
    return [statistics.median(column) for column in zip(*rounds, strict=True)]


def _loads(folder: Path, grpc: str, rest: str) -> dict[str, Load]:
    picture = load_picture(eyes()["cat_left"])[np.newaxis]
    numbers = np.array([1, 2, 5], "f4")
    floats = np.random.default_rng(0).random(FLOATS, dtype="f4")

    def body(name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    def message(model: str, name: str, array: np.ndarray) -> bytes:
        request = protos.PredictRequest()
        request.model_spec.name = model
        request.inputs[name].CopyFrom(to_proto(array))
        content: bytes = request.SerializeToString()
        return b"\0" + struct.pack(">I", len(content)) + content  # as gRPC frames it

    def document(array: np.ndarray, key: str = "instances") -> bytes:
        return json.dumps({key: array.tolist()}).encode()

    def url(model: str) -> str:
        return f"{rest}/v1/models/{model}:predict"

    loads = {
        "grpc half": Load(grpc + PREDICT, body("half.pb", message("half_plus_two", "x", numbers)), True, 2000),
        "rest half": Load(url("half_plus_two"), body("half.json", document(numbers)), False, 4000),
        "grpc eye": Load(grpc + PREDICT, body("eye.pb", message("eye1_encoder", "input_1", picture)), True, 500),
        "rest eye": Load(url("eye1_encoder"), body("eye.json", document(picture)), False, 400),
        "rest floats": Load(url("identity"), body("floats.json", document(floats, "inputs")), False, 300),
    }
    for load in loads.values():
        if not load.grpc:
            # h2load counts answers; that they are good ones is seen here, once.
            requests.post(load.url, data=load.body.read_bytes(), timeout=10).raise_for_status()
    return loads


def _export_identity(folder: Path) -> None:
    module = tf.Module()

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32, name="x")])
    def identity(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"y": tf.identity(x)}

    tf.saved_model.save(module, str(folder), signatures=identity)
