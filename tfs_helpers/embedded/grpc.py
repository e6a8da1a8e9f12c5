"""The gRPC door: bytes in and out through generic handlers, `inference` on the inside."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any

import grpc

from tfs_helpers import protos
from tfs_helpers.embedded.inference import InferenceService
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["GrpcDoor"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_MOST_WORDS = 1024

Call = Callable[[bytes, float | None], bytes]


class GrpcDoor:
    """Answers gRPC calls of PredictionService and ModelService.

    Args:
        service: what answers them.
        executor: the threads that inference runs on.
    """

    def __init__(self, service: InferenceService, executor: Executor) -> None:
        self._service = service
        self._executor = executor

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """The handlers to add to a `grpc.aio` server."""
        calls: dict[str, Call] = {
            "Predict": self._answering("PredictRequest", self._service.predict),
            "Classify": self._answering("ClassificationRequest", self._service.classify),
            "Regress": self._answering("RegressionRequest", self._service.regress),
            "MultiInference": self._answering("MultiInferenceRequest", self._service.multi_inference),
            "GetModelMetadata": self._metadata,
            "GetModelStatus": self._status,
            "HandleReloadConfigRequest": self._reload,
        }
        services: dict[str, dict[str, Any]] = {}
        for name, call in calls.items():
            rpc = protos.RPCS[name]
            handler = grpc.unary_unary_rpc_method_handler(self._handler(name, call))
            services.setdefault(f"tensorflow.serving.{rpc.service}", {})[name] = handler
        return [grpc.method_handlers_generic_handler(service, methods) for service, methods in services.items()]

    def _handler(self, name: str, call: Call) -> Callable[[bytes, Any], Any]:
        async def handle(request: bytes, context: Any) -> bytes:
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(self._executor, call, request, context.time_remaining())
            except ServingError as error:
                await context.abort(_CODES[int(error.code)], _shortened(error.message))
            except Exception as error:
                log.exception("A %s request broke the server", name)
                await context.abort(grpc.StatusCode.INTERNAL, f"Internal error: {type(error).__name__}")
            raise AssertionError("abort always raises")

        return handle

    def _answering(self, name: str, answer: Callable[[Any, float | None], Any]) -> Call:
        def call(request: bytes, remaining: float | None) -> bytes:
            return _bytes(answer(_parsed(name, request), remaining))

        return call

    def _metadata(self, request: bytes, _remaining: float | None) -> bytes:
        return _bytes(self._service.metadata_response(_parsed("GetModelMetadataRequest", request)))

    def _status(self, request: bytes, _remaining: float | None) -> bytes:
        return _bytes(self._service.status_response(_parsed("GetModelStatusRequest", request)))

    def _reload(self, request: bytes, remaining: float | None) -> bytes:
        config = _parsed("ReloadConfigRequest", request).config
        if config.WhichOneof("config") != "model_config_list":
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported",
            )
        deadline = None if remaining is None else time.monotonic() + remaining
        self._service.core.reload(config, deadline=deadline)
        response = protos.ReloadConfigResponse()
        response.status.SetInParent()
        return _bytes(response)


def _parsed(name: str, request: bytes) -> Any:
    try:
        return protos.message_class(f"tensorflow.serving.{name}").FromString(request)
    except Exception as error:
        raise ServingError(Code.INTERNAL, "Error parsing the request") from error


def _bytes(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


def _shortened(words: str) -> str:
    """At most 1024 characters, as the real server cuts them (grpc_status_util.cc)."""
    return words if len(words) <= _MOST_WORDS else words[:_MOST_WORDS] + "...TRUNCATED"
