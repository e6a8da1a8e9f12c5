"""Replay recorded TensorFlow Serving requests against a running server.

A case file is JSON: a list of objects with `name`, the request, and `expect`,
the answer that the official C++ server (tensorflow_model_server) gave to it.

    python conformance.py --rest http://127.0.0.1:8501 --grpc 127.0.0.1:8500 cases.json

prints every case that is answered otherwise, then `N passed, M failed`, and
exits 1 where any failed. `--record` writes the server's own answers into the
file instead. The server must serve `models.config` as made by make_models.py.

What is compared: REST: status code, content type, and the body as JSON
(numbers to a relative 1e-5; an error text exactly, up to the first text that
the TensorFlow runtime appends, which starts at a newline or `[[`, and with the
models' folder written as $MODELS). gRPC: the status code, the details likewise,
and the response message, field by field; a tensor is compared by value, however
it is encoded. Where the C++ server itself died of a request (`expect` is
{"crash": true}), any orderly refusal passes: a status of 4xx, INVALID_ARGUMENT.
"""

import argparse
import base64
import gzip
import json
import math
import re
import sys
import types
from importlib.util import find_spec
from pathlib import Path


def _without_importing_tensorflow():
    """Let the protos of the `tensorflow` wheel load without the 500 MB package."""
    if "tensorflow" not in sys.modules:
        root = types.ModuleType("tensorflow")
        root.__path__ = list(find_spec("tensorflow").submodule_search_locations)
        sys.modules["tensorflow"] = root


_without_importing_tensorflow()

import grpc  # noqa: E402
import numpy as np  # noqa: E402
import requests  # noqa: E402
from google.protobuf import json_format  # noqa: E402
from tensorflow.core.protobuf import meta_graph_pb2  # noqa: E402, F401
from tensorflow_serving.apis import (  # noqa: E402
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    predict_pb2,
    regression_pb2,
)

METHODS = {
    "Predict": ("PredictionService", predict_pb2.PredictRequest, predict_pb2.PredictResponse),
    "Classify": (
        "PredictionService",
        classification_pb2.ClassificationRequest,
        classification_pb2.ClassificationResponse,
    ),
    "Regress": ("PredictionService", regression_pb2.RegressionRequest, regression_pb2.RegressionResponse),
    "MultiInference": ("PredictionService", inference_pb2.MultiInferenceRequest, inference_pb2.MultiInferenceResponse),
    "GetModelMetadata": (
        "PredictionService",
        get_model_metadata_pb2.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    "GetModelStatus": (
        "ModelService",
        get_model_status_pb2.GetModelStatusRequest,
        get_model_status_pb2.GetModelStatusResponse,
    ),
}

NUMPY = {
    "DT_FLOAT": ("<f4", "floatVal"),
    "DT_DOUBLE": ("<f8", "doubleVal"),
    "DT_INT32": ("<i4", "intVal"),
    "DT_INT64": ("<i8", "int64Val"),
    "DT_UINT8": ("<u1", "intVal"),
    "DT_INT8": ("<i1", "intVal"),
    "DT_INT16": ("<i2", "intVal"),
    "DT_UINT16": ("<u2", "intVal"),
    "DT_UINT32": ("<u4", "uint32Val"),
    "DT_UINT64": ("<u8", "uint64Val"),
    "DT_BOOL": ("?", "boolVal"),
    "DT_HALF": ("<u2", "halfVal"),
    "DT_BFLOAT16": ("<u2", "halfVal"),
    "DT_COMPLEX64": ("<f4", "scomplexVal"),
}


def tensor_by_value(tensor):
    """A TensorProto in JSON form -> {dtype, shape, values}, however it was encoded."""
    dtype = tensor.get("dtype", "DT_INVALID")
    shape = [int(d.get("size", 0)) for d in tensor.get("tensorShape", {}).get("dim", [])]
    if dtype == "DT_STRING":
        values = tensor.get("stringVal", [])
    elif dtype in NUMPY:
        kind, field = NUMPY[dtype]
        if "tensorContent" in tensor:
            values = np.frombuffer(base64.b64decode(tensor["tensorContent"]), kind).tolist()
        else:
            values = [json_number(v) for v in tensor.get(field, [])]
    else:
        values = {k: v for k, v in tensor.items() if k not in ("dtype", "tensorShape", "versionNumber")}
    return {"dtype": dtype, "shape": shape, "values": values}


def json_number(value):
    if isinstance(value, str):
        return float(value) if value in ("NaN", "Infinity", "-Infinity") else int(value)
    return value


def plain(node):
    """Tensors by value; the rest as it is."""
    if isinstance(node, dict):
        if "dtype" in node and "tensorShape" in node and not {"name", "cooSparse"} & node.keys():
            return tensor_by_value(node)
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return node


def rest(base, case):
    body = case.get("body")
    data = base64.b64decode(case["body_b64"]) if "body_b64" in case else (body.encode() if body is not None else None)
    headers = dict(case.get("headers", {}))
    if case.get("gzip"):
        data = gzip.compress(data, mtime=0)
    answer = requests.Request(case["method"], base + case["path"], data=data, headers=headers).prepare()
    answer.url = base + case["path"]
    with requests.Session() as session:
        session.headers.clear()
        response = session.send(answer, timeout=30)
    result = {"status": response.status_code, "content_type": response.headers.get("Content-Type")}
    if case.get("show_headers"):
        result["headers"] = {k: response.headers.get(k) for k in case["show_headers"]}
    text = response.text
    try:
        result["json"] = json.loads(text)
    except ValueError:
        result["text"] = text
    return result


def rpc(channel, case):
    service, request_type, response_type = METHODS[case["rpc"]]
    call = channel.unary_unary(
        f"/tensorflow.serving.{service}/{case['rpc']}",
        request_serializer=request_type.SerializeToString,
        response_deserializer=response_type.FromString,
    )
    request = json_format.ParseDict(case["request"], request_type())
    try:
        response = call(request, timeout=30)
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details()}
    message = json_format.MessageToDict(response)
    signatures = message.get("metadata", {}).get("signature_def")
    if signatures:
        signatures.pop("@type", None)
    return {"code": "OK", "response": plain(message)}


def trimmed(text, models):
    """An error text up to what the TensorFlow runtime appends."""
    if models:
        text = text.replace(models, "$MODELS")
    return re.split(r"\n|\t? ?\[\[", text, maxsplit=1)[0].rstrip()


def normal(node, models):
    if isinstance(node, dict):
        return {
            key: trimmed(value, models)
            if key in ("error", "details", "errorMessage", "error_message") and isinstance(value, str)
            else normal(value, models)
            for key, value in node.items()
        }
    if isinstance(node, list):
        return [normal(value, models) for value in node]
    if isinstance(node, float) and math.isnan(node):
        return "NaN"
    return node


def same(want, got):
    if want == {"crash": True}:
        return 400 <= got.get("status", 0) < 500 or got.get("code") == "INVALID_ARGUMENT"
    if isinstance(want, bool) or isinstance(got, bool):
        return want is got
    if isinstance(want, (int, float)) and isinstance(got, (int, float)):
        return want == got or math.isclose(want, got, rel_tol=1e-5, abs_tol=1e-6)
    if type(want) is not type(got):
        return False
    if isinstance(want, dict):
        return want.keys() == got.keys() and all(same(want[k], got[k]) for k in want)
    if isinstance(want, list):
        return len(want) == len(got) and all(map(same, want, got))
    return want == got


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="+")
    parser.add_argument("--rest", default="http://127.0.0.1:8501")
    parser.add_argument("--grpc", default="127.0.0.1:8500")
    parser.add_argument("--models", default="", help="the folder given to make_models.py, as the server sees it")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--only", default="", help="regular expression on case names")
    parser.add_argument("--quiet", action="store_true", help="counts only")
    args = parser.parse_args()

    channel = grpc.insecure_channel(args.grpc)
    passed = failed = 0
    for path in args.cases:
        cases = json.loads(path.read_text())
        for case in cases:
            if not re.search(args.only, case["name"]):
                continue
            try:
                got = rpc(channel, case) if "rpc" in case else rest(args.rest, case)
            except requests.RequestException as error:
                got = {"no_answer": type(error).__name__}
            got = normal(json.loads(json.dumps(got)), args.models)
            if args.record:
                case["expect"] = got
            elif same(case["expect"], got):
                passed += 1
            else:
                failed += 1
                if not args.quiet:
                    print(
                        f"--- {case['name']}\n  want {json.dumps(case['expect'])[:600]}\n  got  {json.dumps(got)[:600]}"
                    )
        if args.record:
            path.write_text(json.dumps(cases, indent=1, ensure_ascii=True) + "\n")
    if not args.record:
        print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
