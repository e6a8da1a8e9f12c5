"""What strangers may ask of the embedded server, and that it answers others meanwhile."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import requests
from test_embedded_server import answers, free_port, process, until

from tfs_helpers import RunningServer
from tfs_helpers.client import GrpcClient, RestClient
from tfs_helpers.errors import CallError

LIMITS = {
    "message_bytes": 500_000,
    "bodies_bytes": 700_000,
    "body_rate": 1000,
    "header_seconds": 0.4,
    "body_seconds": 0.4,
    "idle_seconds": 1.5,
    "answer_seconds": 0.8,
    "handshake_seconds": 0.5,
    "connections": 30,
}
PREDICT = b"POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\n"
STATUS = b"GET /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n"
BODY = b'{"instances":[1]}'
LENGTH = b"Content-Length: %d\r\n\r\n"


class Limited(NamedTuple):
    client: GrpcClient
    url: str

    def answers(self) -> bool:
        """Whether REST does, on a connection that does not last."""
        return requests.get(f"{self.url}/v1/models/m", timeout=5).ok


@pytest.fixture(scope="module")
def limited(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    """A server of half_plus_two, as `m`, with `LIMITS`."""
    folder = tmp_path_factory.mktemp("limited")
    port, rest_port = free_port(), free_port()
    command = [sys.executable, str(Path(__file__).parent / "limited_server.py"), json.dumps(LIMITS)]
    command += [f"--port={port}", f"--rest_api_port={rest_port}"]
    command += [f"--model_base_path={models}/half_plus_two", "--model_name=m"]
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with RestClient(f"http://127.0.0.1:{rest_port}") as rest:
                until(lambda: answers(rest, "m"))
            with GrpcClient(f"127.0.0.1:{port}") as grpc_client:
                yield Limited(grpc_client, rest.url)
            assert child.poll() is None
            log_text = (folder / "log").read_text()
            assert "Traceback" not in log_text, log_text
        finally:
            child.kill()
            child.wait()


Connect = Callable[[], socket.socket]


@pytest.fixture
def connect(limited: Limited) -> Iterator[Connect]:
    """Opens connections to the REST port, which end with the test."""
    with ExitStack() as stack:
        port = int(limited.url.rpartition(":")[2])
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", port), 5))


def heard(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    said = b""
    while piece := connection.recv(2**16):
        said += piece
    return said


def status_of(said: bytes) -> int:
    return int(said.split(b" ", 2)[1])


def error_of(said: bytes) -> str:
    text = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
    assert isinstance(text, str)
    return text


# ---- what is no HTTP


@pytest.mark.parametrize(
    "said",
    [
        PREDICT + b"Content-Length: 17\r\nContent-Length: 17\r\n\r\n" + BODY,
        PREDICT + b"Content-Length: 17\r\nContent-Length: 18\r\n\r\n" + BODY,
        PREDICT + b"Content-Length: 17\r\nTransfer-Encoding: chunked\r\n\r\n11\r\n" + BODY + b"\r\n0\r\n\r\n",
        PREDICT + b"Content-Length: -1\r\n\r\n" + BODY,
        PREDICT + b"Content-Length: 1e3\r\n\r\n" + BODY,
        PREDICT + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
        PREDICT + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        PREDICT + b"Host : y\r\n\r\n",
        PREDICT + b"".join(b"X-%d: 1\r\n" % number for number in range(500)) + b"\r\n",
        b"\x16\x03\x01 hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_400_and_closed(connect: Connect, said: bytes) -> None:
    stranger = connect()
    stranger.sendall(said)
    answer = heard(stranger)
    assert status_of(answer) == 400
    assert b"<TITLE>400 Bad Request</TITLE>" in answer


@pytest.mark.parametrize("method", [b"BREW", b"get", b"TRACE"])
def test_methods_that_nobody_knows_are_answered_with_501_and_closed(connect: Connect, method: bytes) -> None:
    stranger = connect()
    stranger.sendall(method + b" /v1/models/m HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = heard(stranger)
    assert status_of(answer) == 501
    assert b"<TITLE>501 Not Implemented</TITLE>" in answer


@pytest.mark.parametrize("said", [b"GET /v1/" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n", PREDICT + b"X: " + b"a" * 10_000])
def test_headers_that_are_too_long_are_answered_with_431_and_closed(connect: Connect, said: bytes) -> None:
    stranger = connect()
    stranger.sendall(said)
    assert status_of(heard(stranger)) == 431


def test_a_body_that_is_no_http_is_answered_with_400_and_closed(connect: Connect) -> None:
    stranger = connect()
    stranger.sendall(PREDICT + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
    time.sleep(0.1)
    stranger.sendall(b"zz\r\n")
    answer = heard(stranger)
    assert (status_of(answer), error_of(answer)) == (400, "The request's body is no HTTP.")


def test_requests_in_a_row_are_answered_in_their_order(connect: Connect) -> None:
    pipeline = connect()
    for number in range(40):
        body = b'{"instances":[%d]}' % number
        pipeline.sendall(PREDICT + LENGTH % len(body) + body)
    pipeline.sendall(STATUS.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    answer = heard(pipeline)
    predictions = [float(found) for found in re.findall(rb'"predictions": \[([\d.]+)', answer)]
    assert len(predictions) == 40
    assert np.diff(predictions).tolist() == [0.5] * 39
    assert answer.count(b"HTTP/1.1 200 OK") == 41


# ---- bodies


def test_a_body_is_refused_by_its_length_before_it_comes(connect: Connect) -> None:
    for expect in (b"", b"Expect: 100-continue\r\n"):
        stranger = connect()
        stranger.sendall(PREDICT + expect + LENGTH % 500_001)
        answer = stranger.recv(2**16)
        assert status_of(answer) == 413
        assert error_of(answer) == "The request's body is larger than 500000 bytes, the most that the server takes."


def test_a_body_in_pieces_is_refused_when_it_is_too_large(connect: Connect) -> None:
    stranger = connect()
    stranger.sendall(PREDICT + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(6):
        stranger.sendall(b"186a0\r\n" + b" " * 100_000 + b"\r\n")
    assert status_of(stranger.recv(2**16)) == 413


def test_a_client_that_asks_first_is_told_to_go_on(connect: Connect) -> None:
    polite = connect()
    polite.sendall(PREDICT + b"Expect: 100-continue\r\n" + LENGTH % len(BODY))
    assert polite.recv(2**16) == b"HTTP/1.1 100 Continue\r\n\r\n"
    polite.sendall(BODY)
    assert status_of(polite.recv(2**16)) == 200


def test_bodies_together_are_bounded_and_the_bound_is_given_back(limited: Limited, connect: Connect) -> None:
    for _ in range(3):
        first, second = connect(), connect()
        first.sendall(PREDICT + LENGTH % 450_000 + b" " * 400_000)
        time.sleep(0.1)
        second.sendall(PREDICT + LENGTH % 450_000 + b" " * 400_000)
        answer = second.recv(2**16)
        assert status_of(answer) == 503
        assert error_of(answer) == "The server holds 700000 bytes of other requests already. Try again later."
        second.close()
        first.close()
        body = b" " * 400_000 + BODY
        assert requests.post(f"{limited.url}/v1/models/m:predict", data=body, timeout=5).json() == {
            "predictions": [3.5]
        }


# ---- slow ones


def test_headers_that_do_not_end_are_given_up(connect: Connect) -> None:
    stranger = connect()
    stranger.sendall(PREDICT)
    began = time.monotonic()
    answer = heard(stranger)
    assert (status_of(answer), error_of(answer)) == (408, "The request's headers took too long to arrive.")
    assert time.monotonic() - began > 0.4


@pytest.mark.parametrize(("first", "pause"), [(0, 0.1), (300_000, 10.0)], ids=["drips", "stops"])
def test_a_body_that_drips_or_stops_is_given_up(connect: Connect, first: int, pause: float) -> None:
    stranger = connect()
    stranger.sendall(PREDICT + LENGTH % 400_000 + b" " * first)
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(pause):
            stranger.sendall(b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        answer = stranger.recv(2**16)
    finally:
        stop.set()
        thread.join()
    assert status_of(answer) == 408
    assert error_of(answer).startswith("The request's body came too slowly: ")


def test_a_body_that_takes_its_time_is_taken(connect: Connect) -> None:
    """It comes for longer than `body_seconds`, but steadily."""
    client = connect()
    client.sendall(PREDICT + LENGTH % (len(BODY) + 6000))
    for _ in range(6):
        client.sendall(b" " * 1000)
        time.sleep(0.15)
    client.sendall(BODY)
    assert status_of(client.recv(2**16)) == 200


def test_a_connection_without_requests_is_closed(connect: Connect) -> None:
    fresh, used = connect(), connect()
    used.sendall(STATUS)
    assert status_of(used.recv(2**16)) == 200
    assert fresh.recv(1) == used.recv(1) == b""


def test_an_answer_that_nobody_takes_is_given_up(limited: Limited, connect: Connect) -> None:
    body = b'{"instances":[%s]}' % b",".join([b"0.1234567"] * 45_000)
    request = PREDICT + LENGTH % len(body) + body
    stranger = connect()
    stranger.settimeout(0.3)
    # Some time the answers fill all that is between, and no more requests are taken.
    with pytest.raises(TimeoutError):
        stranger.sendall(request * 200)
    time.sleep(1.5)
    stranger.settimeout(5)
    with pytest.raises(ConnectionResetError):
        heard(stranger)
    assert limited.answers()


def test_a_body_that_is_on_its_way_when_the_server_is_told_to_end_is_answered(models: Path, tmp_path: Path) -> None:
    flags = [f"--model_base_path={models}/half_plus_two", "--model_name=m"]
    with process(tmp_path, *flags) as (child, _, rest):
        until(lambda: answers(rest, "m"))
        with socket.create_connection(("127.0.0.1", int(rest.url.rpartition(":")[2])), 5) as connection:
            connection.sendall(PREDICT + LENGTH % (len(BODY) + 10) + b" " * 10)
            time.sleep(0.1)
            child.terminate()
            until(lambda: "Stopping" in (tmp_path / "log").read_text())
            time.sleep(0.1)
            connection.sendall(BODY)
            assert status_of(connection.recv(2**16)) == 200
        assert child.wait(5) == 0


# ---- many


def is_closed(connection: socket.socket) -> bool:
    """Whether the other side has closed, whatever it said before."""
    connection.setblocking(False)
    try:
        with suppress(ConnectionResetError):
            heard(connection)
    except BlockingIOError:
        return False
    return True


def test_a_newcomer_gets_the_place_of_who_is_idle_longest(connect: Connect) -> None:
    oldest, *others = (connect() for _ in range(30))
    time.sleep(1.1)
    newcomer = connect()
    newcomer.sendall(STATUS)
    assert status_of(newcomer.recv(2**16)) == 200
    assert is_closed(oldest)
    assert sum(map(is_closed, others)) <= 1


def test_where_nobody_is_idle_a_newcomer_is_told_to_come_later(limited: Limited, connect: Connect) -> None:
    busy = [connect() for _ in range(31)]
    for connection in busy:
        connection.sendall(PREDICT + LENGTH % 1000)
    newcomer = connect()
    newcomer.sendall(STATUS)
    answer = heard(newcomer)
    assert status_of(answer) == 503
    assert error_of(answer) == "The server has as many connections as it takes. Try again later."
    for connection in busy:
        connection.close()
    until(limited.answers)


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04" + bytes(5)


def begun(client: GrpcClient, said: bytes = PREFACE) -> socket.socket:
    """A connection that begins HTTP/2 and says no more; with less than all of it, it does not even begin."""
    host, _, port = client.address.rpartition(":")
    connection = socket.create_connection((host, int(port)), 5)
    connection.sendall(said)
    return connection


def test_grpc_connections_that_come_to_nothing_are_closed(limited: Limited) -> None:
    with begun(limited.client) as idle:
        assert idle.recv(2**16)
        time.sleep(0.5)
        with begun(limited.client, PREFACE[:16]) as half:
            heard(half)  # to its end, which is sooner though it began later
        assert not is_closed(idle)
        idle.settimeout(5)
        heard(idle)
    assert limited.client.predict("m", [1.0], timeout=5)["y"].tolist() == [3.5]


def is_turned_away(connection: socket.socket) -> bool:
    """Whether the server closes without a word."""
    try:
        return connection.recv(2**16) == b""
    except ConnectionResetError:
        return True


def test_grpc_connections_beyond_their_bound_are_closed_and_others_are_answered(limited: Limited) -> None:
    client = limited.client
    assert client.predict("m", [1.0], timeout=5)["y"].tolist() == [3.5]
    with ExitStack() as stack:
        crowd = [stack.enter_context(begun(client)) for _ in range(40)]
        assert sum(map(is_turned_away, crowd)) == 11
        assert client.predict("m", [1.0], timeout=5)["y"].tolist() == [3.5]
    until(lambda: answers(client, "m"))


def test_a_message_that_is_too_large_is_refused(limited: Limited) -> None:
    client = limited.client
    with pytest.raises(CallError, match=r"larger than max \(\d+ vs\. 500000\)"):
        client.predict("m", np.zeros(200_000, "f4"), timeout=5)
    assert client.predict("m", [1.0], timeout=5)["y"].tolist() == [3.5]


def test_a_crowd_of_silent_strangers_holds_up_nobody(server: RunningServer) -> None:
    """With the limits that users have."""
    rest_port = int(server.rest_url.rpartition(":")[2])
    with ExitStack() as stack, GrpcClient(server.grpc_address) as client, RestClient(server.rest_url) as rest:
        for number in range(400):
            stack.enter_context(begun(client, PREFACE if number % 4 else PREFACE[:16]))
        for number in range(300):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", rest_port), 5))
            connection.sendall((b"", PREDICT, PREDICT + LENGTH % 1000)[number % 3])
        for _ in range(20):
            assert client.predict("half_plus_two", [1.0], version=1, timeout=2)["y"].tolist() == [2.5]
            assert rest.predict("half_plus_two", [1.0], version=1, timeout=2)["y"].tolist() == [2.5]
        fresh = requests.get(f"{server.rest_url}/v1/models/half_plus_two", timeout=2)
        assert fresh.ok
