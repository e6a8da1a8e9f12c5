"""What the clients add to a call, against prepared bytes over the same library and connection."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import orjson
import requests

from benchmarks.measuring import Figure, in_turn
from tfs_helpers import Model, ModelServer, RunningServer, eyes, load_picture, protos
from tfs_helpers.export import export_eye_encoder
from tfs_helpers.tensors import to_proto

ROUNDS = 200
MODEL = "eye1_encoder"


def measure() -> Iterator[Figure]:
    """The eye encoder, one picture a call, one connection, on the embedded server."""
    picture = load_picture(eyes()["cat_left"])[np.newaxis]
    with tempfile.TemporaryDirectory() as folder:
        export_eye_encoder(Path(folder) / MODEL)
        server = ModelServer(Model(MODEL, Path(folder) / MODEL), grpc_port=None, rest_port=None)
        with server.start("embedded") as running:
            yield _grpc(running, picture)
            yield _rest(running, picture)


def _grpc(running: RunningServer, picture: np.ndarray) -> Figure:
    request = protos.PredictRequest()
    request.model_spec.name = MODEL
    request.inputs["input_1"].CopyFrom(to_proto(picture))
    prepared = request.SerializeToString()
    with grpc.insecure_channel(running.grpc_address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        bare = channel.unary_unary(protos.RPCS["Predict"].path)
        client = running.grpc()
        ours, floor = in_turn([lambda: client.predict(MODEL, picture), lambda: bare(prepared, timeout=10)], ROUNDS)
    return Figure("GrpcClient.predict, eye", ours * 1000, "ms", floor * 1000, "prepared bytes, same library")


def _rest(running: RunningServer, picture: np.ndarray) -> Figure:
    url = f"{running.rest_url}/v1/models/{MODEL}:predict"
    with requests.Session() as session:
        client = running.rest()

        def bare() -> object:
            body = orjson.dumps({"inputs": picture}, option=orjson.OPT_SERIALIZE_NUMPY)
            return orjson.loads(session.post(url, data=body, timeout=10).content)

        ours, floor = in_turn([lambda: client.predict(MODEL, picture), bare], ROUNDS)
    return Figure("RestClient.predict, eye", ours * 1000, "ms", floor * 1000, "orjson over requests")
