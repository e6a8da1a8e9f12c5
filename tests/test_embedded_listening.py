"""What the embedded server listens on: TLS, the UNIX socket, what gRPC is told, and the services beside the API."""

import functools
import signal
import stat
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest
import requests
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from google.protobuf import descriptor_pb2, descriptor_pool, text_format
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from served_models import Signatures, export_graph
from test_embedded_server import free_port, process, run, until

from tfs_helpers import protos
from tfs_helpers.embedded.doors.listening import check_listening
from tfs_helpers.embedded.options import parse_flags
from tfs_helpers.embedded.status import ServingError
from tfs_helpers.tensors import to_proto

HALF = protos.PredictRequest()
HALF.model_spec.name = "m"
HALF.inputs["x"].CopyFrom(to_proto(np.array([1.0], "f4")))


class Running(NamedTuple):
    child: Any
    address: str
    rest: str
    folder: Path

    def log(self) -> str:
        return (self.folder / "log").read_text()


class Trust(NamedTuple):
    """A certificate authority, and what it issued."""

    authority: trustme.CA
    server: trustme.LeafCert
    client: trustme.LeafCert
    expired: trustme.LeafCert


def pem(certificate: trustme.LeafCert) -> tuple[bytes, bytes]:
    """Its key and its chain."""
    return certificate.private_key_pem.bytes(), b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


@pytest.fixture(scope="module")
def trust() -> Trust:
    authority = trustme.CA()
    yesterday = datetime.now(timezone.utc) - timedelta(days=1)
    expired = authority.issue_cert("client", not_before=yesterday - timedelta(days=1), not_after=yesterday)
    return Trust(authority, authority.issue_cert("localhost", "127.0.0.1"), authority.issue_cert("client"), expired)


def ssl_file(folder: Path, certificate: trustme.LeafCert, **fields: Any) -> Path:
    key, chain = pem(certificate)
    config = protos.SSLConfig(**{"server_key": key.decode(), "server_cert": chain.decode(), **fields})
    file = folder / "ssl.config"
    file.write_text(text_format.MessageToString(config))
    return file


def serving(models: Path, folder: Path, *flags: str) -> Iterator[Running]:
    named = [f"--model_base_path={models}/half_plus_two", "--model_name=m"]
    with process(folder, *named, *flags) as (child, client, rest):
        until(lambda: "Exporting HTTP/REST API" in (folder / "log").read_text() or child.poll() is not None)
        yield Running(child, client.address, rest.url, folder)


@pytest.fixture(scope="module")
def encrypted(models: Path, trust: Trust, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with TLS, and nothing else that is not there without flags."""
    folder = tmp_path_factory.mktemp("encrypted")
    yield from serving(models, folder, f"--ssl_config_file={ssl_file(folder, trust.server)}")


@pytest.fixture(scope="module")
def mutual(models: Path, trust: Trust, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that verifies its clients, on a port and on `folder/socket`."""
    folder = tmp_path_factory.mktemp("mutual")
    authority = trust.authority.cert_pem.bytes().decode()
    file = ssl_file(folder, trust.server, custom_ca=authority, client_verify=True)
    yield from serving(models, folder, f"--ssl_config_file={file}", f"--grpc_socket_path={folder}/socket")


@pytest.fixture(scope="module")
def healthy(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the health service, a bound of its user's on messages, and a socket."""
    folder = tmp_path_factory.mktemp("healthy")
    yield from serving(
        models,
        folder,
        "--enable_grpc_healthcheck_service=true",
        "--grpc_channel_arguments=grpc.max_receive_message_length=1000,grpc.primary_user_agent=tests",
        f"--grpc_socket_path={folder}/socket",
    )


def credentials(authority: trustme.CA, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
    key, chain = pem(client) if client else (None, None)
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), key, chain)


def predict(address: str, trusted: grpc.ChannelCredentials | None = None, request: Any = HALF) -> float:
    """The answer for x = 1; RpcError where there is none."""
    named = [("grpc.ssl_target_name_override", "localhost")] if trusted and address.startswith("unix:") else []
    channel = grpc.secure_channel(address, trusted, named) if trusted else grpc.insecure_channel(address)
    with channel:
        call = channel.unary_unary(
            protos.RPCS["Predict"].path,
            request_serializer=protos.PredictRequest.SerializeToString,
            response_deserializer=protos.PredictResponse.FromString,
        )
        return float(call(request, timeout=5).outputs["y"].float_val[0])


def refused(address: str, trusted: grpc.ChannelCredentials | None = None) -> bool:
    with pytest.raises(grpc.RpcError) as caught:
        predict(address, trusted)
    return bool(caught.value.code() == grpc.StatusCode.UNAVAILABLE)


# ---- TLS


def test_tls_answers_who_trusts_it(encrypted: Running, trust: Trust) -> None:
    assert predict(encrypted.address, credentials(trust.authority)) == 3.5
    assert "Using SslServerCredentials" in encrypted.log()


def test_tls_is_nothing_for_others(encrypted: Running) -> None:
    assert refused(encrypted.address)
    assert refused(encrypted.address, credentials(trustme.CA()))


def test_rest_stays_plain_and_says_so(encrypted: Running) -> None:
    assert requests.get(f"{encrypted.rest}/v1/models/m", timeout=5).ok
    assert "--ssl_config_file is for gRPC alone" in encrypted.log()


def test_a_client_with_a_certificate_is_answered(mutual: Running, trust: Trust) -> None:
    for address in (mutual.address, f"unix:{mutual.folder}/socket"):
        assert predict(address, credentials(trust.authority, trust.client)) == 3.5


def test_a_client_without_a_good_certificate_is_refused(mutual: Running, trust: Trust) -> None:
    stranger = trustme.CA().issue_cert("client")
    for address in (mutual.address, f"unix:{mutual.folder}/socket"):
        for client in (None, stranger, trust.expired):
            assert refused(address, credentials(trust.authority, client))
    assert predict(mutual.address, credentials(trust.authority, trust.client)) == 3.5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"server_key": ""}, "server_key is empty"),
        ({"server_cert": ""}, "server_cert is empty"),
        ({"server_key": "/etc/ssl/key.pem"}, "server_key is no PEM private key"),
        ({"server_cert": "/etc/ssl/cert.pem"}, "server_cert is no PEM certificate"),
        (
            {"server_key": pem(trustme.CA().issue_cert("a"))[0].decode()},
            "belongs to another certificate than server_cert",
        ),
        ({"client_verify": True}, "client_verify needs custom_ca"),
        ({"client_verify": True, "custom_ca": "nobody"}, "custom_ca is no PEM certificate"),
    ],
)
def test_tls_that_cannot_work_is_refused(trust: Trust, tmp_path: Path, fields: dict[str, Any], words: str) -> None:
    file = ssl_file(tmp_path, trust.server, **fields)
    with pytest.raises(ServingError, match=f"No TLS with the SSLConfig of {file}: .*{words}"):
        check_listening(parse_flags([f"--ssl_config_file={file}"]))


def test_a_key_with_a_password_is_refused(models: Path, trust: Trust, tmp_path: Path) -> None:
    key = load_pem_private_key(pem(trust.server)[0], None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    file = ssl_file(tmp_path, trust.server, server_key=locked.decode())
    done = run(f"--model_base_path={models}/half_plus_two", f"--ssl_config_file={file}")
    assert done.returncode == 255
    assert (
        f"Failed to start server. Error: INVALID_ARGUMENT: No TLS with the SSLConfig of {file}: server_key is encrypted"
    ) in done.stdout


def test_a_file_that_cannot_be_read_is_refused_and_its_key_is_not_shown(
    models: Path, trust: Trust, tmp_path: Path
) -> None:
    key = pem(trust.server)[0].decode()
    file = tmp_path / "ssl.config"
    # What everybody tries first: the key as it stands in its file, over several lines, or what is inside of it.
    inside = "\n".join(key.splitlines()[1:-1])
    for text in (f'server_key: "{key}"', f"server_key: {key}", f"server_key: 'a'\n{key}", inside):
        file.write_text(text)
        done = run(f"--model_base_path={models}/half_plus_two", f"--ssl_config_file={file}")
        assert done.returncode == 255
        assert f"Error: INVALID_ARGUMENT: Invalid protobuf file: '{file}'" in done.stdout
        assert "Error parsing text-format tensorflow.serving.SSLConfig: " in done.stderr
        for line in key.splitlines()[1:-1]:
            assert line[:8] not in done.stdout + done.stderr
    done = run(f"--model_base_path={models}/half_plus_two", f"--ssl_config_file={tmp_path}/none")
    assert f"Error: NOT_FOUND: {tmp_path}/none; No such file or directory\n" in done.stdout


def test_the_key_is_never_told(encrypted: Running, trust: Trust) -> None:
    said = encrypted.log() + (encrypted.folder / "out").read_text()
    for line in pem(trust.server)[0].decode().splitlines()[1:-1]:
        assert line not in said


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--ssl_config_file=/f",),
            "INVALID_ARGUMENT: Either use_alts_credentials must be false or ssl_config_file must be empty.",
        ),
        ((), "UNIMPLEMENTED: ALTS works inside Google Cloud"),
    ],
)
def test_alts_is_refused(models: Path, flags: tuple[str, ...], words: str) -> None:
    done = run(f"--model_base_path={models}/half_plus_two", "--use_alts_credentials=true", *flags)
    assert (done.returncode, f"Error: {words}" in done.stdout) == (255, True)


# ---- health and reflection


def health(channel: grpc.Channel, service: str) -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=5).status)


def test_health_is_told_under_the_real_servers_names(healthy: Running) -> None:
    with grpc.insecure_channel(healthy.address) as channel:
        for service in ("", "ModelService", "PredictionService"):
            assert health(channel, service) == health_pb2.HealthCheckResponse.SERVING
        for service in ("tensorflow.serving.PredictionService", "m"):
            with pytest.raises(grpc.RpcError) as caught:
                health(channel, service)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            assert caught.value.details() == "service name unknown"


def test_without_its_flag_there_is_no_health(encrypted: Running, trust: Trust) -> None:
    with grpc.secure_channel(encrypted.address, credentials(trust.authority)) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            health(channel, "")
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert caught.value.details() == ""


def test_who_watches_is_told_of_the_end_and_calls_are_answered_until_then(models: Path, tmp_path: Path) -> None:
    for running in serving(models, tmp_path, "--enable_grpc_healthcheck_service=true"):
        with grpc.insecure_channel(running.address) as channel:
            request = health_pb2.HealthCheckRequest(service="PredictionService")
            states = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=20)
            assert next(states).status == health_pb2.HealthCheckResponse.SERVING
            began = time.monotonic()
            running.child.terminate()
            assert next(states).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert health(channel, "") == health_pb2.HealthCheckResponse.NOT_SERVING
            assert predict(running.address) == 3.5
            assert list(states) == []
        assert running.child.wait(10) == 0
        # Who watches does not hold it: the grace for calls is 3 seconds.
        assert time.monotonic() - began < 3


def test_reflection_tells_the_services_and_their_messages(healthy: Running) -> None:
    with grpc.insecure_channel(healthy.address) as channel:

        def ask(**question: str) -> Any:
            request = reflection_pb2.ServerReflectionRequest(**question)
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            return next(iter(stub.ServerReflectionInfo(iter([request]), timeout=5)))

        names = [service.name for service in ask(list_services="").list_services_response.service]
        assert names == [
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "tensorflow.serving.ModelService",
            "tensorflow.serving.PredictionService",
        ]
        pool = descriptor_pool.DescriptorPool()
        known: set[str] = set()
        for name in names:
            files = ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto
            described = {}
            for content in files:
                file = descriptor_pb2.FileDescriptorProto.FromString(content)
                described[file.name] = file

            def add(name: str, described: dict[str, Any] = described) -> None:
                if name not in known:
                    known.add(name)
                    for other in described[name].dependency:
                        add(other)
                    pool.Add(described[name])

            for name in list(described):
                add(name)
        for rpc in protos.RPCS.values():
            method = pool.FindServiceByName(f"tensorflow.serving.{rpc.service}").methods_by_name[rpc.name]
            assert method.input_type.full_name == f"tensorflow.serving.{rpc.request}"
            assert method.output_type.full_name == f"tensorflow.serving.{rpc.response}"


# ---- what gRPC is told


@pytest.mark.parametrize("item", ["nonsense", "a=1,b", "a=b=c", "=3"])
def test_a_channel_argument_that_is_none_is_refused(item: str) -> None:
    with pytest.raises(ServingError, match="--grpc_channel_arguments holds "):
        check_listening(parse_flags([f"--grpc_channel_arguments={item}"]))


def test_channel_arguments_reach_grpc(healthy: Running) -> None:
    large = protos.PredictRequest()
    large.CopyFrom(HALF)
    large.inputs["x"].CopyFrom(to_proto(np.zeros(1000, "f4")))
    assert predict(healthy.address) == 3.5
    with pytest.raises(grpc.RpcError) as caught:
        predict(healthy.address, request=large)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "1000" in caught.value.details()


def draw_slow(v1: Any) -> Signatures:
    """As many steps as it is told."""
    steps = v1.placeholder("int64", [], name="steps")
    count = v1.while_loop(lambda done: done < steps, lambda done: done + 1, [v1.constant(0, "int64")])
    return {"serving_default": ({"steps": steps}, {"count": v1.identity(count)})}


def refusal(channel: grpc.Channel) -> tuple[grpc.StatusCode, str] | tuple[()]:
    """How the server refuses to tell the model's status; nothing if it does not."""
    request = protos.GetModelStatusRequest()
    request.model_spec.name = "m"
    try:
        channel.unary_unary(protos.RPCS["GetModelStatus"].path)(request.SerializeToString(), timeout=5)
    except grpc.RpcError as error:
        return error.code(), error.details()
    return ()


def test_more_calls_than_threads_are_refused_and_health_is_not(models: Path, tmp_path: Path) -> None:
    export_graph(tmp_path / "half_plus_two" / "1", draw_slow)
    flags = ["--grpc_max_threads=1", "--enable_grpc_healthcheck_service=true"]
    request = protos.PredictRequest()
    request.model_spec.name = "m"
    request.inputs["steps"].CopyFrom(to_proto(np.array(10**12)))
    for running in serving(tmp_path, tmp_path, *flags):
        with grpc.insecure_channel(running.address) as channel, ThreadPoolExecutor(1) as thread:
            slow = thread.submit(
                channel.unary_unary(
                    protos.RPCS["Predict"].path, request_serializer=protos.PredictRequest.SerializeToString
                ),
                request,
                timeout=2,
            )
            until(functools.partial(refusal, channel))
            code, words = refusal(channel)
            assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "as many as --grpc_max_threads=1 allows" in words
            assert health(channel, "") == health_pb2.HealthCheckResponse.SERVING
            assert isinstance(slow.exception(), grpc.RpcError)
            until(lambda channel=channel: not refusal(channel))


# ---- the UNIX socket and the ports


def test_a_socket_is_its_owners_alone(healthy: Running) -> None:
    path = healthy.folder / "socket"
    assert predict(f"unix:{path}") == predict(healthy.address) == 3.5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert f"Running gRPC ModelServer at UNIX socket {path} ..." in healthy.log()


def test_a_socket_alone_is_enough_and_what_a_dead_server_left_is_replaced(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    flags = ("--port=0", f"--grpc_socket_path={path}")
    for running in serving(models, tmp_path, *flags):
        running.child.send_signal(signal.SIGKILL)
        running.child.wait()
    assert path.is_socket()
    for running in serving(models, tmp_path, *flags):
        assert predict(f"unix:{path}") == 3.5
        assert "Running gRPC ModelServer at 127.0.0.1" not in running.log()
        running.child.terminate()
        assert running.child.wait(10) == 0
    assert not path.exists()


def test_a_socket_of_somebody_else_is_left_alone(models: Path, healthy: Running, tmp_path: Path) -> None:
    flags = [f"--model_base_path={models}/half_plus_two", "--port=0"]
    path = healthy.folder / "socket"
    done = run(*flags, f"--grpc_socket_path={path}")
    assert done.returncode == 255
    assert "Error: UNKNOWN: Failed to BuildAndStart gRPC server" in done.stdout
    assert f"Cannot listen on {path}: another program does" in done.stderr
    assert predict(f"unix:{path}") == 3.5
    file = tmp_path / "file"
    file.write_text("precious")
    done = run(*flags, f"--grpc_socket_path={file}")
    assert (done.returncode, "there is something else than a socket" in done.stderr) == (255, True)
    assert file.read_text() == "precious"
    done = run(*flags, f"--grpc_socket_path=/{'a' * 200}")
    assert (done.returncode, "--grpc_socket_path is longer than 107 bytes" in done.stdout) == (255, True)


def test_a_busy_grpc_port_ends_it_and_a_busy_rest_port_does_not(models: Path, healthy: Running, tmp_path: Path) -> None:
    flags = [f"--model_base_path={models}/half_plus_two", "--model_name=m"]
    taken, taken_rest = healthy.address.rpartition(":")[2], healthy.rest.rpartition(":")[2]
    done = run(*flags, f"--port={taken}")
    assert (done.returncode, "Failed to BuildAndStart gRPC server" in done.stdout) == (255, True)
    port = free_port()
    with process(tmp_path, *flags, f"--port={port}", f"--rest_api_port={taken_rest}"):
        until(lambda: "Failed to start HTTP Server" in (tmp_path / "log").read_text())
        assert predict(f"127.0.0.1:{port}") == 3.5
