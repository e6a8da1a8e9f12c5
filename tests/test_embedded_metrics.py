"""What the embedded server counts, and the page on which Prometheus reads it."""

import math
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
from google.protobuf import text_format
from prometheus_client.parser import text_string_to_metric_families
from served_models import export_graph
from test_embedded_server import answers, process, states, until

from tfs_helpers import RunningServer, protos
from tfs_helpers.client import GrpcClient, RestClient
from tfs_helpers.embedded.metrics import Metrics, monitoring_path
from tfs_helpers.embedded.status import Code

PATH = "/watch/metrics"
SERVING = ":tensorflow:serving:"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(page: str) -> Samples:
    """What a Prometheus server makes of the page; counters end in `_total`, as its library has it."""
    families = text_string_to_metric_families(page)
    return {(row.name, tuple(row.labels.items())): row.value for family in families for row in family.samples}


def lines(page: bytes | str, name: str) -> list[str]:
    """The lines of the serving metric `name`."""
    text = page.decode() if isinstance(page, bytes) else page
    return [
        line for line in text.splitlines() if re.match(rf"(# TYPE )?{SERVING}{name}(_bucket|_sum|_count)?[ {{]", line)
    ]


# ---- a server that is watched


def _judges(v1: Any) -> Any:
    """Signatures that classify and regress the same examples."""
    examples = v1.placeholder("string", (None,), name="examples")
    x = v1.parse_example(examples, {"x": v1.FixedLenFeature([1], "float32")})["x"]
    return {
        "serving_default": ({"inputs": examples}, {"scores": x * 2}),
        "half": ({"inputs": examples}, {"outputs": x / 2}),
    }


class Watched:
    """A server with a page of metrics."""

    def __init__(self, client: GrpcClient, rest: RestClient, config: str) -> None:
        self.rest = rest.url
        self.config = config
        self._channel = grpc.insecure_channel(client.address)

    def get(self, path: str = PATH, method: str = "GET") -> requests.Response:
        return requests.request(method, self.rest + path, timeout=10)

    def post(self, path: str, **body: Any) -> int:
        return requests.post(f"{self.rest}/v1/models/{path}", json=body, timeout=10).status_code

    def call(self, method: str, request: Any) -> str:
        """The code that a gRPC call ends with."""
        try:
            self.ask(method, request)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    def ask(self, method: str, request: Any) -> Any:
        """What a gRPC call is answered with."""
        rpc = protos.RPCS[method]
        call = self._channel.unary_unary(rpc.path)
        answer = call(request.SerializeToString(), timeout=10)
        return protos.message_class(f"tensorflow.serving.{rpc.response}").FromString(answer)

    def new(self, before: Samples) -> Samples:
        """What the page says of serving more than it did before, times and buckets aside."""
        return {
            (key[0].removeprefix(SERVING), key[1]): value - before.get(key, 0.0)
            for key, value in self.samples().items()
            if not key[0].endswith(("_sum", "_bucket")) and value != before.get(key, 0.0)
        }

    def samples(self) -> Samples:
        return samples(self.get().text)

    def close(self) -> None:
        self._channel.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base path of a model that classifies and regresses."""
    folder = tmp_path_factory.mktemp("judges")
    export_graph(folder / "1", _judges)
    return folder


@pytest.fixture(scope="module")
def watched(served: Path, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    (folder / "monitoring").write_text(f'prometheus_config {{ enable: true path: "{PATH}" }}')
    config = (
        "model_config_list {"
        f'config {{ name: "half" base_path: "{models}/half_plus_two" model_platform: "tensorflow" }}'
        f'config {{ name: "judges" base_path: "{served}" model_platform: "tensorflow" }} }}'
    )
    (folder / "models").write_text(config)
    flags = (f"--model_config_file={folder}/models", f"--monitoring_config_file={folder}/monitoring")
    with process(folder, *flags) as (_, client, rest):
        until(lambda: answers(rest, "half"))
        server = Watched(client, rest, config)
        yield server
        server.close()


def predict_request(model: str) -> Any:
    request = protos.PredictRequest()
    request.model_spec.name = model
    request.inputs["x"].dtype = protos.enum_value("tensorflow.DataType", "DT_FLOAT")
    request.inputs["x"].tensor_shape.dim.add(size=1)
    request.inputs["x"].float_val.append(1.0)
    return request


def examples(count: int = 1) -> Any:
    found = protos.Input()
    for _ in range(count):
        found.example_list.examples.add().features.feature["x"].float_list.value.append(4.0)
    return found


def key(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(labels.items())


def test_the_page_is_plain_text_with_the_real_servers_names(watched: Watched) -> None:
    page = watched.get()
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/plain"
    assert page.text.endswith("\n")
    assert "HELP" not in page.text
    assert re.findall(rf"# TYPE {SERVING}(.*)", page.text) == [
        "batching_session:queuing_latency histogram",
        "batching_session:wrapped_run_count counter",
        "mlmd_map gauge",
        "model_warmup_latency histogram",
        "model_warmup_records_read counter",
        "request_count counter",
        "request_example_count_total counter",
        "request_example_counts histogram",
        "request_latency histogram",
        "request_log_count counter",
        "runtime_latency histogram",
    ]
    for silent in ("mlmd_map", "request_log_count", "batching_session:wrapped_run_count"):
        assert len(lines(page.text, silent)) == 1


def test_loads_are_counted_by_folder(watched: Watched, served: Path) -> None:
    page = watched.get().text
    assert f':tensorflow:cc:saved_model:load_attempt_count{{model_path="{served}/1",status="success"}} 1' in page
    took = re.search(rf'load_latency{{model_path="{served}/1"}} (\d+)', page)
    assert took is not None
    assert 100 < int(took[1]) < 60e6


def test_requests_by_rest_are_counted_with_the_api_in_lower_case(watched: Watched) -> None:
    before = watched.samples()
    assert watched.post("half:predict", instances=[1.0]) == 200
    assert watched.post("half/versions/2:predict", instances=[1.0]) == 200
    assert watched.post("judges:classify", examples=[{"x": 1.0}]) == 200
    assert watched.post("judges:regress", signature_name="half", examples=[{"x": 1.0}]) == 200
    assert watched.new(before) == {
        key("request_count_total", model_name="half", status="OK"): 2,
        key("request_count_total", model_name="judges", status="OK"): 2,
        key("request_latency_count", model_name="half", API="predict", entrypoint="REST"): 2,
        key("request_latency_count", model_name="judges", API="classify", entrypoint="REST"): 1,
        key("request_latency_count", model_name="judges", API="regress", entrypoint="REST"): 1,
        key("runtime_latency_count", model_name="half", API="Predict", runtime="TF1"): 2,
        key("runtime_latency_count", model_name="judges", API="Classify", runtime="TF1"): 1,
        key("runtime_latency_count", model_name="judges", API="Regress", runtime="TF1"): 1,
    }


def test_looking_at_a_model_by_rest_is_a_request_without_an_api(watched: Watched) -> None:
    before = watched.samples()
    assert watched.get("/v1/models/half").status_code == 200
    assert watched.get("/v1/models/half/metadata").status_code == 200
    assert watched.new(before) == {
        key("request_count_total", model_name="half", status="OK"): 2,
        key("request_latency_count", model_name="half", API="", entrypoint="REST"): 2,
    }


def test_refused_requests_by_rest_are_counted_without_their_times(watched: Watched) -> None:
    before = watched.samples()
    assert watched.post("no%20such:predict", instances=[1.0]) == 404
    assert watched.post("half:predict", instances=["text"]) == 400
    assert watched.post("half:PREDICT", instances=[1.0]) == 400
    assert watched.get(f"/v1/models/half/versions/{2**63}").status_code == 400
    for path in ("half", "half:predict/"):
        assert watched.post(path) == 400
    assert watched.get("/v1/models").status_code == 400
    assert watched.get("/v1/models/half", method="PUT").status_code == 400
    assert watched.get("/elsewhere").status_code == 404
    assert watched.new(before) == {
        key("request_count_total", model_name="no such", status="NOT_FOUND"): 1,
        key("request_count_total", model_name="half", status="INVALID_ARGUMENT"): 3,
        key("request_count_total", model_name="", status="INVALID_ARGUMENT"): 4,
    }


def test_of_grpc_only_predict_classify_and_regress_are_counted(watched: Watched) -> None:
    before = watched.samples()
    spec = protos.ModelSpec(name="judges")
    half = protos.ModelSpec(name="judges", signature_name="half")
    assert watched.call("Predict", predict_request("half")) == "OK"
    assert watched.call("Predict", predict_request("nope")) == "NOT_FOUND"
    assert watched.call("Predict", protos.PredictRequest()) == "INVALID_ARGUMENT"
    assert watched.call("Classify", protos.ClassificationRequest(model_spec=spec, input=examples())) == "OK"
    assert watched.call("Regress", protos.RegressionRequest(model_spec=half, input=examples())) == "OK"
    assert watched.call("Regress", protos.RegressionRequest(model_spec=spec)) == "INVALID_ARGUMENT"
    assert watched.call("GetModelStatus", protos.GetModelStatusRequest(model_spec=spec)) == "OK"
    metadata = protos.GetModelMetadataRequest(model_spec=spec, metadata_field=["signature_def"])
    assert watched.call("GetModelMetadata", metadata) == "OK"
    assert watched.new(before) == {
        key("request_count_total", model_name="half", status="OK"): 1,
        key("request_count_total", model_name="nope", status="NOT_FOUND"): 1,
        key("request_count_total", model_name="", status="INVALID_ARGUMENT"): 1,
        key("request_count_total", model_name="judges", status="OK"): 2,
        key("request_count_total", model_name="judges", status="INVALID_ARGUMENT"): 1,
        key("request_latency_count", model_name="half", API="Predict", entrypoint="GRPC"): 1,
        key("request_latency_count", model_name="judges", API="Classify", entrypoint="GRPC"): 1,
        key("request_latency_count", model_name="judges", API="Regress", entrypoint="GRPC"): 1,
        key("runtime_latency_count", model_name="half", API="Predict", runtime="TF1"): 1,
        key("runtime_latency_count", model_name="judges", API="Classify", runtime="TF1"): 1,
        key("runtime_latency_count", model_name="judges", API="Regress", runtime="TF1"): 1,
    }


def test_of_multi_inference_only_the_examples_are_counted(watched: Watched) -> None:
    before = watched.samples()
    request = protos.MultiInferenceRequest(input=examples(3))
    task = request.tasks.add(method_name="tensorflow/serving/classify")
    task.model_spec.name = "judges"
    assert watched.call("MultiInference", request) == "OK"
    assert watched.new(before) == {
        key("request_example_count_total", model="judges"): 3,
        key("request_example_counts_count", model="judges"): 1,
    }


def test_a_reload_answers_by_how_much_the_metrics_it_names_have_grown(watched: Watched) -> None:
    request = protos.ReloadConfigRequest(metric_names=["/tensorflow/serving/request_count", "/no/such"])
    request.config.CopyFrom(
        text_format.Parse(watched.config, protos.ModelServerConfig(), descriptor_pool=protos.pool())
    )
    answer = watched.ask("HandleReloadConfigRequest", request)
    assert {row.name: row.int64_value_increase for row in answer.metric} == dict.fromkeys(request.metric_names, 0)


def test_times_are_microseconds_in_34_buckets(watched: Watched) -> None:
    assert watched.post("half:predict", instances=[1.0]) == 200
    found = [
        line for line in lines(watched.get().text, "request_latency") if 'API="predict"' in line and '"half"' in line
    ]
    limits = [re.search(r'le="([^"]*)"', line) for line in found[:-2]]
    assert [limit[1] for limit in limits if limit][:6] == ["10", "18", "32.4", "58.32", "104.976", "188.957"]
    assert [limit[1] for limit in limits if limit][-2:] == ["1.47476e+09", "+Inf"]
    counts = [int(line.split()[-1]) for line in found[:-2]]
    assert len(counts) == 34
    assert counts == sorted(counts)
    assert found[-1].startswith(f"{SERVING}request_latency_count{{")
    assert int(found[-1].split()[-1]) == counts[-1]
    each = float(found[-2].split()[-1]) / counts[-1]
    assert 100 < each < 60e6


def test_the_path_is_taken_exactly_and_by_any_method(watched: Watched) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert watched.get(method=method).text.startswith("# TYPE ")
    more = watched.get(f"{PATH}?x=1")
    assert more.status_code == 400
    assert more.headers["Content-Type"] == "text/plain"
    assert more.text == f"Unexpected path: {PATH}?x=1. Should be {PATH}"
    assert watched.get(f"{PATH}/").status_code == 404
    assert watched.get("/monitoring/prometheus/metrics").status_code == 404


def test_nobody_is_watched_who_did_not_ask_for_it(server: RunningServer) -> None:
    assert requests.get(f"{server.rest().url}/monitoring/prometheus/metrics", timeout=10).status_code == 404
    assert monitoring_path(protos.MonitoringConfig()) is None
    config = protos.MonitoringConfig()
    config.prometheus_config.enable = True
    assert monitoring_path(config) == "/monitoring/prometheus/metrics"
    config.prometheus_config.path = "/m"
    assert monitoring_path(config) == "/m"
    config.prometheus_config.enable = False
    assert monitoring_path(config) is None


def test_batches_warm_up_and_failed_loads_are_counted(models: Path, tmp_path: Path) -> None:
    base = tmp_path / "half"
    publish(models, base, 1, warm_up=b"")
    (tmp_path / "monitoring").write_text("prometheus_config { enable: true }")
    (tmp_path / "models").write_text(
        f'model_config_list {{ config {{ name: "half" base_path: "{base}" model_platform: "tensorflow" '
        "model_version_policy { all {} } } }"
    )
    flags = (f"--model_config_file={tmp_path}/models", f"--monitoring_config_file={tmp_path}/monitoring")
    with process(tmp_path, *flags, "--enable_batching", "--max_num_load_retries=0") as (_, client, rest):
        until(lambda: answers(rest, "half"))
        assert rest.predict("half", {"x": np.float32([1.0, 2.0, 5.0])})["y"].size == 3
        publish(models, base, 2, warm_up=b"no records at all")
        publish(models, base, 3, graph=b"no graph")
        until(lambda: states(client, "half") == {1: "AVAILABLE", 2: "END", 3: "END"})
        page = requests.get(f"{rest.url}/monitoring/prometheus/metrics", timeout=10).text
    assert f'{SERVING}batching_session:queuing_latency_count{{thread_pool_name=""}} 1\n' in page
    assert f"{SERVING}batching_session:wrapped_run_count{{}} 1\n" in page
    assert f"{SERVING}batching_session:input_batch_size_sum{{}} 3\n" in page
    assert f"{SERVING}batching_session:processed_batch_size_sum{{}} 3\n" in page
    assert f'{SERVING}batching_session:padding_size_sum{{execution_batch_size="3"}} 0\n' in page
    loads = re.findall(r':load_attempt_count{model_path=".*/half/(.*)",status="(.*)"} (.*)', page)
    assert loads == [("1", "success", "1"), ("2", "success", "1"), ("3", "fail", "1")]
    read = re.findall(r':model_warmup_records_read{model_path=".*/half/(.*)",status="(.*)"} (.*)', page)
    assert read == [("1", "OK", "0"), ("2", "DATA_LOSS: corrupted record at 0 (Is this even a TFRecord file?)", "0")]
    assert page.count("model_warmup_latency_count{") == 2


def publish(models: Path, base: Path, version: int, **files: bytes) -> None:
    """half_plus_two as that version below `base`, under a name that is no number until it is whole."""
    hidden = base / f".{version}"
    shutil.copytree(models / "half_plus_two" / "1", hidden)
    (hidden / "assets.extra").mkdir()
    names = {"warm_up": "assets.extra/tf_serving_warmup_requests", "graph": "saved_model.pb"}
    for name, content in files.items():
        (hidden / names[name]).write_bytes(content)
    hidden.rename(base / str(version))


# ---- the counters by themselves


def test_what_a_client_calls_a_model_cannot_spoil_the_page() -> None:
    metrics = Metrics()
    odd = 'a"b\\c\nd'
    metrics.request(odd, Code.NOT_FOUND)
    page = metrics.page().decode()
    assert f'{SERVING}request_count{{model_name="a\\"b\\\\c\\nd",status="NOT_FOUND"}} 1\n' in page
    assert samples(page)[key(f"{SERVING}request_count_total", model_name=odd, status="NOT_FOUND")] == 1
    metrics.request("\ud800", Code.NOT_FOUND)
    assert b'model_name="?"' in metrics.page()


def test_cells_are_sorted_as_the_real_servers_are() -> None:
    metrics = Metrics()
    for model, code in (("b", Code.OK), ("a", Code.OK), ("a", Code.NOT_FOUND), ("B", Code.OK), ("", Code.UNKNOWN)):
        metrics.request(model, code)
    cells = [line.removeprefix(f"{SERVING}request_count") for line in lines(metrics.page(), "request_count")[1:]]
    assert cells == [
        '{model_name="",status="UNKNOWN"} 1',
        '{model_name="B",status="OK"} 1',
        '{model_name="a",status="NOT_FOUND"} 1',
        '{model_name="a",status="OK"} 1',
        '{model_name="b",status="OK"} 1',
    ]


def test_names_of_models_that_are_not_there_do_not_pile_up() -> None:
    metrics = Metrics()
    metrics.request("long" * 100, Code.NOT_FOUND)
    for number in range(1500):
        metrics.request(f"ghost{number}", Code.NOT_FOUND)
    metrics.request("ghost7", Code.NOT_FOUND)
    metrics.request("late but real", Code.OK)
    metrics.latency("later, and real", "Predict", "GRPC", 0.001)
    metrics.request("late but real", Code.INTERNAL)
    found = lines(metrics.page(), "request_count")[1:]
    assert len(found) == 1000 + 1 + 2
    assert f'{SERVING}request_count{{model_name="(other models)",status="NOT_FOUND"}} 501' in found
    assert f'{SERVING}request_count{{model_name="ghost7",status="NOT_FOUND"}} 2' in found
    assert f'{SERVING}request_count{{model_name="late but real",status="INTERNAL"}} 1' in found
    assert f'{SERVING}request_latency_count{{model_name="later, and real",API="Predict",entrypoint="GRPC"}} 1' in lines(
        metrics.page(), "request_latency"
    )


def test_a_limit_is_outside_its_bucket_as_in_tensorflow() -> None:
    metrics = Metrics()
    for count in (1, 2, 16384, 20000):
        metrics.example_counts("m", count)
    found = [line.partition('le="')[2] for line in lines(metrics.page(), "request_example_counts")[1:-2]]
    assert found[:3] == ['1"} 0', '2"} 1', '4"} 2']
    assert found[-2:] == ['16384"} 2', '+Inf"} 4']
    assert (
        lines(metrics.page(), "request_example_counts")[-2] == f'{SERVING}request_example_counts_sum{{model="m"}} 36387'
    )


def test_sums_have_six_digits_as_absl_writes_them() -> None:
    metrics = Metrics()
    metrics.runtime("m", "Predict", 1.2345678)
    assert lines(metrics.page(), "runtime_latency")[-2].endswith("} 1.23457e+06")


def test_warm_up_is_counted_by_folder_and_status() -> None:
    metrics = Metrics()
    metrics.warmup("/m/1", "OK", 0.5, 7)
    metrics.warmup("/m/2", "DATA_LOSS: truncated record at 0", 0.5, 0)
    assert lines(metrics.page(), "model_warmup_records_read") == [
        f"# TYPE {SERVING}model_warmup_records_read counter",
        f'{SERVING}model_warmup_records_read{{model_path="/m/1",status="OK"}} 7',
        f'{SERVING}model_warmup_records_read{{model_path="/m/2",status="DATA_LOSS: truncated record at 0"}} 0',
    ]
    assert f'{SERVING}model_warmup_latency_sum{{model_path="/m/1",status="OK"}} 500000' in metrics.page().decode()


def test_batches_appear_once_there_are_any() -> None:
    metrics = Metrics()
    assert "batch_size" not in metrics.page().decode()
    batching = metrics.batching
    for size in (1, 2):
        batching.request(size, tensors=2)
        batching.queuing(0.001)
    batching.batch(4, padding=1)
    batching.run()
    page = metrics.page().decode()
    assert f'{SERVING}batching_session:queuing_latency_count{{thread_pool_name=""}} 2\n' in page
    assert f"{SERVING}batching_session:wrapped_run_count{{}} 1\n" in page
    assert f'{SERVING}batching_session:padding_size_sum{{execution_batch_size="4"}} 1\n' in page
    assert f"{SERVING}batching_session:input_batch_size_sum{{}} 6\n" in page
    assert f"{SERVING}batching_session:input_batch_size_count{{}} 4\n" in page
    assert f'{SERVING}batching_session:processed_batch_size_bucket{{le="4"}} 0\n' in page
    assert f'{SERVING}batching_session:processed_batch_size_bucket{{le="8"}} 1\n' in page
    assert "_created" not in page


def test_failed_loads_are_counted_without_their_time() -> None:
    metrics = Metrics()
    metrics.loaded("/m/1", 0.25, success=True)
    metrics.loaded("/m/2", 0.25, success=False)
    page = metrics.page().decode()
    assert ':tensorflow:cc:saved_model:load_attempt_count{model_path="/m/2",status="fail"} 1\n' in page
    assert re.findall(r"load_latency{.*", page) == ['load_latency{model_path="/m/1"} 250000']


def test_a_counter_is_found_by_tensorflows_name() -> None:
    metrics = Metrics()
    assert metrics.first_value("/tensorflow/serving/request_count") == 0
    for model in ("b", "a", "b", "a", "a"):
        metrics.request(model, Code.OK)
    metrics.runtime("a", "Predict", 1.0)
    assert metrics.first_value("/tensorflow/serving/request_count") == 3
    assert metrics.first_value("/tensorflow/serving/runtime_latency") == 0
    assert metrics.first_value("/tensorflow/nothing") == 0


def test_nothing_is_lost_when_threads_count_together() -> None:
    metrics = Metrics()

    def count() -> None:
        for number in range(2000):
            metrics.request(f"m{number % 50}", Code.OK)
            metrics.runtime("m", "Predict", 1e-6)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    metrics.page()
    for thread in threads:
        thread.join()
    assert sum(int(line.split()[-1]) for line in lines(metrics.page(), "request_count")[1:]) == 16_000
    assert math.isclose(float(lines(metrics.page(), "runtime_latency")[-1].split()[-1]), 16_000)
