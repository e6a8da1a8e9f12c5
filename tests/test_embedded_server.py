"""The embedded server as a program: its flags, its ends, and what it does while versions and labels change."""

import functools
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest
import requests
import waiting
from google.protobuf import text_format

from tfs_helpers import Model, ModelServer, RunningServer, protos, publish
from tfs_helpers.client import GrpcClient, RestClient
from tfs_helpers.errors import CallError, NotFound, TfsError

Clients = tuple[GrpcClient, RestClient]
until = functools.partial(waiting.until, seconds=20)


def run(*flags: str, seconds: float = 20) -> subprocess.CompletedProcess[str]:
    """The server with these flags, to its end."""
    return subprocess.run(
        [sys.executable, "-m", "tfs_helpers.embedded", *flags],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(folder: Path, *flags: str) -> Iterator[tuple[subprocess.Popen[bytes], GrpcClient, RestClient]]:
    """The server as a plain process with its log in `folder/log` and its stdout in `folder/out`, and clients to it."""
    port, rest_port = free_port(), free_port()
    command = [sys.executable, "-m", "tfs_helpers.embedded", f"--port={port}", f"--rest_api_port={rest_port}", *flags]
    with (folder / "log").open("wb") as log, (folder / "out").open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=log)
        try:
            with GrpcClient(f"127.0.0.1:{port}") as grpc_client, RestClient(f"http://127.0.0.1:{rest_port}") as rest:
                yield child, grpc_client, rest
        finally:
            child.kill()
            child.wait()


def resident(pid: int) -> int:
    """The memory that a process holds, in MB."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) // 1024


def answers(client: GrpcClient | RestClient, model: str) -> bool:
    try:
        return any(row.state == "AVAILABLE" for row in client.status(model, timeout=1))
    except CallError:
        return False


def states(client: GrpcClient | RestClient, model: str) -> dict[int, str]:
    return {row.version: row.state for row in client.status(model)}


# ---- flags and ends


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "INVALID_ARGUMENT: Both server_options.model_base_path and server_options.model_config_file are empty!"),
        (
            ("--model_base_path=here", "--model_name=m"),
            "INVALID_ARGUMENT: Expected model m to have an absolute path or URI; got base_path()=here",
        ),
        (("--model_config_file=/nowhere/m.config",), "NOT_FOUND: /nowhere/m.config; No such file or directory"),
        (("--model_config_file=/",), "NOT_FOUND: /; No such device"),
        (
            ("--port=0", "--model_base_path=/m"),
            (
                "INVALID_ARGUMENT: At least one of server_options.grpc_port "
                "or server_options.grpc_socket_path must be set."
            ),
        ),
    ],
)
def test_what_cannot_start_says_why_and_ends_with_255(flags: tuple[str, ...], words: str) -> None:
    done = run(*flags)
    assert done.returncode == 255
    assert f"Failed to start server. Error: {words}\n" in done.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model_config_list { config { nonsense: 3 } }", "INVALID_ARGUMENT: Invalid protobuf file: 'FILE'"),
        (
            'model_config_list { config { name: "m" base_path: "/m" } }',
            (
                "INVALID_ARGUMENT: Illegal setting neither ModelServerConfig::model_type (deprecated) nor "
                "ModelServerConfig::model_platform, model name is m"
            ),
        ),
        (
            (
                'model_config_list { config { name: "m" base_path: "/m" model_platform: "tensorflow" '
                'version_labels { key: "stable" value: 1 } } }'
            ),
            (
                "FAILED_PRECONDITION: Request to assign label to version 1 of model m, "
                "which is not currently available for inference"
            ),
        ),
    ],
)
def test_a_config_that_cannot_be_served_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "models.config"
    file.write_text(text)
    done = run(f"--model_config_file={file}")
    assert done.returncode == 255
    assert f"Error: {words.replace('FILE', str(file))}\n" in done.stdout


def test_a_value_of_the_wrong_type_is_refused() -> None:
    done = run("--rest_api_timeout_in_ms=soon")
    assert done.returncode == 255
    assert "Couldn't interpret value soon for flag rest_api_timeout_in_ms." in done.stderr


@pytest.mark.parametrize("flag", ["--port=70000", "--rest_api_port=-1"])
def test_what_is_no_port_is_refused(models: Path, flag: str) -> None:
    done = run(f"--model_base_path={models}/half_plus_two", flag)
    assert done.returncode == 255
    assert f"{flag} is no port" in done.stdout


def test_a_flag_without_effect_is_named(models: Path, tmp_path: Path) -> None:
    flags = [f"--model_base_path={models}/half_plus_two", "--model_name=m", "--num_tflite_pools=3"]
    with process(tmp_path, *flags) as (_, client, _rest):
        until(lambda: answers(client, "m"))
        log = (tmp_path / "log").read_text()
        assert log.count(" has no effect") == 1
        assert "--num_tflite_pools has no effect" in log


def test_it_listens_on_the_sixth_version_of_ip_too(models: Path, tmp_path: Path) -> None:
    flags = [f"--model_base_path={models}/half_plus_two", "--model_name=m", "--host=::1"]
    with process(tmp_path, *flags) as (_, client, rest):
        address = client.address.replace("127.0.0.1", "[::1]")
        with GrpcClient(address) as six, RestClient(rest.url.replace("127.0.0.1", "[::1]")) as rest_six:
            until(lambda: answers(six, "m"))
            assert answers(rest_six, "m")


def test_bytes_that_are_no_http_do_not_fill_the_log(server: RunningServer) -> None:
    before = server.log()
    with socket.create_connection(("127.0.0.1", int(server.rest_url.rpartition(":")[2])), 5) as stranger:
        stranger.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        assert stranger.recv(100).startswith(b"HTTP/1.")
    assert server.log() == before


def test_version_and_help() -> None:
    done = run("--version")
    assert (done.returncode, "2.20.0" in done.stdout) == (0, True)
    assert "--model_base_path=" in run("--help").stdout


def test_an_unknown_flag_is_named_with_its_nearest_and_the_server_starts(models: Path, tmp_path: Path) -> None:
    flags = [f"--model_base_path={models}/half_plus_two", "--model_name=m", "--enable_batchin=true", "--port", "1"]
    with process(tmp_path, *flags) as (_, client, _rest):
        until(lambda: answers(client, "m"))
        assert "unknown argument: --enable_batchin=true" in (tmp_path / "out").read_text()
        log = (tmp_path / "log").read_text()
        assert "did you mean --enable_batching?" in log
        assert "flags are written --port=value" in log


def test_a_broken_model_ends_the_server_with_tensorflows_words(tmp_path: Path) -> None:
    broken = tmp_path / "m" / "1"
    broken.mkdir(parents=True)
    (broken / "saved_model.pb").write_bytes(b"not a saved model")
    done = run(f"--model_base_path={tmp_path}/m", "--model_name=m", "--max_num_load_retries=0")
    assert done.returncode == 255
    assert re.search(
        r"Error: UNKNOWN: 1 servable\(s\) did not become available: \{\{\{name: m version: 1\}", done.stdout
    )
    assert "Servable {name: m version: 1} cannot be loaded" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits_for_a_model_ends_it(tmp_path: Path, number: int) -> None:
    (tmp_path / "m").mkdir()
    with process(tmp_path, f"--model_base_path={tmp_path}/m", "--model_name=m") as (child, client, _):
        until(lambda: "Did you forget to name your leaf directory as a number" in (tmp_path / "log").read_text())
        assert not answers(client, "m")
        child.send_signal(number)
        assert child.wait(10) == 0


def test_a_signal_lets_calls_that_are_inside_finish(rich_models: Path, tmp_path: Path) -> None:
    flags = [f"--model_base_path={rich_models}/oddities", "--model_name=m"]
    with process(tmp_path, *flags) as (child, client, _):
        until(lambda: answers(client, "m"))

        def slow(steps: float) -> np.ndarray:
            return client.predict("m", {"x": [steps]}, signature="slow", timeout=30)["y"]

        slow(10)
        started = time.monotonic()
        slow(20_000)
        steps = 20_000 / (time.monotonic() - started)  # in a second
        got: list[np.ndarray] = []
        call = threading.Thread(target=lambda: got.append(slow(steps)))
        call.start()
        time.sleep(0.3)
        assert call.is_alive()
        child.terminate()
        call.join()
        assert child.wait(10) == 0
        assert len(got) == 1


def test_it_listens_on_this_machine_only(server: RunningServer) -> None:
    """By what the kernel says is listening."""
    ports = {int(server.grpc_address.rpartition(":")[2]), int(server.rest_url.rpartition(":")[2])}
    listening = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, *_ = line.split()
            host, port = address.split(":")
            if state == "0A" and int(port, 16) in ports:
                listening[int(port, 16)] = host.removeprefix("0000000000000000FFFF0000")
    assert listening == dict.fromkeys(ports, "0100007F")


# ---- versions


@pytest.fixture
def swapping(models: Path, tmp_path: Path) -> Iterator[tuple[RunningServer, Path]]:
    """A server of half_plus_two with version 1 alone (y = x/2 + 2), and its base path."""
    base = tmp_path / "half_plus_two"
    publish(models / "half_plus_two" / "1", base, version=1)
    with ModelServer(Model("half_plus_two", base), grpc_port=None, rest_port=None).start("embedded") as running:
        yield running, base


def test_a_new_version_takes_over_and_no_call_fails(swapping: tuple[RunningServer, Path], models: Path) -> None:
    running, base = swapping
    seen: list[list[float]] = [[] for _ in range(8)]
    failures: list[TfsError] = []
    stop = threading.Event()

    def call(index: int) -> None:
        make = GrpcClient if index % 2 else RestClient
        with make(running.grpc_address if index % 2 else running.rest_url) as client:
            while not stop.is_set():
                try:
                    seen[index].append(float(client.predict("half_plus_two", [0.0])["y"][0]))
                except TfsError as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    publish(models / "half_plus_two" / "2", base)
    until(lambda: states(running.grpc(), "half_plus_two") == {2: "AVAILABLE", 1: "END"})
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures
    for values in seen:
        # Never back to the old version once the new one has answered.
        assert values == sorted(values)
        assert values[-1] == 3.0
    with pytest.raises(NotFound):
        running.grpc().predict("half_plus_two", [0.0], version=1)


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(
    swapping: tuple[RunningServer, Path],
) -> None:
    running, base = swapping
    (base / "2").mkdir()
    until(lambda: "Loading servable: {name: half_plus_two version: 2} failed" in running.log())
    assert running.rest().predict("half_plus_two", [0.0])["y"].tolist() == [2.0]
    shutil.rmtree(base / "2")
    until(lambda: states(running.grpc(), "half_plus_two").get(2) == "END")


def test_taking_every_version_away_unloads_the_model(swapping: tuple[RunningServer, Path]) -> None:
    running, base = swapping
    shutil.rmtree(base / "1")
    until(lambda: states(running.rest(), "half_plus_two") == {1: "END"})
    with pytest.raises(NotFound, match=re.escape("Latest(half_plus_two)")):
        running.rest().predict("half_plus_two", [0.0])


def test_a_missing_base_path_unloads_nothing(swapping: tuple[RunningServer, Path]) -> None:
    running, base = swapping
    base.rename(base.with_name("elsewhere"))
    until(lambda: "Could not find base path" in running.log())
    assert running.rest().predict("half_plus_two", [0.0])["y"].tolist() == [2.0]


# ---- labels and reloads


def reload(clients: Clients, text: str, timeout: float = 10) -> None:
    request = protos.ReloadConfigRequest()
    text_format.Parse(text, request.config)
    with grpc.insecure_channel(clients[0].address) as channel:
        rpc = protos.RPCS["HandleReloadConfigRequest"]
        channel.unary_unary(rpc.path, request_serializer=lambda message: message.SerializeToString())(
            request, timeout=timeout
        )


def labelled(models: Path, **labels: int) -> str:
    each = " ".join(f'version_labels {{ key: "{label}" value: {version} }}' for label, version in labels.items())
    return (
        f'model_config_list {{ config {{ name: "half_plus_two" base_path: "{models}/half_plus_two" '
        f'model_platform: "tensorflow" model_version_policy {{ specific {{ versions: 1 versions: 2 }} }} {each} }} }}'
    )


def by_label(clients: Clients, label: str) -> float:
    return float(clients[1].predict("half_plus_two", [0.0], label=label)["y"][0])


@pytest.fixture
def both(models: Path, tmp_path: Path) -> Iterator[Clients]:
    """A server of both versions of half_plus_two, without labels."""
    file = tmp_path / "models.config"
    file.write_text(labelled(models))
    flags = [f"--model_config_file={file}"]
    with process(tmp_path, *flags) as (_, client, rest):
        until(lambda: answers(rest, "half_plus_two"))
        yield client, rest


def test_labels_are_given_moved_and_taken_by_reload(both: Clients, models: Path) -> None:
    with pytest.raises(CallError, match="Unrecognized servable version label: stable"):
        by_label(both, "stable")
    reload(both, labelled(models, stable=1, test=2))
    assert (by_label(both, "stable"), by_label(both, "test")) == (2.0, 3.0)
    reload(both, labelled(models, stable=2))
    assert by_label(both, "stable") == 3.0
    with pytest.raises(CallError, match="Unrecognized servable version label: test"):
        by_label(both, "test")


def test_a_refused_reload_changes_nothing(both: Clients, models: Path) -> None:
    reload(both, labelled(models, stable=1))
    for text, words in [
        (labelled(models, stable=7), "Request to assign label to version 7"),
        (labelled(models, stable=1).replace('model_platform: "tensorflow"', ""), "Illegal setting neither"),
        ("model_config_list { config { name: 'm' base_path: 'm' } }", "absolute path"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            reload(both, text)
        assert words in caught.value.details()
        assert by_label(both, "stable") == 2.0
    reload(both, labelled(models, stable=2))
    assert by_label(both, "stable") == 3.0


def test_a_reload_with_a_model_that_never_comes_does_not_jam_the_next(both: Clients, models: Path) -> None:
    ghost = labelled(models).removesuffix("}") + (
        'config { name: "ghost" base_path: "/nowhere/ghost" model_platform: "tensorflow" } }'
    )
    with pytest.raises(grpc.RpcError) as caught:
        reload(both, ghost, timeout=1)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    reload(both, labelled(models, stable=1))
    assert by_label(both, "stable") == 2.0


def test_the_config_file_is_followed_and_a_broken_one_is_not(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(labelled(models))
    flags = [f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1"]
    with process(tmp_path, *flags) as (_, client, rest):
        until(lambda: answers(rest, "half_plus_two"))
        file.write_text(
            labelled(models, stable=1).removesuffix("}")
            + f'config {{ name: "eye" base_path: "{models}/eye1_encoder" model_platform: "tensorflow" }} }}'
        )
        until(lambda: answers(client, "eye"))
        file.write_text("model_config_list { config { oops")
        until(lambda: "Failed to read ModelServerConfig file" in (tmp_path / "log").read_text())
        assert by_label((client, rest), "stable") == 2.0
        assert answers(client, "eye")


# ---- what comes in


def test_a_picture_without_its_batch_is_refused_and_the_server_lives(server: RunningServer) -> None:
    body = {"inputs": np.zeros((128, 128, 1)).tolist()}
    answer = requests.post(f"{server.rest_url}/v1/models/eye1_encoder:predict", json=body, timeout=10)
    assert answer.status_code == 400
    assert "convolution input must be 4-dimensional" in answer.json()["error"]
    assert server.alive()


def test_gzip_comes_in(server: RunningServer) -> None:
    import gzip

    answer = requests.post(
        f"{server.rest_url}/v1/models/half_plus_two:predict",
        data=gzip.compress(b'{"instances": [1.0]}'),
        headers={"Content-Encoding": "gzip"},
        timeout=10,
    )
    assert answer.json() == {"predictions": [3.5]}


@pytest.mark.parametrize("path", ["/", "/v1", "/v2/models/x"])
def test_what_is_no_api_is_not_found(server: RunningServer, path: str) -> None:
    answer = requests.get(server.rest_url + path, timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models/half_plus_two:predict"),
        ("POST", "/v1/models/half_plus_two"),
        ("GET", "/v1/models/half_plus_two/"),
        ("PUT", "/v1/models/half_plus_two:predict"),
        ("POST", "/v1/models/half_plus_two:predict?x=1"),
    ],
)
def test_malformed_requests_are_named(server: RunningServer, method: str, path: str) -> None:
    answer = requests.request(method, server.rest_url + path, timeout=10)
    assert answer.status_code == 400
    assert answer.json() == {"error": f"Malformed request: {method} {path}"}


def test_answers_are_laid_out_as_the_real_servers(server: RunningServer) -> None:
    answer = requests.post(f"{server.rest_url}/v1/models/half_plus_two:predict", data='{"instances":[1,2]}', timeout=10)
    assert answer.text == '{\n    "predictions": [3.5, 4.0\n    ]\n}'
    status = requests.get(f"{server.rest_url}/v1/models/half_plus_two/versions/1", timeout=10)
    assert status.text.startswith('{\n "model_version_status": [\n  {\n   "version": "1",\n   "state": "AVAILABLE",')
    assert json.loads(status.text)["model_version_status"][0]["status"] == {"error_code": "OK", "error_message": ""}


def test_a_server_with_one_small_model_stays_below_350_megabytes(models: Path, tmp_path: Path) -> None:
    flags = [f"--model_base_path={models}/half_plus_two", "--model_name=m"]
    with process(tmp_path, *flags) as (child, client, _):
        until(lambda: answers(client, "m"))
        status = Path(f"/proc/{child.pid}/status").read_text()
        assert int(status.split("VmHWM:")[1].split()[0]) < 350 * 1024
