"""What the soaked server serves, and right calls to it with their answers."""

import base64
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from served_models import DTYPES, NOT_IN_JSON, export_all, export_graph
from soak_grpc import ANY_SIZE, check
from soak_http import Http, post
from soak_report import MOST_SECONDS, Disorderly, Report, Worker

from tfs_helpers import protos
from tfs_helpers.export import export_eye_encoder, export_half_plus_two
from tfs_helpers.tensors import to_proto

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
METRICS = "/monitoring/prometheus/metrics"


def export(folder: Path) -> None:
    """Every model that a soak serves, one base path each, and the folder `swapped`, which it changes."""
    export_all(folder)
    for version in (1, 2):
        export_half_plus_two(folder / "half_plus_two", version=version, addend=version + 1.0)
    export_eye_encoder(folder / "eye1_encoder", version=1)
    export_graph(folder / "judges" / "1", _judges)
    shutil.copytree(folder / "half_plus_two" / "1", folder / "swapped" / "1")


def _judges(v1: Any) -> Any:
    examples = v1.placeholder("string", (None,), name="examples")
    x = v1.parse_example(examples, {"x": v1.FixedLenFeature([1], "float32")})["x"]
    names = v1.fill(v1.shape(x), "x")
    return {
        "serving_default": ({"inputs": examples}, {"scores": x * 2, "classes": names}),
        "half": ({"inputs": examples}, {"outputs": x / 2}),
    }


@dataclass
class Served:
    """The models as they are configured now.

    Attributes:
        folder: their base paths.
        moving: the version of half_plus_two that the label `moving` points at.
        flipped: the version of half_plus_two that is served as the model `flipped`.
        extra: a model beside them, if any.
    """

    folder: Path
    moving: int = 1
    flipped: int = 1
    extra: str = ""

    def text(self) -> str:
        """The configuration as a text proto."""
        special = {"half_plus_two", "flipped"}
        rows = [self._row(path.name) for path in sorted(self.folder.iterdir()) if path.name not in special]
        both = " ".join(
            f'version_labels {{ key: "{k}" value: {v} }}'
            for k, v in (("stable", 1), ("test", 2), ("moving", self.moving))
        )
        rows.append(
            self._row("half_plus_two", more=f"model_version_policy {{ specific {{ versions: 1 versions: 2 }} }} {both}")
        )
        only = f"model_version_policy {{ specific {{ versions: {self.flipped} }} }}"
        rows.append(self._row("flipped", "half_plus_two", only))
        if self.extra:
            rows.append(self._row(self.extra, "scalar"))
        return "model_config_list {\n" + "\n".join(rows) + "\n}\n"

    def _row(self, name: str, folder: str = "", more: str = "") -> str:
        path = self.folder / (folder or name)
        return f'  config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {more} }}'


# ---- right calls


class Wires:
    """One client's way to both doors."""

    def __init__(self, ports: tuple[int, int]) -> None:
        self.http = Http(ports[0])
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{ports[1]}", [*ANY_SIZE, ("grpc.use_local_subchannel_pool", 1)]
        )

    def close(self) -> None:
        self.http.close()
        self.channel.close()


@dataclass
class Call:
    """A request that is right, or wrong in a way whose answer is known.

    Attributes:
        kind: what is counted.
        request: as it goes over the wire; with its method's path for gRPC.
        answers: what may come back; empty until it is recorded.
    """

    kind: str
    request: bytes
    path: str = ""
    response: Any = None
    answers: list[Any] = field(default_factory=list)

    def ask(self, wires: Wires) -> Any:
        """What comes back, in a form that can be compared."""
        if self.path:
            try:
                answer = wires.channel.unary_unary(self.path)(self.request, timeout=MOST_SECONDS)
            except grpc.RpcError as error:
                return check(error), error.details()
            return "OK", self.response.FromString(answer)
        found = wires.http.ask(self.request)
        if METRICS.encode() in self.request:
            return found.status, re.findall(rb"^# TYPE (\S+)", found.body, re.MULTILINE) != []
        return found.status, found.headers.get("content-type"), found.body


def right_calls(has_metrics: bool) -> list[Call]:
    """Every kind of call, on both wires, to models that do not change."""
    calls = []
    for model, where, signature, inputs in _PREDICTIONS:
        calls.append(_predict(model, signature, inputs, where))
        arrays = {name: np.asarray(value).tolist() for name, value in inputs.items()}
        arrays = {name: _as_json(value) for name, value in arrays.items()}
        chosen = {"signature_name": signature} if signature else {}
        calls.append(rest_call("predict, columns", f"{model}{where}:predict", {**chosen, "inputs": arrays}))
        sizes = {np.shape(value)[:1] for value in inputs.values()}
        if len(sizes) == 1 and sizes != {()}:
            rows = [dict(zip(arrays, row, strict=True)) for row in zip(*arrays.values(), strict=True)]
            calls.append(rest_call("predict, rows", f"{model}{where}:predict", {**chosen, "instances": rows}))
    for model in ("half_plus_two", "mixed", "judges", "eye1_encoder", "identity_string", "nobody"):
        spec = protos.ModelSpec(name=model)
        calls += [
            grpc_call(
                "GetModelMetadata", protos.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
            ),
            grpc_call("GetModelStatus", protos.GetModelStatusRequest(model_spec=spec)),
            rest_call("metadata", f"{model}/metadata"),
            rest_call("status", model),
            rest_call("status", f"{model}/versions/1"),
        ]
    examples = [{"x": 1.0}, {"x": -2.5}]
    calls.append(rest_call("classify", "judges:classify", {"examples": examples}))
    calls.append(rest_call("regress", "judges:regress", {"signature_name": "half", "examples": examples}))
    calls.append(rest_call("regress", "judges:regress", {"examples": [{"x": 1}]}))  # an error
    given = protos.Input()
    for example in examples:
        given.example_list.examples.add().features.feature["x"].float_list.value.append(example["x"])
    judges, half = protos.ModelSpec(name="judges"), protos.ModelSpec(name="judges", signature_name="half")
    calls.append(grpc_call("Classify", protos.ClassificationRequest(model_spec=judges, input=given)))
    calls.append(grpc_call("Regress", protos.RegressionRequest(model_spec=half, input=given)))
    both = protos.MultiInferenceRequest(input=given)
    both.tasks.add(model_spec=judges, method_name=CLASSIFY)
    both.tasks.add(model_spec=half, method_name=REGRESS)
    calls.append(grpc_call("MultiInference", both))
    if has_metrics:
        calls.append(Call("REST good, metrics", post(METRICS, b"", method="GET")))
    return calls


def changing_calls() -> list[Call]:
    """Predictions by what is swapped and moved under load: each may be answered by either version, and never fails."""
    calls = []
    x = np.array([0.0], "f4")
    for model, where in (("swapped", ""), ("flipped", ""), ("half_plus_two", "/labels/moving")):
        by_rest = rest_call("predict, changing", f"{model}{where}:predict", {"instances": [0.0]})
        by_rest.answers = [
            (200, "application/json", b'{\n    "predictions": [%s\n    ]\n}' % y) for y in (b"2.0", b"3.0")
        ]
        by_grpc = _predict(model, "", {"x": x}, where)
        by_grpc.kind = "gRPC good, Predict, changing"
        calls += [by_rest, by_grpc]
    return calls


def is_right(call: Call, answer: Any) -> bool:
    """Whether a call was answered as it may be."""
    if call.answers:
        return answer in call.answers
    # A version answers with its own number, even ones with what the second gives.
    code, response = answer
    if code != "OK":
        return False
    version = response.model_spec.version.value
    expected = 3.0 if version % 2 == 0 else 2.0
    return list(response.outputs["y"].float_val) == [expected]


def _predict(model: str, signature: str, inputs: dict[str, Any], where: str = "") -> Call:
    request = protos.PredictRequest(model_spec=protos.ModelSpec(name=model, signature_name=signature))
    _, choice, value = where.split("/") if where else ("", "", "")
    if choice == "versions":
        request.model_spec.version.value = int(value)
    elif choice == "labels":
        request.model_spec.version_label = value
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(to_proto(np.asarray(array)))
    return grpc_call("Predict", request)


def grpc_call(name: str, request: Any) -> Call:
    rpc = protos.RPCS[name]
    response = protos.message_class(f"tensorflow.serving.{rpc.response}")
    return Call(f"gRPC good, {name}", request.SerializeToString(), rpc.path, response)


def rest_call(kind: str, path: str, body: Any = None) -> Call:
    content = b"" if body is None else json.dumps(body).encode()
    return Call(f"REST good, {kind}", post(f"/v1/models/{path}", content, method="GET" if body is None else "POST"))


def _as_json(value: Any) -> Any:
    """Bytes as base64, complex numbers as what no JSON number is."""
    if isinstance(value, list):
        return [_as_json(each) for each in value]
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.real if isinstance(value, complex) else value


_PREDICTIONS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("half_plus_two", where, "", {"x": np.array([1.0, 2.0, 5.0], "f4")})
    for where in ("", "/versions/1", "/versions/2", "/versions/7", "/labels/stable", "/labels/test", "/labels/none")
]
_PREDICTIONS += [
    ("nobody", "", "", {"x": np.array([1.0], "f4")}),
    ("half_plus_two", "", "none", {"x": np.array([1.0], "f4")}),
    ("mixed", "", "", {"features": np.eye(2, dtype="f4"), "count": np.array([1, 2], "i4"),
                      "label": np.array([b"a", b"\xc3\xbc"], object)}),
    ("texts", "", "", {"text": np.array([b"", b"abc", b"\xf0\x9f\x91\x81"], object)}),
    ("texts", "", "echo", {"text": np.array([b"a", b'"\\\n'], object)}),
    ("texts", "", "echo_bytes", {"text_bytes": np.array([b"\x00\xff"], object)}),
    ("scalar", "", "", {"a": np.float32(1), "b": np.float32(2)}),
    ("any_rank", "", "", {"x": np.arange(24, dtype="f4").reshape(2, 3, 4)}),
    ("oddities", "", "", {"x": np.array([0.0, 4.0], "f4")}),
    ("oddities", "", "positive_only", {"x": np.array([4.0], "f4")}),
    ("oddities", "", "slow", {"x": np.array([1000.0, 1.0], "f4")}),
    ("fixed", "", "", {"grid": np.ones((2, 3), "f4")}),
    ("fixed", "", "", {"grid": np.ones((2, 2), "f4")}),
    ("variable", "", "", {"x": np.array([1.0], "f4")}),
    ("identity_float32", "", "", {"x": np.linspace(0, 1, 16384, dtype="f4")}),
    ("eye1_encoder", "", "", {"input_1": np.linspace(0, 1, 2**14, dtype="f4").reshape(1, 128, 128, 1)}),
    *((f"identity_{name}", "", "", {"x": np.array([0, 1, 1], name)})
      for name in DTYPES if name not in {*NOT_IN_JSON, "string"}),
    *((f"identity_{name}", "", "grid", {"x": np.ones((1, 2), name)}) for name in ("float16", "uint16", "complex64")),
]  # fmt: skip


class GoodClient(Worker):
    """Right calls, whose answers are compared."""

    def __init__(self, name: str, report: Report, stop: Any, ports: tuple[int, int], calls: Sequence[Call]) -> None:
        super().__init__(name, report, stop)
        self._wires = Wires(ports)
        self._calls = calls

    def step(self) -> None:
        ask(self.report, self._wires, self.rng.choice(self._calls))

    def close(self) -> None:
        self._wires.close()


def ask(report: Report, wires: Wires, call: Call) -> None:
    """Make a call and look at its answer."""
    with report.asking(call.kind, call.path.encode() + b"\n" + call.request) as codes:
        try:
            answer = call.ask(wires)
        except BaseException:
            wires.http.close()
            raise
        codes.append(str(answer[0]))
        if not is_right(call, answer):
            raise Disorderly(f"{answer!r:.700}, not {call.answers[:1]!r:.700}")
