"""gRPC for the soak: any bytes to any method."""

import random
import re
import time
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from soak_report import MOST_SECONDS, Disorderly, Report, Worker, mutated

from tfs_helpers import protos

ANY_SIZE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_RELOAD = protos.RPCS["HandleReloadConfigRequest"].path
_REQUESTS = {rpc.path: protos.message_class(f"tensorflow.serving.{rpc.request}") for rpc in protos.RPCS.values()}
_ORDERLY = {
    "OK", "CANCELLED", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED",
    "RESOURCE_EXHAUSTED", "OUT_OF_RANGE", "ALREADY_EXISTS", "ABORTED", "PERMISSION_DENIED",
}  # fmt: skip
_KNOWN = {
    "UNKNOWN": r"\d+ model\(s\) did not become available",
    "UNAVAILABLE": r"Model labels does not init yet",
}


def check(error: grpc.RpcError, path: str = "", request: bytes = b"") -> str:
    """The code of a failed call.

    Raises:
        Disorderly: the request cannot have earned it.
    """
    code, details = error.code().name, error.details() or ""
    if code == "INTERNAL" and not details and not _is_readable(path, request):
        return "INTERNAL"  # as gRPC answers by itself in C++
    if code in _ORDERLY or re.match(_KNOWN.get(code, "(?!)"), details):
        return str(code)
    raise Disorderly(f"{code}: {details[:1000]}")


def _is_readable(path: str, request: bytes) -> bool:
    try:
        _REQUESTS[path].FromString(request)
    except (KeyError, DecodeError):
        return False
    return True


def is_config(request: bytes) -> bool:
    """Whether a reload would take this for a configuration, and drop the models that others are calling."""
    try:
        config = protos.ReloadConfigRequest.FromString(request).config
    except DecodeError:
        return False
    return bool(config.WhichOneof("config") == "model_config_list")


def _alter(rng: random.Random, message: Any) -> None:
    """Change one field somewhere inside to something that its type allows."""
    given = [field for field, _ in message.ListFields()]
    fields = given if given and rng.random() < 0.85 else list(message.DESCRIPTOR.fields)
    if not fields:
        return
    field = rng.choice(fields)
    if rng.random() < 0.1:
        message.ClearField(field.name)
        return
    value = getattr(message, field.name)
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        key = rng.choice([*value, _anything(rng, kind.fields[0])])
        if kind.fields[1].message_type is not None:
            _alter(rng, value[key])
        else:
            value[key] = _anything(rng, kind.fields[1])
    elif field.is_repeated and kind is not None:
        _alter(rng, value.add() if not value or rng.random() < 0.3 else rng.choice(value))
    elif field.is_repeated:
        if value and rng.random() < 0.7:
            value[rng.randrange(len(value))] = _anything(rng, field)
        else:
            value.extend([_anything(rng, field)] * rng.choice((1, 1, 2, 300)))
    elif kind is not None:
        _alter(rng, value)
    else:
        setattr(message, field.name, _anything(rng, field))


def _anything(rng: random.Random, field: Any) -> Any:
    """A value of a field that is no message."""
    kinds = field.CPPTYPE_STRING, field.CPPTYPE_BOOL, field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT, field.CPPTYPE_ENUM
    if field.cpp_type == kinds[0]:
        content = rng.choice(
            ("", "x", "inputs", "serving_default", "stable", "half_plus_two", "é", "\0", "/", "x" * 3000)
        )
        return content.encode() if field.type == field.TYPE_BYTES else content
    if field.cpp_type == kinds[1]:
        return rng.random() < 0.5
    if field.cpp_type in kinds[2:4]:
        return rng.choice((0.0, -1.0, 1e300 if field.cpp_type == kinds[2] else 1e38, float("nan"), float("inf")))
    if field.cpp_type == kinds[4]:
        return rng.randrange(130)
    bits = 64 if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) else 32
    if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        return rng.choice((0, 1, 7, 2**bits - 1))
    return rng.choice((0, 1, 2, 3, 7, -1, -2, 2**20, 2**31 - 1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1))))


class GrpcFuzz(Worker):
    """Requests that are nearly right, calls that end early, and methods that are not there.

    Args:
        seeds: right requests, with their paths.
    """

    def __init__(self, name: str, report: Report, stop: Any, port: int, seeds: Sequence[tuple[str, bytes]]) -> None:
        super().__init__(name, report, stop)
        self._address = f"127.0.0.1:{port}"
        self._seeds = seeds
        self._channel = self._connect()

    def _connect(self) -> grpc.Channel:
        return grpc.insecure_channel(self._address, [*ANY_SIZE, ("grpc.use_local_subchannel_pool", 1)])

    def step(self) -> None:
        rng = self.rng
        path, request = rng.choice(self._seeds)
        draw = rng.random()
        if self.steps % 500 == 499:
            self._channel.close()
            self._channel = self._connect()
        if draw < 0.25:
            self._send("mutated", path, mutated(rng, request))
        elif draw < 0.6:
            message = _REQUESTS[path].FromString(request)
            for _ in range(rng.choice((1, 1, 2, 3))):
                _alter(rng, message)
            self._send("altered", path, message.SerializeToString())
        elif draw < 0.65:
            self._send("other method", rng.choice(self._seeds)[0], request)
        elif draw < 0.7:
            self._send("garbage", rng.choice((path, _RELOAD)), rng.randbytes(rng.choice((0, 1, 10, 10_000))))
        elif draw < 0.75:
            wrong = re.sub(r"[\0-\x20\x7f-\xff]", "_", mutated(rng, path.encode()).decode("latin-1"))
            self._send("no method", "/" + wrong.lstrip("/"), request)
        elif draw < 0.82:
            self._cancelled(path, request)
        elif draw < 0.9:
            self._send("tiny deadline", path, request, rng.choice((0.0, 0.0005, 0.001, 0.003, 0.01)))
        elif draw < 0.93:
            self._send("compressed", path, mutated(rng, request), compression=grpc.Compression.Gzip)
        elif draw < 0.96:
            size = rng.choice((10, 1000, 20_000))
            self._send("metadata", path, request, metadata=[("x-y", "z" * size), ("x-bin", rng.randbytes(size // 9))])
        else:
            self._stream(path, request)

    def _send(self, kind: str, path: str, request: bytes, seconds: float = MOST_SECONDS, **more: Any) -> None:
        if path == _RELOAD and is_config(request):
            return
        with self.report.asking(f"gRPC, {kind}", path.encode() + b"\n" + request) as codes:
            try:
                self._channel.unary_unary(path)(request, timeout=seconds, **more)
                codes.append("OK")
            except grpc.RpcError as error:
                codes.append(check(error, path, request))
                if seconds == MOST_SECONDS and codes == ["DEADLINE_EXCEEDED"]:
                    raise Disorderly(f"no answer in {seconds} s") from None

    def _cancelled(self, path: str, request: bytes) -> None:
        with self.report.asking("gRPC, cancelled", path.encode() + b"\n" + request) as codes:
            call = self._channel.unary_unary(path).future(request, timeout=MOST_SECONDS)
            time.sleep(self.rng.choice((0.0, 0.0003, 0.001, 0.005)))
            call.cancel()
            codes.append("cancelled")

    def _stream(self, path: str, request: bytes) -> None:
        """Several messages, or none, to a method that takes one."""
        messages = [request] * self.rng.choice((0, 1, 2, 5))
        if path == _RELOAD and is_config(request):
            return
        with self.report.asking("gRPC, streamed", path.encode() + b"\n" + request) as codes:
            try:
                for _ in self._channel.stream_stream(path)(iter(messages), timeout=2 if not messages else MOST_SECONDS):
                    codes.append("OK")
            except grpc.RpcError as error:
                codes.append(check(error, path, request))

    def close(self) -> None:
        self._channel.close()
