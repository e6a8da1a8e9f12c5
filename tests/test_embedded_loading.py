"""How the embedded server loads a version: warm-up, batching, retries, loads that fail or hang."""

import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import pytest
from served_models import Signatures, export_graph
from test_embedded_server import Clients, answers, process, reload, run, states, until

from tfs_helpers import protos
from tfs_helpers.errors import CallError

CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def counting(v1: Any) -> Signatures:
    """A model that counts its calls: predict by 1, classify by 10, regress by 100."""
    count = v1.get_variable("count", initializer=0.0, use_resource=True)
    x = v1.placeholder("float32", (None,), name="x")
    examples = v1.placeholder("string", (None,), name="examples")
    parsed = v1.parse_example(examples, {"x": v1.FixedLenFeature((1,), "float32")})["x"]

    def after(step: float, values: Any) -> Any:
        with v1.control_dependencies([count.assign_add(step)]):
            return v1.identity(values)

    with v1.control_dependencies([count.assign_add(1.0)]):
        now = v1.fill(v1.shape(x), count.read_value())
    return {
        "serving_default": ({"x": x}, {"count": now}),
        "classes": ({"inputs": examples}, {"scores": after(10.0, parsed)}),
        "values": ({"inputs": examples}, {"outputs": after(100.0, parsed)}),
    }


def record(content: bytes) -> bytes:
    """One record of a TFRecord file."""

    def checked(block: bytes) -> bytes:
        crc = google_crc32c.value(block)
        return block + struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32)

    return checked(struct.pack("<Q", len(content))) + checked(content)


def logged(kind: str, **fields: str) -> bytes:
    """A PredictionLog of one request; the model it names is another one."""
    log = protos.PredictionLog()
    getattr(log, kind).SetInParent()
    request = getattr(log, kind).request
    if kind == "predict_log":
        request.inputs["x"].dtype = 1
        request.inputs["x"].tensor_shape.dim.add(size=1)
        request.inputs["x"].float_val.append(1.0)
    elif kind != "session_run_log":
        example = request.input.example_list.examples.add()
        example.features.feature["x"].float_list.value.append(1.0)
    if kind == "multi_inference_log":
        for method, name in ((CLASSIFY, "classes"), (REGRESS, "values")):
            task = request.tasks.add(method_name=method)
            task.model_spec.name, task.model_spec.signature_name = "another", name
    elif fields:
        request.model_spec.name, request.model_spec.signature_name = "another", fields["signature"]
    content: bytes = log.SerializeToString()
    return content


GOOD = [
    logged("predict_log"),
    logged("classify_log", signature="classes"),
    logged("regress_log", signature="values"),
    logged("multi_inference_log"),
    b"",
]


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The counting model's SavedModel."""
    folder = tmp_path_factory.mktemp("counting") / "1"
    export_graph(folder, counting)
    return folder


def with_warm_up(counter: Path, base: Path, content: bytes, version: int = 1) -> Path:
    """The counting model below `base`, with such a file of warm-up requests."""
    hidden = base / f".{version}"
    shutil.copytree(counter, hidden)
    (hidden / "assets.extra").mkdir()
    (hidden / "assets.extra" / "tf_serving_warmup_requests").write_bytes(content)
    return hidden.rename(base / str(version))


def entry(name: str, base: Path | str, extra: str = "") -> str:
    return f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {extra} }}'


def listed(*entries: str) -> str:
    return "model_config_list { " + " ".join(entries) + " }"


@pytest.fixture(scope="module")
def warm(counter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Clients]]:
    """A server of the counting model that replays warm-up requests three times, and tries a load once."""
    folder = tmp_path_factory.mktemp("warm")
    with_warm_up(counter, folder / "counting", b"".join(map(record, GOOD)))
    config = folder / "models.config"
    config.write_text(listed(entry("counting", folder / "counting")))
    flags = ["--num_request_iterations_for_warmup=3", "--max_num_load_retries=0", "--num_load_threads=1"]
    with process(folder, f"--model_config_file={config}", *flags) as (_, client, rest):
        until(lambda: answers(rest, "counting"))
        yield folder, (client, rest)


def counted(clients: Clients, model: str) -> float:
    return float(clients[1].predict(model, {"x": [1.0]})["count"][0])


# ---- warm-up


def test_recorded_requests_are_answered_before_the_first_client(warm: tuple[Path, Clients]) -> None:
    folder, clients = warm
    assert counted(clients, "counting") == 3 * (1 + 10 + 100 + 110) + 1
    path = folder / "counting/1/assets.extra/tf_serving_warmup_requests"
    log = (folder / "log").read_text()
    assert f"Starting to read warmup data for model at {path} with model-warmup-options num_request_iterations" in log
    done = log.index(
        f"Finished reading warmup data for model at {path}. Number of warmup records read: 5. Elapsed time"
    )
    assert done < log.index("Successfully loaded servable version {name: counting version: 1}")


TORN = record(GOOD[0])[:-3]
BENT = record(GOOD[0])[:-5] + b"\0" + record(GOOD[0])[-4:]
TFRECORD = ". Please verify your warmup data is in TFRecord format."


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "text",
            b"these are no records",
            "DATA_LOSS: corrupted record at 0 (Is this even a TFRecord file?)" + TFRECORD,
        ),
        ("torn", TORN, "DATA_LOSS: truncated record at 0' failed with Read less bytes than requested" + TFRECORD),
        ("bent", BENT, "DATA_LOSS: corrupted record at 12" + TFRECORD),
        (
            "second",
            record(GOOD[0]) + b"\0" * 20,
            f"DATA_LOSS: corrupted record at {len(record(GOOD[0]))}{TFRECORD}",
        ),
        ("no_log", record(b"abc"), "INVALID_ARGUMENT: Failed to parse warmup record: abc from PATH"),
        ("session", record(logged("session_run_log")), "UNIMPLEMENTED: Unsupported log_type for warmup: 5"),
        (
            "signature",
            record(logged("predict_log", signature="nope")),
            'FAILED_PRECONDITION: Serving signature key "nope" not found.',
        ),
        (
            "many",
            record(b"") * 1001,
            "INVALID_ARGUMENT: Number of warmup records exceeds the maximum (1000) at PATH",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_warm_up_that_fails_fails_the_load(
    warm: tuple[Path, Clients], counter: Path, name: str, content: bytes, words: str
) -> None:
    folder, clients = warm
    version = with_warm_up(counter, folder / name, content)
    with pytest.raises(grpc.RpcError) as caught:
        reload(clients, listed(entry("counting", folder / "counting"), entry(name, folder / name)))
    assert caught.value.code() == grpc.StatusCode.UNKNOWN
    words = words.replace("PATH", str(version / "assets.extra/tf_serving_warmup_requests"))
    assert caught.value.details() == (
        f"1 model(s) did not become available: {{{{{{name: {name} version: 1}} due to error: {words}}}, }}"
    )
    assert states(clients[0], name) == {1: "END"}


def test_a_thousand_records_and_none_are_fine(warm: tuple[Path, Clients], counter: Path) -> None:
    folder, clients = warm
    with_warm_up(counter, folder / "full", record(GOOD[0]) * 1000)
    with_warm_up(counter, folder / "empty", b"")
    here = [entry(name, folder / name) for name in ("counting", "full", "empty")]
    reload(clients, listed(*here))
    assert [counted(clients, name) for name in ("full", "empty")] == [3001, 1]


# ---- tries


@pytest.fixture(scope="module")
def trying(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Clients]]:
    """A server of one model and no other, with one thread for loads; a failed load is tried 40 times more."""
    folder = tmp_path_factory.mktemp("trying")
    shutil.copytree(models / "half_plus_two" / "1", folder / "m" / "1")
    config = folder / "models.config"
    config.write_text(listed(entry("m", folder / "m")))
    flags = ["--max_num_load_retries=40", "--load_retry_interval_micros=1500000", "--num_load_threads=1"]
    with process(folder, f"--model_config_file={config}", *flags) as (_, client, rest):
        until(lambda: answers(rest, "m"))
        yield folder, (client, rest)


def test_a_load_that_fails_is_tried_again_and_holds_up_no_other(trying: tuple[Path, Clients], models: Path) -> None:
    folder, clients = trying
    half = folder / "m" / "2"
    half.mkdir()
    until(lambda: "Retrying of Loading servable: {name: m version: 2} retry: 1" in (folder / "log").read_text())
    # While one waits for its next try, the only thread is free.
    reload(clients, listed(entry("m", folder / "m"), entry("other", models / "half_plus_two")), timeout=1.2)
    assert states(clients[0], "m") == {2: "LOADING", 1: "AVAILABLE"}
    assert clients[1].predict("m", [0.0])["y"].tolist() == [2.0]
    # Its files come at last.
    shutil.copytree(models / "half_plus_two" / "2", half, dirs_exist_ok=True)
    until(lambda: states(clients[0], "m") == {2: "AVAILABLE", 1: "END"})


def test_a_version_that_goes_is_tried_no_more_and_may_come_back(trying: tuple[Path, Clients], models: Path) -> None:
    folder, clients = trying
    bad = folder / "m" / "3"
    bad.mkdir()
    until(lambda: states(clients[0], "m").get(3) == "LOADING")
    bad.rmdir()
    until(lambda: states(clients[0], "m")[3] == "END")
    assert "Retrying of Loading servable: {name: m version: 3} was cancelled." in (folder / "log").read_text()
    shutil.copytree(models / "half_plus_two" / "2", folder / "coming")
    (folder / "coming").rename(bad)
    until(lambda: states(clients[0], "m")[3] == "AVAILABLE")


# ---- loads that hang


def hanging(base: Path) -> Path:
    """A version that never ends to load: its graph is a pipe into which nobody writes."""
    (base / "1").mkdir(parents=True)
    os.mkfifo(base / "1" / "saved_model.pb")
    return base


def test_a_load_that_hangs_holds_up_neither_others_nor_the_end(models: Path, tmp_path: Path) -> None:
    stuck = entry("stuck", hanging(tmp_path / "stuck"))
    good = entry("good", models / "half_plus_two")
    config = tmp_path / "models.config"
    config.write_text(listed(good))
    with process(tmp_path, f"--model_config_file={config}") as (child, client, rest):
        until(lambda: answers(rest, "good"))
        with pytest.raises(grpc.RpcError) as caught:
            reload((client, rest), listed(good, stuck), timeout=0.5)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        reload((client, rest), listed(good, stuck, entry("later", models / "half_plus_two")), timeout=5)
        assert rest.predict("later", [0.0])["y"].tolist() == [3.0]
        assert states(client, "stuck") == {1: "LOADING"}
        child.terminate()
        assert child.wait(5) == 0


def test_a_signal_while_the_first_load_hangs_ends_it(tmp_path: Path) -> None:
    flags = [f"--model_base_path={hanging(tmp_path / 'stuck')}", "--model_name=stuck"]
    with process(tmp_path, *flags) as (child, client, _):
        until(lambda: "Loading servable version {name: stuck version: 1}" in (tmp_path / "log").read_text())
        assert not answers(client, "stuck")
        child.terminate()
        assert child.wait(5) == 0


# ---- what the first load must come to


def test_every_model_that_fails_at_the_start_is_named(tmp_path: Path, models: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name / "1").mkdir(parents=True)
    config = tmp_path / "models.config"
    broken = [entry(name, tmp_path / name) for name in ("b", "a")]
    config.write_text(listed(*broken, entry("good", models / "half_plus_two")))
    done = run(f"--model_config_file={config}", "--max_num_load_retries=1", "--load_retry_interval_micros=-1")
    assert done.returncode == 255
    missing = (
        "NOT_FOUND: Specified file path does not appear to contain a SavedModel bundle (should have a file called "
        "`saved_model.pb`)\nSpecified file path: "
    )
    each = [f"{{{{name: {name} version: 1}} due to error: {missing}{tmp_path}/{name}/1}}" for name in ("a", "b")]
    words = f"UNKNOWN: 2 servable(s) did not become available: {{{each[0]}, {each[1]}, }}"
    assert done.stdout == f"Failed to start server. Error: {words}\n"
    assert done.stderr.count("Retrying of Loading servable: {name: a version: 1} retry: 1\n") == 1
    assert "Retrying of Loading servable: {name: a version: 1} exhausted max_num_retries: 1\n" in done.stderr


def test_a_model_starts_with_the_versions_that_can_be_loaded(tmp_path: Path, models: Path) -> None:
    shutil.copytree(models / "half_plus_two" / "1", tmp_path / "m" / "1")
    (tmp_path / "m" / "2").mkdir()
    config = tmp_path / "models.config"
    config.write_text(listed(entry("m", tmp_path / "m", "model_version_policy { all {} }")))
    with process(tmp_path, f"--model_config_file={config}") as (_, client, rest):
        until(lambda: answers(rest, "m"))
        assert states(client, "m") == {2: "LOADING", 1: "AVAILABLE"}
        with pytest.raises(CallError, match="Servable not found for request: Specific"):
            rest.predict("m", [0.0], version=2)


# ---- what is counted

LOAD_ALL = """
import sys
from tfs_helpers.embedded.loading.loader import Loader, LoadOptions
from tfs_helpers.embedded.metrics import Metrics
from tfs_helpers.embedded.status import ServingError

metrics = Metrics()
load = Loader(LoadOptions(), metrics)
for folder in sys.argv[1:]:
    try:
        load("m", 1, folder).close()
    except ServingError as error:
        print(error)
print(metrics.page().decode())
"""


def test_loads_and_warm_ups_are_counted(counter: Path, tmp_path: Path) -> None:
    """In a process of its own: this one may have loaded TensorFlow in another way."""
    good = with_warm_up(counter, tmp_path, record(GOOD[0]) * 2)
    bent = with_warm_up(counter, tmp_path, record(GOOD[0]) + BENT, version=2)
    refused = with_warm_up(counter, tmp_path, record(logged("session_run_log")), version=3)
    command = [sys.executable, "-c", LOAD_ALL, *map(str, (good, bent, refused))]
    page = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    assert f':load_attempt_count{{model_path="{refused}",status="success"}} 1' in page
    assert f':tensorflow:cc:saved_model:load_latency{{model_path="{good}"}}' in page
    read = ":tensorflow:serving:model_warmup_records_read"
    assert f'{read}{{model_path="{good}",status="OK"}} 2' in page
    damage = f"DATA_LOSS: corrupted record at {len(record(GOOD[0])) + 12}"
    assert f'{read}{{model_path="{bent}",status="{damage}"}} 1' in page
    assert f'{read}{{model_path="{refused}"' not in page
