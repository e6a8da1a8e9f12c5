"""The server as a whole: from its options to two open ports, and back to silence."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tfs_helpers.embedded.core import ServerCore
from tfs_helpers.embedded.inference import InferenceService
from tfs_helpers.embedded.library import load_library
from tfs_helpers.embedded.listening import GRACE_SECONDS, open_grpc, open_rest
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.options import Options
from tfs_helpers.embedded.settings import check_options, load_options, read_model_config
from tfs_helpers.embedded.status import ServingError

__all__ = ["serve"]

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def serve(options: Options) -> None:
    """Run a server until a SIGTERM or SIGINT; calls that are inside then may finish.

    Raises:
        ServingError: it cannot start; the words are the real server's.
    """
    check_options(options)
    for name in options.without_effect():
        log.warning("--%s has no effect in the embedded server", name)
    config = read_model_config(options)
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


def _core(options: Options) -> ServerCore:
    return ServerCore(
        load_options(options),
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
            config = read_model_config(options)
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
        grpc_server = await open_grpc(service, executor, options)
        rest_runner = await open_rest(service, executor, options)
        try:
            await stop.wait()
            log.info("Stopping: calls that are inside may finish")
        finally:
            await asyncio.gather(grpc_server.stop(GRACE_SECONDS), rest_runner.cleanup() if rest_runner else _nothing())


async def _nothing() -> None:
    return None
