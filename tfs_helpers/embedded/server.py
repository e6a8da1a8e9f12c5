"""The server as a whole: from its options to two open ports, and back to silence."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tfs_helpers import protos
from tfs_helpers.embedded.core import ServerCore
from tfs_helpers.embedded.inference import InferenceService
from tfs_helpers.embedded.library import load_library
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.model_config import read_text_proto, single_model
from tfs_helpers.embedded.options import Options
from tfs_helpers.embedded.servable import LoadOptions
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["serve"]

_GRACE_SECONDS = 3.0
_MOST_MESSAGE_BYTES = 2**31 - 1
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def serve(options: Options) -> None:
    """Run a server until a SIGTERM or SIGINT; calls that are inside then may finish.

    Raises:
        ServingError: it cannot start; the words are the real server's.
    """
    _check(options)
    for name in options.without_effect():
        log.warning("--%s has no effect in the embedded server", name)
    config = _read_config(options)
    stopping = threading.Event()
    wake: list[Callable[[], None]] = []

    def stop(_number: int, _frame: object) -> None:
        stopping.set()
        for call in wake:
            call()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    core = _core(options)
    load_library()
    # Importing the doors takes as long as loading a model: both at once. Before the library, both would be in memory
    # at its peak.
    doors = threading.Thread(target=_import_doors)
    doors.start()
    core.start()
    failure: list[ServingError] = []
    first = threading.Thread(target=_load_first, args=(core, config, failure), daemon=True)
    first.start()
    while first.is_alive() and not stopping.is_set():
        first.join(0.05)
    doors.join()
    if stopping.is_set() or failure:
        core.close()
        if failure:
            raise failure[0]
        return
    _run_loop(core, options, stopping, wake)


def _check(options: Options) -> None:
    if not options.number("port") and not options.text("grpc_socket_path"):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.",
        )
    for name in ("port", "rest_api_port"):
        if options.number(name) not in range(2**16):
            raise ServingError(Code.INVALID_ARGUMENT, f"--{name}={options.number(name)} is no port: 0 to 65535")
    if options.text("ssl_config_file") or options.flag("use_alts_credentials"):
        # Going on without would send in the clear what was to be secret.
        raise ServingError(
            Code.UNIMPLEMENTED, "The embedded server has no TLS; leave out --ssl_config_file, or run the real server"
        )
    if not options.text("model_base_path") and not options.text("model_config_file"):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "Both server_options.model_base_path and server_options.model_config_file are empty!",
        )
    if options.text("batching_parameters_file") and not options.flag("enable_batching"):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "server_options.batching_parameters_file is set without setting server_options.enable_batching to true.",
        )


def _read_config(options: Options) -> Any:
    path = options.text("model_config_file")
    if path:
        return read_text_proto(path, protos.ModelServerConfig())
    return single_model(options.text("model_name"), options.text("model_base_path"))


def _core(options: Options) -> ServerCore:
    both = options.number("tensorflow_session_parallelism")
    session = protos.ConfigProto(
        intra_op_parallelism_threads=options.number("tensorflow_intra_op_parallelism") or both,
        inter_op_parallelism_threads=options.number("tensorflow_inter_op_parallelism") or both,
    )
    tags = tuple(tag.strip() for tag in options.text("saved_model_tags").split(","))
    pause = max(0.0, options.number("load_retry_interval_micros") / 1e6)
    load = LoadOptions(tags, session.SerializeToString(), options.number("max_num_load_retries"), pause)
    return ServerCore(
        load,
        load_threads=options.number("num_load_threads") or 4 * (os.cpu_count() or 1),
        poll_seconds=options.number("file_system_poll_wait_seconds"),
        labels_may_wait=options.flag("allow_version_labels_for_unavailable_models"),
    )


def _import_doors() -> None:
    import tfs_helpers.embedded.grpc
    import tfs_helpers.embedded.rest  # noqa: F401


def _load_first(core: ServerCore, config: Any, failure: list[ServingError]) -> None:
    try:
        core.reload(config)
    except ServingError as error:
        failure.append(error)


def _run_loop(core: ServerCore, options: Options, stopping: threading.Event, wake: list[Callable[[], None]]) -> None:
    import uvloop

    service = InferenceService(core, as_content=options.flag("enable_serialization_as_tensor_content"))
    seconds = options.number("model_config_file_poll_wait_seconds")
    if seconds > 0 and options.text("model_config_file"):
        follower = threading.Thread(target=_follow_config, args=(core, options, seconds, stopping), daemon=True)
        follower.start()
    try:
        uvloop.run(_serve(service, options, stopping, wake))
    finally:
        core.close()


def _follow_config(core: ServerCore, options: Options, seconds: float, stopping: threading.Event) -> None:
    """Read the config file again and again, and apply it, whether it changed or not, as the real server does."""
    while not stopping.wait(seconds):
        try:
            config = _read_config(options)
        except ServingError as error:
            log.error("Failed to read ModelServerConfig file: %s", error)
            continue
        try:
            core.apply(config)
        except ServingError as error:
            log.error("PollFilesystemAndReloadConfig failed to ReloadConfig: %s", error)


async def _serve(
    service: InferenceService, options: Options, stopping: threading.Event, wake: list[Callable[[], None]]
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def wake_up() -> None:
        loop.call_soon_threadsafe(stop.set)

    wake.append(wake_up)
    if stopping.is_set():
        stop.set()
    if options.host not in _LOOPBACK:
        log.warning(
            "Listening on %s: whoever reaches this machine can call the models and reconfigure the server", options.host
        )
    with ThreadPoolExecutor(max(8, 4 * (os.cpu_count() or 1)), thread_name_prefix="infer") as executor:
        grpc_server = await _open_grpc(service, executor, options)
        rest_runner = await _open_rest(service, executor, options)
        try:
            await stop.wait()
            log.info("Stopping: calls that are inside may finish")
        finally:
            await asyncio.gather(grpc_server.stop(_GRACE_SECONDS), rest_runner.cleanup() if rest_runner else _nothing())


async def _nothing() -> None:
    return None


async def _open_grpc(service: InferenceService, executor: ThreadPoolExecutor, options: Options) -> Any:
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


async def _open_rest(service: InferenceService, executor: ThreadPoolExecutor, options: Options) -> Any:
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
        await web.TCPSite(runner, options.host, port, shutdown_timeout=_GRACE_SECONDS).start()
    except OSError as error:
        log.error("Failed to start HTTP Server at %s:%d: %s", options.host, port, error.strerror)
        await runner.cleanup()
        return None
    log.info("Exporting HTTP/REST API at:%s:%d ...", options.host, port)
    return runner
