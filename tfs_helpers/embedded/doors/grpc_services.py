"""What stands beside the serving API on the gRPC port: health, reflection, and the bound on calls."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from tfs_helpers import protos

__all__ = ["CallLimit", "Health", "UnknownMethod", "add_health", "add_reflection"]

# Not the services' full names: server.cc.
_HEALTHY = ("", "ModelService", "PredictionService")


class CallLimit(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """The handlers of unary calls, of which so many are inside at the same time.

    Args:
        handlers: they answer the calls.
        most: how many calls.
        named: the flag or the limit that says so, for who is refused.
    """

    def __init__(self, handlers: Iterable[grpc.GenericRpcHandler], most: int, named: str) -> None:
        self._handlers = list(handlers)
        self._most = most
        self._words = f"The server answers {most} calls already, as many as {named} allows. Try again later."
        self._inside = 0
        self._methods: dict[str, Any] = {}

    def service(self, details: Any) -> Any:
        """The handler of one call; None where there is no such method."""
        known = self._methods.get(details.method)
        if known is not None:
            return known
        for handler in self._handlers:
            found = handler.service(details)
            if found is not None:
                counted = grpc.unary_unary_rpc_method_handler(self._counted(found.unary_unary))
                self._methods[details.method] = counted
                return counted
        return None

    def _counted(self, answer: Callable[[bytes, Any], Awaitable[bytes]]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def counted(request: bytes, context: Any) -> bytes:
            if self._inside >= self._most:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, self._words)
            self._inside += 1
            try:
                return await answer(request, context)
            finally:
                self._inside -= 1

        return counted


class UnknownMethod(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Refuses what no other handler knows without a word, as gRPC's C++ side does (server_cc.cc)."""

    def service(self, _details: Any) -> Any:
        """A handler for any call."""
        return grpc.unary_unary_rpc_method_handler(self._refuse)

    async def _refuse(self, _request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "")
        raise AssertionError("abort always raises")


class Health(health.aio.HealthServicer):  # type: ignore[misc]  # it has no types
    """grpc.health.v1.Health; `enter_graceful_shutdown` tells everybody who watches, and ends the watching."""

    def __init__(self) -> None:
        super().__init__()
        self._closing = asyncio.Event()

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Tell the state of a service."""
        if request.service not in self._server_status:
            await context.abort(grpc.StatusCode.NOT_FOUND, "service name unknown")
        return await super().Check(request, context)

    # The library's streams never end, and a server that stops would wait for them to its last second of grace.
    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        """Tell the state of a service now, and whenever it changes."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            await asyncio.wait((watching, closing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            closing.cancel()
            watching.cancel()

    async def enter_graceful_shutdown(self) -> None:
        """NOT_SERVING for ever."""
        await super().enter_graceful_shutdown()
        # What was waked writes its last state first.
        for _ in range(10):
            await asyncio.sleep(0)
        self._closing.set()


async def add_health(server: Any) -> Health:
    """Add the standard health service: everything serves."""
    servicer = Health()
    for service in _HEALTHY:
        await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    return servicer


def add_reflection(server: Any, *, has_health: bool) -> None:
    """Add the reflection service, by which clients such as grpcurl find the others."""
    names = sorted({f"tensorflow.serving.{rpc.service}" for rpc in protos.RPCS.values()})
    names.append(reflection.SERVICE_NAME)
    if has_health:
        names.append(health.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names, pool=_described())
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)


def _described() -> descriptor_pool.DescriptorPool:
    """The private pool of protos, and in it what the set on disk leaves out: the services."""
    pool = protos.pool()
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for rpc in protos.RPCS.values():
        snake = {"PredictionService": "prediction_service", "ModelService": "model_service"}[rpc.service]
        file = files.setdefault(
            rpc.service,
            descriptor_pb2.FileDescriptorProto(
                name=f"tensorflow_serving/apis/{snake}.proto", package="tensorflow.serving", syntax="proto3"
            ),
        )
        if not file.service:
            file.service.add(name=rpc.service)
        method = file.service[0].method.add(name=rpc.name)
        for side, message in (("input_type", rpc.request), ("output_type", rpc.response)):
            setattr(method, side, f".tensorflow.serving.{message}")
            home = pool.FindFileContainingSymbol(f"tensorflow.serving.{message}").name
            if home not in file.dependency:
                file.dependency.append(home)
    for file in files.values():
        pool.Add(file)
    for module in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return pool
