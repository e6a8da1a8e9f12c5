"""The gRPC door: bytes in and out through generic handlers, `inference` on the inside."""

import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from tfs_helpers import protos
from tfs_helpers.embedded.answering.inference import InferenceService
from tfs_helpers.embedded.doors.lanes import Lanes
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.models.core import ServerCore
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["GrpcDoor"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_COUNTED = ("Predict", "Classify", "Regress")  # as in prediction_service_impl.cc
_MOST_WORDS = 1024

_LARGE = 2**20

Answer = Callable[[Any, float | None], Any]
Handler = Callable[[bytes, Any], Awaitable[bytes]]


class GrpcDoor:
    """Answers gRPC calls of PredictionService and ModelService.

    Args:
        service: what answers them.
        lanes: where.
    """

    def __init__(self, service: InferenceService, lanes: Lanes) -> None:
        self._service = service
        self._lanes = lanes

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """The handlers to add to a `grpc.aio` server."""
        inferences: dict[str, Answer] = {
            "Predict": self._service.predict,
            "Classify": self._service.classify,
            "Regress": self._service.regress,
            "MultiInference": self._service.multi_inference,
        }
        others: dict[str, Callable[[Any], Any]] = {
            "GetModelMetadata": self._service.metadata_response,
            "GetModelStatus": self._service.status_response,
        }
        calls = {name: self._inference(name, answer) for name, answer in inferences.items()}
        calls |= {name: self._at_once(name, answer) for name, answer in others.items()}
        calls["HandleReloadConfigRequest"] = self._reload
        services: dict[str, dict[str, Any]] = {}
        for name, call in calls.items():
            handler = grpc.unary_unary_rpc_method_handler(_telling_errors(name, call))
            services.setdefault(f"tensorflow.serving.{protos.RPCS[name].service}", {})[name] = handler
        return [grpc.method_handlers_generic_handler(service, methods) for service, methods in services.items()]

    def _inference(self, name: str, answer: Answer) -> Handler:
        parse = _parser(name)

        def work(message: Any, remaining: float | None) -> bytes:
            return _bytes(answer(message, remaining))

        async def handle(request: bytes, context: Any) -> bytes:
            size = len(request)
            message = await self._lanes.on_thread(parse, request) if size > _LARGE else parse(request)
            servable = self._service.core.peek(_spec(message))
            started, code = time.perf_counter(), Code.CANCELLED
            try:
                response = await self._lanes.answer(servable, size, work, message, context.time_remaining())
                code = Code.OK
            except Exception as error:
                code = error.code if isinstance(error, ServingError) else Code.INTERNAL
                raise
            finally:
                if name in _COUNTED:
                    self._count(message.model_spec.name, name, code, time.perf_counter() - started)
            return response

        return handle

    def _count(self, model: str, name: str, code: Code, seconds: float) -> None:
        if code == Code.OK:
            self._service.metrics.latency(model, name, "GRPC", seconds)
        self._service.metrics.request(model, code)

    def _at_once(self, name: str, answer: Callable[[Any], Any]) -> Handler:
        parse = _parser(name)

        async def handle(request: bytes, _context: Any) -> bytes:
            return _bytes(answer(parse(request)))

        return handle

    async def _reload(self, request: bytes, context: Any) -> bytes:
        message = _parser("HandleReloadConfigRequest")(request)
        config, metrics = message.config, self._service.metrics
        before = {path: metrics.first_value(path) for path in message.metric_names}
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        given_up = threading.Event()
        context.add_done_callback(lambda _: given_up.set())
        # A reload may wait for ever for a model that does not come, so it waits where no request does.
        await self._lanes.on_thread(_reload, self._service.core, config, deadline, given_up, lane="reload")
        response = protos.ReloadConfigResponse()
        response.status.SetInParent()
        for path, value in before.items():
            response.metric.add(name=path, int64_value_increase=metrics.first_value(path) - value)
        return _bytes(response)


def _reload(core: ServerCore, config: Any, deadline: float | None, given_up: threading.Event) -> None:
    """Tell what is asked for, and do it (model_service_impl.cc)."""
    try:
        if config.WhichOneof("config") != "model_config_list":
            raise ServingError(
                Code.INVALID_ARGUMENT,
                "ServerModelConfig type not supported by HandleReloadConfigRequest. "
                "Only ModelConfigList is currently supported",
            )
        for index, model in enumerate(config.model_config_list.config):
            log.info(
                "\nConfig entry\n\tindex : %d\n\tpath : %s\n\tname : %s\n\tplatform : %s",
                *(index, model.base_path, model.name, model.model_platform),
            )
        core.reload(config, deadline=deadline, given_up=given_up)
    except ServingError as error:
        log.error("ReloadConfig failed: %s", error.message)
        raise


def _telling_errors(name: str, call: Handler) -> Handler:
    """The same call, with its errors as gRPC's."""

    async def handle(request: bytes, context: Any) -> bytes:
        try:
            return await call(request, context)
        except ServingError as error:
            await context.abort(_CODES[int(error.code)], _shortened(error.message))
        except Exception as error:
            log.exception("A %s request broke the server", name)
            await context.abort(grpc.StatusCode.INTERNAL, f"Internal error: {type(error).__name__}")
        raise AssertionError("abort always raises")

    return handle


def _spec(message: Any) -> Any:
    """The ModelSpec of a request; of its first task, where it has several."""
    tasks = getattr(message, "tasks", None)
    if tasks is None:
        return message.model_spec
    return tasks[0].model_spec if tasks else protos.ModelSpec()


def _parser(name: str) -> Callable[[bytes], Any]:
    """What reads the request of a method."""
    message_class = protos.message_class(f"tensorflow.serving.{protos.RPCS[name].request}")

    def parse(request: bytes) -> Any:
        try:
            return message_class.FromString(request)
        except Exception as error:
            # gRPC's C++ side says no more than that.
            raise ServingError(Code.INTERNAL, "") from error

    return parse


def _bytes(message: Any) -> bytes:
    content: bytes = message.SerializeToString()
    return content


def _shortened(words: str) -> str:
    """At most 1024 characters, as the real server cuts them (grpc_status_util.cc)."""
    return words if len(words) <= _MOST_WORDS else words[:_MOST_WORDS] + "...TRUNCATED"
