"""Run a model server through its life: starting, hot swaps, labels, reloads, failures.

    python lifecycle.py --server "tensorflow_model_server" lifecycle.json
    python lifecycle.py --server "python -m some.server" lifecycle.json

`--server` is the command; each scenario adds the flags of
tensorflow_model_server. Every scenario yields observations, which are compared
with those of the official C++ server, kept in the JSON file; `--record` writes
them. Prints each scenario that differs, then `N passed, M failed`.

Waits are bounded: a state that the C++ server reaches is given 20 seconds. What
depends on time (how fast, how often) is not observed.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import conformance
import grpc
import requests
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

MODELS = None  # made by make_models.py
SERVER = None
PATIENCE = 20.0


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """The server under test, with a scratch folder and its log."""

    def __init__(self, *flags, rest=True, folder=None):
        self.folder = Path(folder or tempfile.mkdtemp(prefix="lifecycle-"))
        self.port, self.rest_port = free_port(), free_port()
        self.log = open(self.folder / "server.log", "wb")
        self.out = open(self.folder / "server.out", "wb")
        command = (
            shlex.split(SERVER) + [f"--port={self.port}"] + ([f"--rest_api_port={self.rest_port}"] if rest else [])
        )
        self.process = subprocess.Popen(command + list(flags), stdout=self.out, stderr=self.log)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")
        self.predictor = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()
        self.out.close()

    def url(self, path):
        return f"http://127.0.0.1:{self.rest_port}/v1/models/{path}"

    def ports_open(self):
        with socket.socket() as s:
            s.settimeout(0.5)
            return s.connect_ex(("127.0.0.1", self.rest_port)) == 0

    def wait_open(self, seconds=PATIENCE * 2):
        return until(lambda: self.ports_open() or self.process.poll() is not None, seconds) and self.ports_open()

    def states(self, model):
        """{version: state} by REST, or the error."""
        try:
            answer = requests.get(self.url(model), timeout=5)
        except requests.RequestException as error:
            return type(error).__name__
        body = answer.json()
        if "error" in body:
            return [answer.status_code, body["error"]]
        return {s["version"]: s["state"] for s in body["model_version_status"]}

    def status(self, model):
        """{version: [state, error code]} by gRPC."""
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        try:
            answer = self.models.GetModelStatus(request, timeout=5)
        except grpc.RpcError as error:
            return [error.code().name, error.details()]
        return {
            str(s.version): [get_model_status_pb2.ModelVersionStatus.State.Name(s.state), s.status.error_code]
            for s in answer.model_version_status
        }

    def predict(self, which="half_plus_two", value=1.0):
        """What [value] gives: the number, or the error."""
        try:
            answer = requests.post(self.url(which) + ":predict", json={"instances": [value]}, timeout=10)
        except requests.RequestException as error:
            return type(error).__name__
        body = answer.json()
        return body["predictions"][0] if "predictions" in body else [answer.status_code, body["error"]]

    def reload(self, text, timeout=10):
        request = model_management_pb2.ReloadConfigRequest()
        text_format.Parse(text, request.config)
        try:
            answer = self.models.HandleReloadConfigRequest(request, timeout=timeout)
        except grpc.RpcError as error:
            return [error.code().name, conformance.trimmed(error.details().replace(str(self.folder), "$HERE"), "")]
        return [answer.status.error_code, answer.status.error_message.replace(str(self.folder), "$HERE")]

    def ended(self, seconds=PATIENCE):
        """Exit status and what it printed on stdout, once it has ended."""
        until(lambda: self.process.poll() is not None, seconds)
        self.out.flush()
        said = (self.folder / "server.out").read_text(errors="replace")
        failure = [line for line in said.splitlines() if line.startswith("Failed to start server")]
        return {
            "exit": self.process.poll(),
            "failure": [conformance.trimmed(line.replace(str(self.folder), "$HERE"), "") for line in failure],
        }

    def logged(self, text):
        return until(lambda: text in (self.folder / "server.log").read_text(errors="replace"), 5)


def until(condition, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return bool(condition())


def publish(folder, model, version, source=1, name="half_plus_two"):
    """Copy a version in atomically: under a name that is no number, then renamed."""
    base = Path(folder) / model
    base.mkdir(parents=True, exist_ok=True)
    hidden = base / f".coming-{version}"
    shutil.copytree(Path(MODELS) / name / str(source), hidden)
    hidden.rename(base / str(version))


def scratch():
    return tempfile.mkdtemp(prefix="lifecycle-")


def single(folder, *flags):
    return Server("--model_name=half_plus_two", f"--model_base_path={folder}/half_plus_two", *flags, folder=folder)


def config_for(folder, *entries):
    """ModelServerConfig text: each entry is (name, base folder, extra text)."""
    lines = [
        f'config {{ name: "{name}" base_path: "{folder}/{base}" model_platform: "tensorflow" {extra} }}'
        for name, base, extra in entries
    ]
    return "model_config_list { " + " ".join(lines) + " }"


SCENARIOS = {}


def scenario(function):
    SCENARIOS[function.__name__] = function
    return function


# ---- starting


def failing_start(config=None, *flags, seconds=PATIENCE):
    folder = scratch()
    publish(folder, "half_plus_two", 1)
    if config is not None:
        Path(folder, "models.config").write_text(config.replace("$HERE", folder))
        flags += (f"--model_config_file={folder}/models.config",)
    with Server(*[f.replace("$HERE", folder) for f in flags], folder=folder) as server:
        return server.ended(seconds)


@scenario
def start_without_a_model():
    return failing_start()


@scenario
def start_with_a_relative_base_path():
    return failing_start(None, "--model_name=m", "--model_base_path=models/m")


@scenario
def start_with_a_missing_config_file():
    return failing_start(None, "--model_config_file=$HERE/nothing.config")


@scenario
def start_with_an_unparsable_config():
    return failing_start("model_config_list { config { nonsense: 3 } }")


@scenario
def start_with_a_model_listed_twice():
    entry = 'config { name: "m" base_path: "$HERE/half_plus_two" model_platform: "tensorflow" }'
    return failing_start(f"model_config_list {{ {entry} {entry} }}")


@scenario
def start_without_a_platform():
    return failing_start('model_config_list { config { name: "m" base_path: "$HERE/half_plus_two" } }')


@scenario
def start_with_a_label_and_no_permission():
    return failing_start(
        'model_config_list { config { name: "m" base_path: "$HERE/half_plus_two" model_platform: "tensorflow" '
        'version_labels { key: "stable" value: 1 } } }'
    )


@scenario
def start_with_batching_parameters_but_no_batching():
    folder = scratch()
    Path(folder, "batching.config").write_text("max_batch_size { value: 8 }\n")
    publish(folder, "half_plus_two", 1)
    with single(folder, f"--batching_parameters_file={folder}/batching.config") as server:
        return server.ended()


@scenario
def start_with_a_flag_of_the_wrong_type():
    return failing_start(None, "--rest_api_timeout_in_ms=soon", "--model_base_path=$HERE/half_plus_two")


@scenario
def start_with_an_unknown_flag():
    folder = scratch()
    publish(folder, "half_plus_two", 1)
    with single(folder, "--no_such_flag=1") as server:
        opened = server.wait_open()
        return {
            "opened": opened,
            "answer": server.predict(),
            "said": "unknown argument: --no_such_flag=1" in (Path(folder) / "server.out").read_text() or "not flushed",
        }


@scenario
def start_on_a_folder_without_versions():
    folder = scratch()
    shutil.copytree(Path(MODELS) / "half_plus_two" / "1", Path(folder) / "half_plus_two")
    with single(folder) as server:
        closed = not until(server.ports_open, 3)
        return {
            "closed": closed,
            "logged": server.logged("No versions of servable half_plus_two found under base path"),
        }


@scenario
def start_with_a_broken_model():
    folder = scratch()
    broken = Path(folder) / "half_plus_two" / "1"
    broken.mkdir(parents=True)
    (broken / "saved_model.pb").write_bytes(b"not a saved model")
    with single(folder, "--max_num_load_retries=0") as server:
        return {"opened": server.wait_open(15), "exit": server.process.poll()}


# ---- versions


@scenario
def a_new_version_replaces_the_old():
    folder = scratch()
    publish(folder, "half_plus_two", 1, 1)
    with single(folder) as server:
        server.wait_open()
        first = server.predict(), server.states("half_plus_two")
        publish(folder, "half_plus_two", 2, 2)
        until(lambda: server.states("half_plus_two") == {"2": "AVAILABLE", "1": "END"})
        return {
            "first": first,
            "then": [server.predict(), server.states("half_plus_two"), server.status("half_plus_two")],
            "old": server.predict("half_plus_two/versions/1"),
        }


@scenario
def taking_every_version_away():
    folder = scratch()
    publish(folder, "half_plus_two", 1, 1)
    with single(folder) as server:
        server.wait_open()
        shutil.rmtree(Path(folder) / "half_plus_two" / "1")
        until(lambda: server.states("half_plus_two") == {"1": "END"}, 6)
        return {"answer": server.predict(), "states": server.states("half_plus_two")}


@scenario
def names_of_version_folders():
    folder = scratch()
    for name in ["1", "000007", "v8", "9.0", "-3", "+11", "12x", " 13", "0", "1e3", "0x10"]:
        shutil.copytree(Path(MODELS) / "half_plus_two" / "1", Path(folder) / "half_plus_two" / name)
    config = config_for(folder, ("half_plus_two", "half_plus_two", "model_version_policy { all {} }"))
    Path(folder, "models.config").write_text(config)
    with Server(f"--model_config_file={folder}/models.config", folder=folder) as server:
        server.wait_open()
        time.sleep(2)
        return {"states": server.states("half_plus_two")}


@scenario
def the_policy_specific_with_one_missing():
    folder = scratch()
    publish(folder, "half_plus_two", 1, 1)
    Path(folder, "models.config").write_text(
        config_for(
            folder, ("half_plus_two", "half_plus_two", "model_version_policy { specific { versions: 1 versions: 9 } }")
        )
    )
    with Server(f"--model_config_file={folder}/models.config", folder=folder) as server:
        server.wait_open()
        first = server.states("half_plus_two"), server.predict("half_plus_two/versions/9")
        publish(folder, "half_plus_two", 9, 3)
        until(lambda: server.states("half_plus_two").get("9") == "AVAILABLE")
        return {"first": first, "then": server.states("half_plus_two"), "answer": server.predict()}


# ---- labels and reloads

TWO = "model_version_policy { specific { versions: 1 versions: 2 } } "


def labelled(folder, stable, test=None):
    labels = f'version_labels {{ key: "stable" value: {stable} }} '
    if test is not None:
        labels += f'version_labels {{ key: "test" value: {test} }} '
    return config_for(folder, ("half_plus_two", "half_plus_two", TWO + labels))


def two_versions(*flags):
    folder = scratch()
    publish(folder, "half_plus_two", 1, 1)
    publish(folder, "half_plus_two", 2, 2)
    Path(folder, "models.config").write_text(config_for(folder, ("half_plus_two", "half_plus_two", TWO)))
    server = Server(f"--model_config_file={folder}/models.config", *flags, folder=folder)
    server.wait_open()
    until(lambda: server.states("half_plus_two") == {"2": "AVAILABLE", "1": "AVAILABLE"})
    return server


def by_label(server, *labels):
    return {label: server.predict(f"half_plus_two/labels/{label}") for label in labels}


@scenario
def labels_are_given_promoted_and_rolled_back():
    with two_versions() as server:
        here = server.folder
        before = by_label(server, "stable", "test")
        given = server.reload(labelled(here, 1, 2)), by_label(server, "stable", "test")
        promoted = server.reload(labelled(here, 2, 2)), by_label(server, "stable", "test")
        back = server.reload(labelled(here, 1)), by_label(server, "stable", "test")
        return {"before": before, "given": given, "promoted": promoted, "back": back}


@scenario
def a_label_for_a_version_that_is_not_there():
    with two_versions() as server:
        refused = server.reload(labelled(server.folder, 7))
        kept = by_label(server, "stable")
        good = server.reload(labelled(server.folder, 1))
        moved = server.reload(labelled(server.folder, 7))
        return {"refused": refused, "kept": kept, "good": good, "moved": moved, "then": by_label(server, "stable")}


@scenario
def a_reload_with_a_model_that_is_not_there():
    with two_versions() as server:
        here = server.folder
        answer = server.reload(
            config_for(here, ("half_plus_two", "half_plus_two", TWO), ("ghost", "ghost", "")), timeout=4
        )
        ghost = server.predict("ghost")
        publish(here, "ghost", 1, 3)
        until(lambda: isinstance(server.predict("ghost"), float))
        return {"answer": answer[0], "ghost": ghost, "still": server.predict(), "later": server.predict("ghost")}


@scenario
def the_config_file_is_polled():
    with two_versions("--model_config_file_poll_wait_seconds=1") as server:
        here = server.folder
        publish(here, "other", 1, 3)
        before = server.predict("other")
        Path(here, "models.config").write_text(
            config_for(here, ("half_plus_two", "half_plus_two", TWO), ("other", "other", ""))
        )
        until(lambda: isinstance(server.predict("other"), float))
        after = server.predict("other")
        Path(here, "models.config").write_text("model_config_list { config { oops")
        time.sleep(3)
        return {
            "before": before,
            "after": after,
            "bad file": [server.predict(), server.predict("other"), server.process.poll()],
        }


# ---- options


@scenario
def without_rest():
    folder = scratch()
    publish(folder, "half_plus_two", 1)
    with Server(
        "--model_name=half_plus_two", f"--model_base_path={folder}/half_plus_two", rest=False, folder=folder
    ) as server:
        until(lambda: isinstance(server.status("half_plus_two"), dict))
        return {"status": server.status("half_plus_two"), "rest": server.predict()}


@scenario
def prometheus_metrics():
    folder = scratch()
    publish(folder, "half_plus_two", 1)
    Path(folder, "monitoring.config").write_text('prometheus_config { enable: true path: "/metrics" }\n')
    with single(folder, f"--monitoring_config_file={folder}/monitoring.config") as server:
        server.wait_open()
        for _ in range(3):
            server.predict()
        server.predict("nope")
        page = requests.get(f"http://127.0.0.1:{server.rest_port}/metrics", timeout=5)
        lines = page.text.splitlines()
        interesting = re.compile(
            r"^:tensorflow:(serving:request_count|core:graph_runs|serving:request_latency_count|serving:request_latency_bucket)"
        )
        return {
            "status": page.status_code,
            "content_type": page.headers["Content-Type"],
            "serving names": sorted(
                {line.split()[2] for line in lines if line.startswith("# TYPE :tensorflow:serving:")}
            ),
            "types": sorted(line for line in lines if line.startswith("# TYPE :tensorflow:serving:request")),
            "counts": sorted(
                line for line in lines if interesting.match(line) and "_bucket" not in line and "graph" not in line
            ),
            "buckets": len([line for line in lines if line.startswith(":tensorflow:serving:request_latency_bucket")])
            > 0,
        }


@scenario
def a_request_of_twenty_megabytes():
    folder = scratch()
    publish(folder, "half_plus_two", 1)
    with single(folder) as server:
        server.wait_open()
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "half_plus_two"
        request.inputs["x"].dtype = 1
        request.inputs["x"].tensor_shape.dim.add(size=5_000_000)
        request.inputs["x"].tensor_content = b"\0" * 20_000_000
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.max_receive_message_length", -1)])
        answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)
        channel.close()
        return {"length": len(answer.outputs["y"].float_val), "first": answer.outputs["y"].float_val[0]}


@scenario
def a_termination_signal():
    folder = scratch()
    publish(folder, "half_plus_two", 1)
    with single(folder) as server:
        server.wait_open()
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.process.poll() is not None)
        return {"ended": server.process.poll() is not None, "port closed": not server.ports_open()}


def main():
    global MODELS, SERVER
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--server", required=True)
    parser.add_argument("--models", required=True, help="the folder given to make_models.py")
    parser.add_argument("--only", default="")
    parser.add_argument("--record", action="store_true")
    args = parser.parse_args()
    MODELS, SERVER = args.models, args.server
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"
    expected = json.loads(args.file.read_text()) if args.file.exists() else {}
    passed = failed = 0
    for name, function in SCENARIOS.items():
        if not re.search(args.only, name) or (not args.record and name not in expected):
            continue
        try:
            seen = json.loads(json.dumps(function()))
        except Exception as error:  # a scenario that breaks off has failed
            seen = {"broke off": f"{type(error).__name__}: {error}"[:300]}
        if args.record:
            expected[name] = seen
            print(name, json.dumps(seen)[:700])
        elif conformance.same(expected[name], seen):
            passed += 1
        else:
            failed += 1
            print(f"--- {name}\n  want {json.dumps(expected[name])[:900]}\n  got  {json.dumps(seen)[:900]}")
    if args.record:
        args.file.write_text(json.dumps(expected, indent=1) + "\n")
    else:
        print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
