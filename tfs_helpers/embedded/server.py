"""The server as a whole: from its options to two open ports, and back to silence."""

import asyncio
import ctypes
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from tfs_helpers.embedded.answering.inference import InferenceService
from tfs_helpers.embedded.doors.lanes import Lanes
from tfs_helpers.embedded.doors.limits import DEFAULT_LIMITS, Limits
from tfs_helpers.embedded.doors.listening import GRACE_SECONDS, Checked, check_listening, open_grpc, open_rest
from tfs_helpers.embedded.graphs.library import load_library
from tfs_helpers.embedded.loading.loader import Loader
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.metrics import Metrics
from tfs_helpers.embedded.models.core import ServerCore
from tfs_helpers.embedded.options import Options
from tfs_helpers.embedded.settings import (
    check_options,
    check_thread_pools,
    manager_options,
    read_model_config,
    read_platforms,
)
from tfs_helpers.embedded.status import ServingError

__all__ = ["serve"]

_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


def serve(options: Options, limits: Limits = DEFAULT_LIMITS) -> None:
    """Run a server until a SIGTERM or SIGINT; calls that are inside then may finish.

    Args:
        options: what the command line says.
        limits: what clients may do.

    Raises:
        ServingError: it cannot start; the words are the real server's.
    """
    check_options(options)
    for line in options.without_effect():
        log.warning("%s", line)
    config = read_model_config(options)
    metrics = Metrics()
    core = _core(options, metrics)
    checked = check_listening(options)
    stopping = threading.Event()
    wake: list[Callable[[], None]] = []

    def stop(_number: int, _frame: object) -> None:
        stopping.set()
        for call in wake:
            call()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    _heed_xla(load_library(), options)
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
    service = InferenceService(
        core,
        metrics,
        as_content=options.flag("enable_serialization_as_tensor_content"),
        check_method_names=options.flag("enable_signature_method_name_check"),
    )
    _run_loop(core, options, _serve(service, options, checked, limits, stopping, wake), stopping)


def _core(options: Options, metrics: Metrics) -> ServerCore:
    platforms = {name: Loader(how, metrics) for name, how in read_platforms(options).items()}
    check_thread_pools(options)
    return ServerCore(
        platforms,
        manager_options(options),
        poll_seconds=options.number("file_system_poll_wait_seconds"),
        labels_may_wait=options.flag("allow_version_labels_for_unavailable_models"),
    )


def _heed_xla(library: ctypes.CDLL, options: Options) -> None:
    """Without either flag, what is to be compiled by XLA (`jit_compile=True`) fails when it is called (main.cc)."""
    if options.flag("xla_cpu_compilation_enabled") or options.flag("xla_gpu_compilation_enabled"):
        return
    # tensorflow::DisableXlaCompilation(), which the C API does not have.
    disable = getattr(library, "_ZN10tensorflow21DisableXlaCompilationEv", None)
    if disable is None:
        log.warning("This TensorFlow cannot be kept from compiling by XLA; the real server does not without a flag")
    else:
        disable()


def _import_doors() -> None:
    import tfs_helpers.embedded.doors.grpc
    import tfs_helpers.embedded.doors.grpc_services
    import tfs_helpers.embedded.doors.http_server
    import tfs_helpers.embedded.doors.rest  # noqa: F401


def _load_first(core: ServerCore, config: Any, failure: list[ServingError]) -> None:
    try:
        core.serve_first(config)
    except ServingError as error:
        failure.append(error)


def _run_loop(
    core: ServerCore, options: Options, serving: Coroutine[Any, Any, None], stopping: threading.Event
) -> None:
    import uvloop

    seconds = options.number("model_config_file_poll_wait_seconds")
    if seconds > 0 and options.text("model_config_file"):
        follower = threading.Thread(target=_follow_config, args=(core, options, seconds, stopping), daemon=True)
        follower.start()
    try:
        uvloop.run(serving)
    finally:
        core.close()


def _follow_config(core: ServerCore, options: Options, seconds: float, stopping: threading.Event) -> None:
    """Read the config file again and again, and apply it, whether it changed or not, as the real server does."""
    while not stopping.wait(seconds):
        try:
            config = read_model_config(options)
        except ServingError as error:
            log.error("Failed to read ModelServerConfig file: %s", error.message)
            continue
        try:
            core.apply(config)
        except ServingError as error:
            log.error("PollFilesystemAndReloadConfig failed to ReloadConfig: %s", error.message)


async def _serve(
    service: InferenceService,
    options: Options,
    checked: Checked,
    limits: Limits,
    stopping: threading.Event,
    wake: list[Callable[[], None]],
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
    # Not closed at the end: what is inside TensorFlow then has had its time, and may hang.
    lanes = Lanes(max(1, options.number("rest_api_num_threads")))
    grpc_server = await open_grpc(service, lanes, options, checked, limits)
    rest_runner = await open_rest(service, lanes, options, checked, limits)
    try:
        await stop.wait()
        log.info("Stopping: calls that are inside may finish")
    finally:
        await asyncio.gather(grpc_server.stop(GRACE_SECONDS), rest_runner.cleanup() if rest_runner else _nothing())


async def _nothing() -> None:
    return None
