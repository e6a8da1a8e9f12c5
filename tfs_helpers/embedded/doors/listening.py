"""Opening the doors: gRPC on a port and a UNIX socket, REST on a port."""

import asyncio
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from tfs_helpers.embedded.answering.inference import InferenceService
from tfs_helpers.embedded.doors.credentials import read_ssl_config, server_credentials
from tfs_helpers.embedded.doors.lanes import Lanes
from tfs_helpers.embedded.doors.limits import Limits, make_room
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.options import Options
from tfs_helpers.embedded.settings import read_metrics_path
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["GRACE_SECONDS", "Checked", "GrpcListener", "RestListener", "check_listening", "open_grpc", "open_rest"]

GRACE_SECONDS = 3.0
_BACKLOG = 4096
_AT_HOME = {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::"}  # noqa: S104  nothing is bound by it
_MOST_PATH_BYTES = 107  # sockaddr_un


class Checked(NamedTuple):
    """What the files and flags for the doors say, read once.

    Attributes:
        ssl: an SSLConfig proto; None for no TLS.
        channel_arguments: for gRPC.
        metrics_path: where Prometheus finds its page; None for nowhere.
    """

    ssl: Any
    channel_arguments: dict[str, int | str]
    metrics_path: str | None


def check_listening(options: Options) -> Checked:
    """Look at all that the doors need, before models are loaded for nothing.

    Raises:
        ServingError: they could not be opened.
    """
    if len(os.fsencode(options.text("grpc_socket_path"))) > _MOST_PATH_BYTES:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"--grpc_socket_path is longer than {_MOST_PATH_BYTES} bytes, the most for a socket"
        )
    return Checked(read_ssl_config(options), _channel_arguments(options), read_metrics_path(options))


class GrpcListener:
    """The open gRPC door."""

    def __init__(self, server: Any, health: Any, limits: Limits) -> None:
        self._server = server
        self._health = health
        self._limits = limits

    async def stop(self, grace: float) -> None:
        """Tell those who watch the server's health, then let calls that are inside finish, for so many seconds."""
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
            # Time for them to go elsewhere: whoever still calls is answered.
            await asyncio.sleep(self._limits.notice_seconds)
        await self._server.stop(grace)


async def open_grpc(
    service: InferenceService, lanes: Lanes, options: Options, checked: Checked, limits: Limits
) -> GrpcListener:
    """Open the gRPC door.

    Raises:
        ServingError: it cannot be opened.
    """
    import grpc.aio

    from tfs_helpers.embedded.doors.grpc import GrpcDoor
    from tfs_helpers.embedded.doors.grpc_services import CallLimit, UnknownMethod, add_health, add_reflection

    # Whoever names an argument on the command line has the last word.
    arguments = {**_bounds(limits), **checked.channel_arguments}
    server = grpc.aio.server(options=list(arguments.items()))
    handlers = CallLimit(GrpcDoor(service, lanes).handlers(), *_most_calls(options, limits))
    server.add_generic_rpc_handlers([handlers])
    health = await add_health(server) if options.flag("enable_grpc_healthcheck_service") else None
    add_reflection(server, has_health=health is not None)
    server.add_generic_rpc_handlers([UnknownMethod()])  # the last: asked where no other knows the method
    config = checked.ssl
    log.info("Using %sServerCredentials", "Insecure" if config is None else "Ssl")
    path = options.text("grpc_socket_path")
    host = f"[{options.host}]" if ":" in options.host else options.host
    address = f"{host}:{options.number('port')}"
    if options.number("port"):
        _add_port(server, address, config)
    if path:
        with _fresh_socket(path):
            _add_port(server, f"unix:{path}", config)
    await server.start()
    if options.number("port"):
        log.info("Running gRPC ModelServer at %s ...", address)
    if path:
        log.info("Running gRPC ModelServer at UNIX socket %s ...", path)
    return GrpcListener(server, health, limits)


def _bounds(limits: Limits) -> dict[str, int | str]:
    """The limits in gRPC's names; its own defaults bound headers (16 KiB) and pings (two in five minutes)."""
    return {
        "grpc.so_reuseport": 0,
        "grpc.max_receive_message_length": limits.message_bytes,
        "grpc.max_send_message_length": limits.message_bytes,
        "grpc.max_concurrent_streams": limits.streams,
        "grpc.max_allowed_incoming_connections": make_room(limits),
        "grpc.max_connection_idle_ms": int(limits.idle_seconds * 1000),
        "grpc.server_handshake_timeout_ms": int(limits.handshake_seconds * 1000),
    }


def _channel_arguments(options: Options) -> dict[str, int | str]:
    """What --grpc_channel_arguments says: `name=value,name=value`, a number where it is an int32 (server.cc)."""
    arguments: dict[str, int | str] = {}
    for item in filter(None, options.text("grpc_channel_arguments").split(",")):
        name, *values = item.split("=")
        if len(values) != 1 or not name:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"--grpc_channel_arguments holds {item!r}; it is written name=value,name=value"
            )
        arguments[name] = values[0]
        with suppress(ValueError):
            if -(2**31) <= int(values[0]) < 2**31:
                arguments[name] = int(values[0])
    return arguments


def _most_calls(options: Options, limits: Limits) -> tuple[int, str]:
    """How many calls may be inside, and what says so.

    The real server's default of four a core refuses what a handful of clients send at the same time. Here they wait for
    their turn, unless the flag asks for another number.
    """
    most = options.number("grpc_max_threads")
    if most < 1 or most == 4 * (os.cpu_count() or 1):
        return limits.calls, "its limit"
    return most, f"--grpc_max_threads={most}"


def _add_port(server: Any, address: str, config: Any) -> None:
    try:
        if config is None:
            server.add_insecure_port(address)
        else:
            server.add_secure_port(address, server_credentials(config))
    except RuntimeError:
        log.error("Cannot listen on %s: another program does, or it is no address of this machine", address)
        raise ServingError(Code.UNKNOWN, "Failed to BuildAndStart gRPC server") from None


@contextmanager
def _fresh_socket(path: str) -> Iterator[None]:
    """Nothing at `path` that a socket would take away, and a socket made inside is its owner's alone.

    gRPC takes over the socket of whoever listens there. It removes its own when it ends in peace.
    """
    if os.path.lexists(path):
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            log.error("Cannot listen on %s: there is something else than a socket", path)
            raise ServingError(Code.UNKNOWN, "Failed to BuildAndStart gRPC server")
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                log.error("Cannot listen on %s: another program does", path)
                raise ServingError(Code.UNKNOWN, "Failed to BuildAndStart gRPC server")
        log.info("Removing the socket %s, which a server left behind", path)
        Path(path).unlink()
    mask = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(mask)


class RestListener:
    """The open REST door."""

    def __init__(self, server: Any, runner: Any) -> None:
        self._server = server
        self._runner = runner

    async def cleanup(self) -> None:
        """Let requests that are on the way arrive, and those that are inside finish."""
        for site in self._runner.sites:
            await site.stop()
        await self._server.receive(GRACE_SECONDS)
        await self._runner.cleanup()


async def open_rest(
    service: InferenceService,
    lanes: Lanes,
    options: Options,
    checked: Checked,
    limits: Limits,
) -> RestListener | None:
    """Open the REST door; None, and a line in the log, where it stays shut."""
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

    from tfs_helpers.embedded.doors.http_server import HttpServer
    from tfs_helpers.embedded.doors.rest import RestDoor

    # The real server says so wherever it listens.
    address = f"{'localhost' if options.host in _AT_HOME else options.host}:{port}"
    millis = options.number("rest_api_timeout_in_ms")
    door = RestDoor(
        service,
        lanes,
        timeout=millis / 1000 if millis > 0 else None,
        cors=options.flag("rest_api_enable_cors_support"),
        metrics_path=checked.metrics_path,
    )
    if checked.ssl is not None:
        log.warning("--ssl_config_file is for gRPC alone: what goes through the REST port %d is not encrypted", port)
    server = HttpServer(door.handle, limits, make_room(limits))
    runner = web.ServerRunner(server)
    await runner.setup()
    try:
        # A crowd that arrives at once waits here; with aiohttp's 128 places the rest would try again after a second.
        await web.TCPSite(runner, options.host, port, shutdown_timeout=GRACE_SECONDS, backlog=_BACKLOG).start()
    except OSError as error:
        log.error("Failed to start HTTP Server at %s: %s", address, error.strerror)
        await runner.cleanup()
        return None
    log.info("Exporting HTTP/REST API at:%s ...", address)
    log.info("NET_LOG: Entering the event loop ...")
    return RestListener(server, runner)
