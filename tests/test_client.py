"""Both clients against real servers: the same arrays, the same errors, whichever wire."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from served_models import DTYPES, NOT_IN_JSON, export_graph, renamed

from tfs_helpers import GrpcClient, Model, ModelServer, RestClient, RunningServer
from tfs_helpers.client import VersionStatus
from tfs_helpers.dtypes import DTYPES as ALL
from tfs_helpers.errors import (
    CallError,
    ConfigError,
    DeadlineExceeded,
    FailedPrecondition,
    InputError,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServerFault,
    TfsError,
    Unavailable,
    Unimplemented,
    Unreachable,
)

Client = RestClient | GrpcClient
WIRES = ("REST", "gRPC")
wires = pytest.mark.parametrize("wire", WIRES)


def client_of(running: RunningServer, wire: str) -> Client:
    return running.rest() if wire == "REST" else running.grpc()


def client_at(host_and_port: str, wire: str, **options: Any) -> Client:
    return RestClient(f"http://{host_and_port}", **options) if wire == "REST" else GrpcClient(host_and_port, **options)


def failure(kind: type[TfsError], call: Callable[[], object]) -> Any:
    """The error, which is of just that kind and has at most three lines."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind, caught.value
    lines = str(caught.value).splitlines()
    assert 1 <= len(lines) <= 3
    assert all(lines)
    return caught.value


def values_of(name: str) -> np.ndarray:
    """Values at the ends of a type, and the odd ones."""
    dtype = next(dtype for dtype in ALL if dtype.label == name)
    if name == "string":
        return np.array([b"", b"a\0", "Grüße".encode(), b"\xff\xfe", b'"\\/\n\x7f'], object)
    if name == "bool":
        return np.array([True, False])
    if dtype.type.kind in "iu":
        info = np.iinfo(dtype.type)
        return np.array([info.min, 0, 1, info.max], dtype.type)
    odd = np.array([0.0, -0.0, 0.1, 1 / 3, 1e-7, 12345678.0, -2.5, 1e30, np.nan, np.inf, -np.inf])
    with np.errstate(over="ignore", invalid="ignore"):
        return odd.astype(dtype.type)


def same(array: Any, other: Any) -> None:
    assert (array.dtype, array.shape) == (other.dtype, other.shape)
    if array.dtype.kind == "O":
        assert array.tolist() == other.tolist()
    else:
        widest = np.complex128 if array.dtype.kind == "c" else np.float32  # where bfloat16's NaN is equal to itself
        exact = array.dtype.kind in "biuf"
        np.testing.assert_array_equal(
            array if exact else array.astype(widest), other if exact else other.astype(widest)
        )


# ---- predict


@wires
@pytest.mark.parametrize("name", DTYPES)
def test_every_type_comes_back_as_it_went(rich_server: RunningServer, name: str, wire: str) -> None:
    client = client_of(rich_server, wire)
    array = values_of(name)
    grid = np.stack([array, array[::-1]], axis=1)
    if wire == "REST" and name in NOT_IN_JSON:
        assert "gRPC" in failure(InputError, lambda: client.predict(f"identity_{name}", array)).fix
        return
    if wire == "REST" and name == "string":
        # Over JSON, a server writes bytes that are no text only under names that end in _bytes.
        array = np.array([text for text in array if text != b"\xff\xfe"], object)
        grid = np.stack([array, array[::-1]], axis=1)
    same(client.predict(f"identity_{name}", array)["x"], array)
    same(client.predict(f"identity_{name}", {"x": grid}, signature="grid")["x"], grid)
    back = client.predict(f"identity_{name}", {"x": array[:1]})["x"]
    same(back, array[:1])
    assert back.flags.writeable


@wires
def test_an_empty_batch(rich_server: RunningServer, wire: str) -> None:
    client = client_of(rich_server, wire)
    for name in ("float32", "int64", "uint64", "bool", "string"):
        array = values_of(name)[:0]
        same(client.predict(f"identity_{name}", array)["x"], array)


@wires
def test_several_inputs_and_outputs(rich_server: RunningServer, wire: str) -> None:
    found = client_of(rich_server, wire).predict(
        "mixed", {"features": [[1, 2], [3, 4.5]], "count": [2, 1], "label": ["ü", b'"b"']}
    )
    expected = {
        "total": np.array([6.0, 7.5], np.float32),
        "big": np.array([8_000_000_000, 4_000_000_000]),
        "huge": np.array([18_000_000_000_000_000_000, 9_000_000_000_000_000_000], np.uint64),
        "even": np.array([True, False]),
        "text": np.array(["<ü>".encode(), b'<"b">'], object),
        "text_bytes": np.array(["ü".encode(), b'"b"'], object),
    }
    assert set(found) == set(expected)
    for name, array in expected.items():
        same(found[name], array)


@wires
def test_bytes_that_are_no_text(rich_server: RunningServer, wire: str) -> None:
    client = client_of(rich_server, wire)
    texts = values_of("string")
    same(client.predict("texts", texts, signature="echo_bytes")["echo_bytes"], texts)
    same(client.predict("texts", texts, signature="echo")["echo"], texts)
    assert client.predict("texts", ["abc", b"\xff\0"])["length"].tolist() == [3, 2]


@wires
def test_shapes_of_every_sort(rich_server: RunningServer, wire: str) -> None:
    client = client_of(rich_server, wire)
    same(client.predict("scalar", {"a": 1, "b": 0.5})["sum"], np.array(1.5, np.float32))
    same(client.predict("fixed", np.ones((2, 3), np.float32))["sum"], np.array([3, 3], np.float32))
    same(client.predict("variable", [1.0])["value"], np.array(1.5, np.float32))
    for shape in ((), (3,), (2, 1, 3), (1, 1, 1, 1, 2)):
        array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        found = client.predict("any_rank", array)
        same(found["x"], array)
        same(found["size"], np.array(array.size, np.int32))


@wires
def test_arrays_of_any_layout(rich_server: RunningServer, wire: str) -> None:
    client = client_of(rich_server, wire)
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    for array in (np.asfortranarray(plain), plain.astype(">f4"), plain.T, plain[:, ::2], np.float32(4)):
        same(client.predict("any_rank", array)["x"], np.ascontiguousarray(array, np.float32).reshape(np.shape(array)))


@wires
def test_nan_and_infinities_come_out(rich_server: RunningServer, wire: str) -> None:
    found = client_of(rich_server, wire).predict("oddities", [0.0, -0.0, np.inf, np.nan, 3.0])
    same(found["one_over_x"], np.array([np.inf, -np.inf, 0, np.nan, 1 / 3], np.float32))


def test_both_wires_give_the_same_embedding(server: RunningServer) -> None:
    eyes = np.random.default_rng(1).random((2, 128, 128, 1), np.float32)
    by_rest, by_grpc = (client_of(server, wire).predict("eye1_encoder", eyes)["output_1"] for wire in WIRES)
    assert by_rest.shape == (2, 512)
    same(by_rest, by_grpc)


@wires
def test_more_than_grpcs_4_mib(rich_server: RunningServer, wire: str) -> None:
    array = np.random.default_rng(2).random(1_500_000, np.float32)
    same(client_of(rich_server, wire).predict("any_rank", array, timeout=60)["x"], array)


# ---- which version, which signature


@wires
def test_versions_and_labels(server: RunningServer, wire: str) -> None:
    client = client_of(server, wire)

    def y(**which: Any) -> list[float]:
        return list(client.predict("half_plus_two", [1.0, 2.0, 5.0], **which)["y"])

    assert y() == y(version=2) == y(label="test") == [3.5, 4.0, 5.5]
    assert y(version=1) == y(label="stable") == [2.5, 3.0, 4.5]


@wires
def test_status(server: RunningServer, wire: str) -> None:
    client = client_of(server, wire)
    both = [VersionStatus(2, "AVAILABLE"), VersionStatus(1, "AVAILABLE")]
    assert client.status("half_plus_two") == both
    assert client.status("half_plus_two", label="stable") == both
    assert client.status("half_plus_two", version=1) == both[1:]
    assert (
        "version 7 of model half_plus_two"
        in failure(NotFound, lambda: client.status("half_plus_two", version=7)).details
    )
    assert "any versions of model none" in failure(NotFound, lambda: client.status("none")).details


@wires
def test_metadata(server: RunningServer, wire: str) -> None:
    client = client_of(server, wire)
    assert client.metadata("half_plus_two").version == 2
    assert client.metadata("half_plus_two", version=1).version == 1
    stable = client.metadata("half_plus_two", label="stable")
    assert (stable.name, stable.version) == ("half_plus_two", 1)
    assert str(stable).startswith("half_plus_two, version 1\n")
    other = client_of(server, WIRES[1 - WIRES.index(wire)])
    assert stable == other.metadata("half_plus_two", label="stable")


# ---- what is refused before anything is sent


@wires
@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a b", " ", "a\n", "\ud800", None, 5])
def test_names_that_no_model_has(wire: str, name: Any) -> None:
    with client_at("127.0.0.1:1", wire) as client:
        for call in (client.status, client.metadata, lambda name: client.predict(name, [1.0])):
            assert "cannot be a model name" in failure(ConfigError, lambda call=call: call(name)).what
        if name is not None:
            assert "cannot be a label" in failure(ConfigError, lambda: client.status("m", label=name)).what


@wires
@pytest.mark.parametrize(
    "options",
    [
        {"version": -1},
        {"version": 2**63},
        {"version": "1"},
        {"version": 1.0},
        {"version": True},
        {"version": 1, "label": "stable"},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "5"},
        {"timeout": True},
    ],
    ids=str,
)
def test_options_that_no_call_has(wire: str, options: dict[str, Any]) -> None:
    with client_at("127.0.0.1:1", wire) as client:
        for call in (client.status, client.metadata, lambda name, **options: client.predict(name, [1.0], **options)):
            failure(ConfigError, lambda call=call: call("m", **options))


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8501",
        "localhost",
        "grpc://h:1",
        "http://",
        "http://h:port",
        "http://h:99999",
        "http://[::1",
        "",
        None,
    ],
)
def test_addresses_that_are_no_url(url: Any) -> None:
    failure(ConfigError, lambda: RestClient(url))


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:8500",
        "127.0.0.1",
        "8500",
        ":8500",
        "127.0.0.1:0",
        "h:99999",
        "::1:8500",
        "h:85oo",
        "h:1/x",
        "",
    ],
)
def test_addresses_that_are_not_for_grpc(address: str) -> None:
    failure(ConfigError, lambda: GrpcClient(address))


@wires
def test_a_timeout_that_no_client_has(wire: str) -> None:
    failure(ConfigError, lambda: client_at("127.0.0.1:1", wire, timeout=0))


@wires
def test_inputs_that_do_not_fit(rich_server: RunningServer, wire: str) -> None:
    client = client_of(rich_server, wire)
    for inputs, words in [
        (np.zeros(3), "must be float32, but the array is float64"),
        (np.zeros((2, 3), np.float32), "must have shape \\(\\?,\\)"),
        ({"y": [1.0]}, "has no input 'y' and also needs 'x'"),
        ([[1], [2, 3]], "ragged"),
    ]:
        with pytest.raises(InputError, match=words):
            client.predict("identity_float32", inputs)
    assert (
        "has no signature 'gird'"
        in failure(InputError, lambda: client.predict("identity_float32", [1.0], signature="gird")).what
    )


# ---- errors of a server


@wires
def test_words_of_the_server_are_kept(server: RunningServer, rich_server: RunningServer, wire: str) -> None:
    client = client_of(server, wire)
    error = failure(NotFound, lambda: client.predict("none", [1.0]))
    assert (error.code, error.details) == ("NOT_FOUND", "Servable not found for request: Latest(none)")
    assert error.details in error.what
    assert error.where["model"] == "none"
    assert error.where["wire"] == wire
    assert error.where["address"] == (server.rest_url if wire == "REST" else server.grpc_address)
    error = failure(NotFound, lambda: client.metadata("half_plus_two", version=9))
    assert error.details == "Servable not found for request: Specific(half_plus_two, 9)"
    assert error.where["version"] == 9
    error = failure(InvalidArgument, lambda: client.predict("half_plus_two", [1.0], label="none"))
    assert (error.code, error.details) == ("INVALID_ARGUMENT", "Unrecognized servable version label: none")
    assert error.where["label"] == "none"
    error = failure(
        InvalidArgument, lambda: client_of(rich_server, wire).predict("oddities", [-1.0], signature="positive_only")
    )
    assert "x must be positive" in error.details
    assert error.where["signature"] == "positive_only"


@contextmanager
def grpc_server(answer: Callable[[Any], bytes], at: str = "127.0.0.1:0") -> Iterator[str]:
    """A gRPC server that gives the same answer to every method; its address."""

    class Handler(grpc.GenericRpcHandler):
        def service(self, _details: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(lambda _request, context: answer(context))

    running = grpc.server(futures.ThreadPoolExecutor(2), handlers=[Handler()])
    port = running.add_insecure_port(at)
    running.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        running.stop(None).wait()


@contextmanager
def http_server(status: int, body: bytes, content_type: str = "application/json", port: int = 0) -> Iterator[str]:
    """An HTTP server that gives the same answer to every request; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Not to the terminal."""

    with listening(http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)) as address:
        yield address


@contextmanager
def listening(running: http.server.ThreadingHTTPServer) -> Iterator[str]:
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"127.0.0.1:{running.server_port}"
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("NOT_FOUND", NotFound),
        ("INVALID_ARGUMENT", InvalidArgument),
        ("OUT_OF_RANGE", InvalidArgument),
        ("FAILED_PRECONDITION", FailedPrecondition),
        ("ABORTED", FailedPrecondition),
        ("ALREADY_EXISTS", FailedPrecondition),
        ("RESOURCE_EXHAUSTED", ResourceExhausted),
        ("DEADLINE_EXCEEDED", DeadlineExceeded),
        ("UNAVAILABLE", Unavailable),
        ("CANCELLED", Unavailable),
        ("UNIMPLEMENTED", Unimplemented),
        ("INTERNAL", ServerFault),
        ("UNKNOWN", ServerFault),
        ("DATA_LOSS", ServerFault),
        ("UNAUTHENTICATED", CallError),
        ("PERMISSION_DENIED", CallError),
    ],
)
def test_every_code_of_grpc(code: str, kind: type[CallError]) -> None:
    words = "two\nlines of its own"
    with (
        grpc_server(lambda context: context.abort(grpc.StatusCode[code], words)) as address,
        GrpcClient(address) as client,
    ):
        error = failure(kind, lambda: client.status("m"))
    assert error.code == code
    assert words in error.details
    assert "two" in error.what


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "INVALID_ARGUMENT", InvalidArgument),
        (401, "UNAUTHENTICATED", CallError),
        (403, "PERMISSION_DENIED", CallError),
        (404, "NOT_FOUND", NotFound),
        (409, "ABORTED", FailedPrecondition),
        (413, "RESOURCE_EXHAUSTED", ResourceExhausted),
        (429, "RESOURCE_EXHAUSTED", ResourceExhausted),
        (499, "CANCELLED", Unavailable),
        (500, "INTERNAL", ServerFault),
        (501, "UNIMPLEMENTED", Unimplemented),
        (503, "UNAVAILABLE", Unavailable),
        (504, "DEADLINE_EXCEEDED", DeadlineExceeded),
        (418, "UNKNOWN", ServerFault),
    ],
)
def test_every_status_of_http(status: int, code: str, kind: type[CallError]) -> None:
    words = "two\nlines of its own"
    body = json.dumps({"error": words}).encode()
    with http_server(status, body) as address, RestClient(f"http://{address}") as client:
        error = failure(kind, lambda: client.status("m"))
    assert (error.code, error.details) == (code, words)


# ---- no server, or another one


@contextmanager
def silence() -> Iterator[str]:
    """A port where connections are taken, and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@wires
def test_a_timeout_is_kept(wire: str) -> None:
    with silence() as address, client_at(address, wire) as client:
        for call in (
            client.status,
            client.metadata,
            lambda name, timeout: client.predict(name, [1.0], timeout=timeout),
        ):
            begin = time.monotonic()
            error = failure(DeadlineExceeded, lambda call=call: call("m", timeout=0.2))
            assert 0.15 < time.monotonic() - begin < 3
            assert error.code == "DEADLINE_EXCEEDED"
            assert "no answer within 0.2 s" in error.details
    with silence() as address, client_at(address, wire, timeout=0.2) as client:
        failure(DeadlineExceeded, lambda: client.status("m"))


def test_a_model_that_takes_too_long(rich_server: RunningServer) -> None:
    begin = time.monotonic()
    failure(DeadlineExceeded, lambda: rich_server.grpc().predict("oddities", [1e12], signature="slow", timeout=0.3))
    assert time.monotonic() - begin < 3


@wires
def test_nobody_listens(wire: str) -> None:
    with silence() as address:
        pass
    with client_at(address, wire) as client:
        for call in (client.status, client.metadata, lambda name: client.predict(name, [1.0])):
            error = failure(Unreachable, lambda call=call: call("m"))
            assert address in error.details
            assert "refused" in error.details
            assert error.code == "UNREACHABLE"
            assert error.fix


@wires
def test_a_host_that_is_none(wire: str) -> None:
    with client_at("nowhere.invalid:8500", wire, timeout=20) as client:
        failure(Unreachable, lambda: client.status("m"))


def test_each_wire_at_the_port_of_the_other(server: RunningServer) -> None:
    with RestClient(f"http://{server.grpc_address}") as rest:
        assert "gRPC" in str(failure(Unreachable, lambda: rest.status("half_plus_two", timeout=5)))
    with GrpcClient(server.rest_url.removeprefix("http://")) as client:
        failure(Unreachable, lambda: client.status("half_plus_two", timeout=5))
    with RestClient(server.rest_url.replace("http:", "https:")) as rest:
        failure(Unreachable, lambda: rest.status("half_plus_two", timeout=5))


@wires
def test_the_other_end_hangs_up(wire: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(40):
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up)
        thread.start()
        with client_at(f"127.0.0.1:{listener.getsockname()[1]}", wire) as client:
            failure(Unreachable, lambda: client.status("m"))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_server_of_files_answers(tmp_path: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Not to the terminal."""

    def handler(*arguments: Any) -> Quiet:
        return Quiet(*arguments, directory=str(tmp_path))

    with listening(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)) as address:
        with RestClient(f"http://{address}") as rest:
            for call in (rest.status, rest.metadata, lambda name: rest.predict(name, [1.0])):
                error = failure(Unreachable, lambda call=call: call("m"))
                assert "not an answer of TensorFlow Serving" in error.details
        with GrpcClient(address) as client:
            failure(Unreachable, lambda: client.status("m", timeout=5))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>hello</html>", b"[]", b"5", b"{}", b'{"model_version_status": [5]}', b'{"metadata": {}}', b"\xff"],
)
def test_another_service_answers(body: bytes) -> None:
    with http_server(200, body, "text/html") as address, RestClient(f"http://{address}") as rest:
        for call in (rest.status, rest.metadata, lambda name: rest.predict(name, [1.0])):
            error = failure(Unreachable, lambda call=call: call("m"))
            assert "not an answer of TensorFlow Serving" in error.details


@pytest.mark.parametrize(
    ("status", "kind"), [(502, Unavailable), (503, Unavailable), (504, DeadlineExceeded), (413, ResourceExhausted)]
)
def test_a_proxy_answers_in_its_own_words(status: int, kind: type[CallError]) -> None:
    body = b"<html>\n<b>from nginx</b>\n</html>"
    with http_server(status, body, "text/html") as address, RestClient(f"http://{address}") as rest:
        assert "from nginx" in failure(kind, lambda: rest.status("m")).details


def test_another_grpc_service_answers() -> None:
    with grpc_server(lambda _: b"\xff\xff\xff") as address, GrpcClient(address) as client:
        failure(ServerFault, lambda: client.status("m"))


def test_a_closed_grpc_client(server: RunningServer) -> None:
    client = GrpcClient(server.grpc_address)
    assert client.status("half_plus_two")
    client.close()
    assert "closed" in failure(Unreachable, lambda: client.status("half_plus_two")).details
    with silence() as address:
        waiting = GrpcClient(address)
        threading.Timer(0.2, waiting.close).start()
        assert "closed" in failure(Unreachable, lambda: waiting.status("m", timeout=5)).details


def test_settings_of_proxies_are_not_for_us(server: RunningServer) -> None:
    code = (
        "import sys; from tfs_helpers.client import GrpcClient, RestClient\n"
        "for client in (RestClient(sys.argv[1]), GrpcClient(sys.argv[2])):\n"
        "    assert client.status('half_plus_two', timeout=5)"
    )
    nowhere = dict.fromkeys(
        ["http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY", "all_proxy"], "http://127.0.0.1:1"
    )
    line = [sys.executable, "-c", code, server.rest_url, server.grpc_address]
    environment = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"} | nowhere
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@wires
def test_a_server_that_comes_later_is_found(wire: str) -> None:
    """A client that has met nobody keeps no grudge: a notebook's cell is run again."""
    with silence() as address:
        pass
    with client_at(address, wire) as client:
        for _ in range(3):
            failure(Unreachable, lambda: client.status("m"))
        with known_model(wire, address):
            deadline = time.monotonic() + 4
            while time.monotonic() < deadline:
                try:
                    assert client.status("m") == []
                    return
                except Unreachable:
                    time.sleep(0.05)
    raise AssertionError("still not tried again after 4 s")


def known_model(wire: str, address: str) -> Any:
    """A server at that very address, which knows a model without versions."""
    if wire == "gRPC":
        return grpc_server(lambda _: b"", address)
    return http_server(200, b'{"model_version_status": []}', port=int(address.rpartition(":")[2]))


# ---- many at once, and models that change


@wires
def test_eight_threads_share_a_client(server: RunningServer, wire: str) -> None:
    with client_at(server.grpc_address if wire == "gRPC" else server.rest_url.removeprefix("http://"), wire) as client:

        def call(number: int) -> None:
            for round_ in range(15):
                x = np.array([number, round_], np.float32)
                version = 1 + round_ % 2
                found = client.predict("half_plus_two", x, version=version)["y"]
                same(found, x / 2 + np.float32(version + 1))

        with futures.ThreadPoolExecutor(8) as threads:
            list(threads.map(call, range(8)))


def test_a_model_replaced_under_the_same_name(tmp_path: Path) -> None:
    """Both clients know the old signature; after one error at most they know the new one."""
    base_path = tmp_path / "m"
    export_graph(base_path / "1", renamed("int64", given="y", taken="x"))
    options = {"file_system_poll_wait_seconds": 1}
    server = ModelServer(Model("m", base_path), grpc_port=None, rest_port=None, options=options)

    def replace(version: int, dtype: str, given: str, taken: str) -> None:
        export_graph(tmp_path / "beside", renamed(dtype, given, taken))
        (tmp_path / "beside").rename(base_path / str(version))
        running.wait_for("m", version=version, timeout=20)
        running.wait_for("m", version=version - 1, state="END", timeout=20)

    with server.start("embedded") as running:
        clients = [running.rest(), running.grpc()]
        for client in clients:
            assert client.predict("m", {"x": [1]})["y"].dtype == np.int64

        # Another type of input: what no longer fits is looked up again at once.
        replace(2, "float32", given="y", taken="x")
        for client in clients:
            same(client.predict("m", {"x": np.array([1.5], np.float32)})["y"], np.array([1.5], np.float32))

        # Another name of the input: the old one fits the signature that is known, so the server refuses it once;
        # not by REST, where an input that is the only one travels without its name.
        replace(3, "float32", given="y", taken="z")
        failure(InvalidArgument, lambda: running.grpc().predict("m", {"x": [1.5]}))
        assert running.rest().predict("m", {"x": [1.5]})["y"] == [1.5]
        for client in clients:
            assert "Did you mean" in failure(InputError, lambda client=client: client.predict("m", {"zz": [1.5]})).fix
            assert "needs 'z'" in failure(InputError, lambda client=client: client.predict("m", {"x": [1.5]})).what
            same(client.predict("m", {"z": [1.5]})["y"], np.array([1.5], np.float32))

        # Another type of output behind the same list of numbers: over REST, an answer that does not fit.
        replace(4, "int32", given="y", taken="z")
        for client in clients:
            same(client.predict("m", {"z": np.array([2], np.int32)})["y"], np.array([2], np.int32))
        replace(5, "string", given="y", taken="z")
        for client in clients:
            failure(InvalidArgument, lambda client=client: client.predict("m", {"z": [2]}))
            same(client.predict("m", {"z": ["a"]})["y"], np.array([b"a"], object))


def test_an_answer_that_does_not_fit_the_signature() -> None:
    """Over REST an answer has no types of its own. Here another service gives it: whole numbers became fractions."""
    signature = {"inputs": {"x": _info("DT_INT64")}, "outputs": {"y": _info("DT_INT64")}, "method_name": "p"}
    spec = {"name": "m", "version": "1"}
    known = {"model_spec": spec, "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}}}
    body = json.dumps(known | {"outputs": [2.5]}).encode()
    with http_server(200, body) as address, RestClient(f"http://{address}") as rest:
        error = failure(ServerFault, lambda: rest.predict("m", [1]))
    assert "does not fit signature 'serving_default'" in error.details
    assert error.where["model"] == "m"


def _info(dtype: str) -> dict[str, Any]:
    return {"name": "n:0", "dtype": dtype, "tensor_shape": {"dim": [{"size": "-1"}]}}
