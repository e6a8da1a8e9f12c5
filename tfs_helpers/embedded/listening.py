"""Opening the two ports."""

import asyncio
import logging
from concurrent.futures import Executor
from typing import Any

from tfs_helpers.embedded.inference import InferenceService
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.options import Options
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["GRACE_SECONDS", "open_grpc", "open_rest"]

GRACE_SECONDS = 3.0
_MOST_MESSAGE_BYTES = 2**31 - 1


async def open_grpc(service: InferenceService, executor: Executor, options: Options) -> Any:
    import grpc.aio

    from tfs_helpers.embedded.grpc import GrpcDoor

    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", _MOST_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MOST_MESSAGE_BYTES),
        ]
    )
    server.add_generic_rpc_handlers(GrpcDoor(service, executor).handlers())
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{host}:{options.number('port')}"
    try:
        server.add_insecure_port(address)
        await server.start()
    except RuntimeError:
        log.error("Cannot listen on %s: another program does, or it is no address of this machine", address)
        raise ServingError(Code.UNKNOWN, "Failed to BuildAndStart gRPC server") from None
    log.info("Running gRPC ModelServer at %s ...", address)
    return server


async def open_rest(service: InferenceService, executor: Executor, options: Options) -> Any:
    port = options.number("rest_api_port")
    if not port:
        return None
    if port == options.number("port"):
        log.error(
            "server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST API. "
            "Skipped exporting HTTP/REST API."
        )
        return None
    from aiohttp import web

    from tfs_helpers.embedded.rest import RestDoor

    millis = options.number("rest_api_timeout_in_ms")
    door = RestDoor(
        service,
        executor,
        timeout=millis / 1000 if millis > 0 else None,
        cors=options.flag("rest_api_enable_cors_support"),
    )

    def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_MOST_MESSAGE_BYTES)

    loop = asyncio.get_running_loop()
    # It logs a traceback for each request that is no HTTP. Such requests are answered with 400, and are no news.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    server = web.Server(door.handle, request_factory=make_request, access_log=None, auto_decompress=False)
    runner = web.ServerRunner(server)
    await runner.setup()
    try:
        await web.TCPSite(runner, options.host, port, shutdown_timeout=GRACE_SECONDS).start()
    except OSError as error:
        log.error("Failed to start HTTP Server at %s:%d: %s", options.host, port, error.strerror)
        await runner.cleanup()
        return None
    log.info("Exporting HTTP/REST API at:%s:%d ...", options.host, port)
    return runner
