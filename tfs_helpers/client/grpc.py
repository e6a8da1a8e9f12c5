"""The gRPC client: arrays in, arrays out, without TensorFlow."""

import re
from collections.abc import Mapping
from typing import Any

import grpc

from tfs_helpers import protos
from tfs_helpers.client.answers import Target, VersionStatus, call_error
from tfs_helpers.client.base import Array, ModelClient
from tfs_helpers.errors import ConfigError, InputError
from tfs_helpers.signatures import ModelMetadata, Signature, signatures_from
from tfs_helpers.tensors import from_proto, to_proto

__all__ = ["GrpcClient"]

_OPTIONS = [
    # gRPC's own limit for answers is 4 MiB, which one batch of pictures exceeds; -1 is none.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Settings of proxies are for the world outside, not for a model server beside us.
    ("grpc.enable_http_proxy", 0),
    # A server that was not there a moment ago is found soon after it starts; gRPC's own limit is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]
_CLOSED = "this client has been closed"
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})")
# UNAVAILABLE in gRPC's own words, not in those of a server.
_NOT_REACHED = re.compile(
    r"failed to connect|errors resolving|DNS resolution failed|Socket closed|Connection reset|Broken pipe|recvmsg"
    r"|Stream removed|GOAWAY|Endpoint closing|handshake",
    re.IGNORECASE,
)


class GrpcClient(ModelClient):
    """Calls a server by gRPC over one connection, which it keeps; safe to use from several threads.

        with GrpcClient("127.0.0.1:8500") as client:
            client.predict("half_plus_two", {"x": [1.0, 2.0, 5.0]})["y"]

    Args:
        address: `host:port`, the server's gRPC port.
        timeout: seconds that a call may take unless it says otherwise.

    Raises:
        ConfigError: the address is none.
    """

    def __init__(self, address: str = "127.0.0.1:8500", *, timeout: float = 10.0) -> None:
        match = _ADDRESS.fullmatch(address)
        if match is None or not 0 < int(match[2]) < 2**16:
            raise ConfigError(
                f"{address!r} is no gRPC address.",
                "gRPC takes host:port, without http:// and without a path; IPv6 stands in brackets, [::1]:8500.",
                'The server\'s default is "127.0.0.1:8500".',
            )
        self.address = address
        super().__init__(timeout=timeout)
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._closed = False
        self._stubs: dict[str, Any] = {}

    def close(self) -> None:
        """Close the connection. Calls that still wait, and later ones, end with `Unreachable`."""
        self._closed = True
        self._channel.close()

    def _predict(
        self, target: Target, signature: Signature, arrays: Mapping[str, Array], timeout: float
    ) -> dict[str, Array]:
        request = protos.PredictRequest()
        self._name(request.model_spec, target)
        request.model_spec.signature_name = signature.name
        for name, array in arrays.items():
            request.inputs[name].CopyFrom(to_proto(array))
        response = self._call("Predict", request, target, timeout, signature=signature.name)
        try:
            return {name: from_proto(tensor) for name, tensor in response.outputs.items()}
        except InputError as error:
            raise call_error("UNKNOWN", error.what, target, {"wire": "gRPC", "address": self.address}) from None

    def _status(self, target: Target, timeout: float) -> list[VersionStatus]:
        request = protos.GetModelStatusRequest()
        self._name(request.model_spec, target)
        response = self._call("GetModelStatus", request, target, timeout)
        return [
            VersionStatus(
                row.version,
                protos.enum_name("tensorflow.serving.ModelVersionStatus.State", row.state),
                protos.enum_name("tensorflow.error.Code", row.status.error_code),
                row.status.error_message,
            )
            for row in response.model_version_status
        ]

    def _metadata(self, target: Target, timeout: float) -> ModelMetadata:
        request = protos.GetModelMetadataRequest(metadata_field=["signature_def"])
        self._name(request.model_spec, target)
        response = self._call("GetModelMetadata", request, target, timeout)
        signatures = protos.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        spec = response.model_spec
        return ModelMetadata(spec.name, spec.version.value, signatures_from(signatures.signature_def))

    def _name(self, spec: Any, target: Target) -> None:
        spec.name = target.model
        if target.version is not None:
            spec.version.value = target.version
        elif target.label is not None:
            spec.version_label = target.label

    def _call(self, name: str, request: Any, target: Target, timeout: float, **more: object) -> Any:
        where = {"wire": "gRPC", "address": self.address, "method": name, **more}
        try:
            return self._stub(name)(request, timeout=timeout)
        except grpc.RpcError as error:
            code, details = error.code().name, error.details() or ""
            if code == "UNAVAILABLE" and _NOT_REACHED.search(details):
                code = "UNREACHABLE"
                details = f"cannot reach {self.address}: {details}"
            elif code == "DEADLINE_EXCEEDED":
                details = f"no answer within {timeout:g} s ({details})"
            elif code == "CANCELLED" and self._closed:
                code, details = "UNREACHABLE", _CLOSED
            raise call_error(code, details, target, where) from None
        except ValueError:
            # What gRPC says of a closed channel.
            raise call_error("UNREACHABLE", _CLOSED, target, where) from None

    def _stub(self, name: str) -> Any:
        stub = self._stubs.get(name)
        if stub is None:
            rpc = protos.RPCS[name]
            response = protos.message_class(f"tensorflow.serving.{rpc.response}")
            stub = self._channel.unary_unary(
                rpc.path, request_serializer=_serialized, response_deserializer=response.FromString
            )
            self._stubs[name] = stub
        return stub


def _serialized(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content
