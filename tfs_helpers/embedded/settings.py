"""What the flags and the files that they name mean, checked as the real server checks them (server.cc)."""

from typing import Any

from tfs_helpers import protos
from tfs_helpers.embedded.batching.options import BatchingOptions, batching_options
from tfs_helpers.embedded.loading.loader import LoadOptions
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.metrics import monitoring_path
from tfs_helpers.embedded.models.manager import ManagerOptions
from tfs_helpers.embedded.models.model_config import TENSORFLOW, single_model
from tfs_helpers.embedded.options import RESOURCE, Options
from tfs_helpers.embedded.status import Code, ServingError, refused
from tfs_helpers.embedded.text_proto import read_text_proto

__all__ = [
    "check_options",
    "check_thread_pools",
    "manager_options",
    "read_metrics_path",
    "read_model_config",
    "read_platforms",
]


def check_options(options: Options) -> None:
    """Refuse flags that no server can start with.

    Raises:
        ServingError: INVALID_ARGUMENT, in the real server's words.
    """
    if not options.number("port") and not options.text("grpc_socket_path"):
        raise refused(
            "At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.",
        )
    for name in ("port", "rest_api_port"):
        if options.number(name) not in range(2**16):
            raise refused(f"--{name}={options.number(name)} is no port: 0 to 65535")
    if options.flag("use_alts_credentials") and options.text("ssl_config_file"):
        raise refused(
            "Either use_alts_credentials must be false or ssl_config_file must be empty.",
        )
    if options.flag("use_alts_credentials"):
        # Going on without would send in the clear what was to be secret.
        raise ServingError(
            Code.UNIMPLEMENTED,
            "ALTS works inside Google Cloud, and the embedded server does not speak it; use --ssl_config_file",
        )
    if not options.text("model_base_path") and not options.text("model_config_file"):
        raise refused("Both server_options.model_base_path and server_options.model_config_file are empty!")


def read_model_config(options: Options) -> Any:
    """The ModelServerConfig that the flags say, from its file or from a name and a base path.

    Raises:
        ServingError: NOT_FOUND or INVALID_ARGUMENT, in the real server's words.
    """
    path = options.text("model_config_file")
    if path:
        return read_text_proto(path, protos.ModelServerConfig())
    return single_model(options.text("model_name"), options.text("model_base_path"))


def read_metrics_path(options: Options) -> str | None:
    """Where Prometheus finds its page, by `--monitoring_config_file`; None where it is not wanted, or REST is off.

    Raises:
        ServingError: NOT_FOUND or INVALID_ARGUMENT, in the real server's words.
    """
    path = options.text("monitoring_config_file")
    if path and not options.number("rest_api_port"):
        log.warning("--monitoring_config_file is ignored: its page would be on the REST port, and --rest_api_port is 0")
        return None
    return monitoring_path(read_text_proto(path, protos.MonitoringConfig())) if path else None


def manager_options(options: Options) -> ManagerOptions:
    """How versions come and go, by the flags."""
    return ManagerOptions(
        load_threads=options.number("num_load_threads"),
        unload_threads=options.number("num_unload_threads"),
        retries=options.number("max_num_load_retries"),
        pause=max(0.0, options.number("load_retry_interval_micros") / 1e6),
        resource_preserving=options.aspired_version_policy == RESOURCE,
    )


def read_platforms(options: Options) -> dict[str, LoadOptions]:
    """How versions are loaded, by platform: one by the flags, or those of `--platform_config_file`.

    Raises:
        ServingError: in the real server's words.
    """
    path = options.text("platform_config_file")
    if not path:
        return {TENSORFLOW: _by_flags(options)}
    for name in ("enable_batching", "batching_parameters_file", "enable_per_model_batching_parameters"):
        if name in options.given:
            log.warning("--%s is ignored: --platform_config_file says how models are loaded", name)
    config = read_text_proto(path, protos.PlatformConfigMap())
    return {name: _by_adapter(config.platform_configs[name], options) for name in config.platform_configs}


def _by_flags(options: Options) -> LoadOptions:
    batching = _batching_by_flags(options)
    session = protos.ConfigProto()
    if options.text("tensorflow_session_config_file"):
        read_text_proto(options.text("tensorflow_session_config_file"), session)
    intra = options.number("tensorflow_intra_op_parallelism")
    inter = options.number("tensorflow_inter_op_parallelism")
    both = options.number("tensorflow_session_parallelism")
    if intra > 0 and inter > 0 and both > 0:
        raise refused(
            "Either configure server_options.tensorflow_session_parallelism or "
            "(server_options.tensorflow_intra_op_parallelism, server_options.tensorflow_inter_op_parallelism) "
            "separately. You cannot configure all."
        )
    session.intra_op_parallelism_threads = _int32(intra or both) or session.intra_op_parallelism_threads
    session.inter_op_parallelism_threads = _int32(inter or both) or session.inter_op_parallelism_threads
    if (fraction := float(options.values["per_process_gpu_memory_fraction"])) > 0:
        session.gpu_options.per_process_gpu_memory_fraction = fraction
    return LoadOptions(
        tags=tuple((options.text("saved_model_tags") or "serve").split(",")),
        session_config=session.SerializeToString(),
        batching=batching,
        batching_per_model=options.flag("enable_per_model_batching_parameters"),
        warm_up=options.flag("enable_model_warmup"),
        warm_up_iterations=max(1, options.number("num_request_iterations_for_warmup")),
        check_method_names=options.flag("enable_signature_method_name_check"),
    )


def _batching_by_flags(options: Options) -> BatchingOptions | None:
    path = options.text("batching_parameters_file")
    if not options.flag("enable_batching"):
        if path:
            raise refused(
                "server_options.batching_parameters_file is set without setting server_options.enable_batching to true."
            )
        if options.flag("enable_per_model_batching_parameters"):
            log.warning("--enable_per_model_batching_parameters is ignored without --enable_batching")
        return None
    return batching_options(read_text_proto(path, protos.BatchingParameters()) if path else None)


def _by_adapter(platform: Any, options: Options) -> LoadOptions:
    """What a PlatformConfig proto says: its Any holds a SavedModelBundleSourceAdapterConfig."""
    adapter = protos.SavedModelBundleSourceAdapterConfig()
    if not platform.source_adapter_config.Unpack(adapter):
        raise _no_factory(platform.source_adapter_config)
    config = adapter.legacy_config
    warm_up = config.model_warmup_options
    return LoadOptions(
        tags=tuple(config.saved_model_tags) or ("serve",),
        session_config=config.session_config.SerializeToString(),
        batching=batching_options(config.batching_parameters) if config.HasField("batching_parameters") else None,
        batching_per_model=config.enable_per_model_batching_params,
        warm_up=config.enable_model_warmup,
        warm_up_iterations=warm_up.num_request_iterations.value if warm_up.HasField("num_request_iterations") else 1,
        check_method_names=options.flag("enable_signature_method_name_check"),
    )


def check_thread_pools(options: Options) -> None:
    """Refuse `--thread_pool_factory_config_file`, as the real server does: it is built without any such factory.

    Raises:
        ServingError: in the real server's words.
    """
    path = options.text("thread_pool_factory_config_file")
    if path:
        config = read_text_proto(path, protos.ThreadPoolFactoryConfig())
        raise _no_factory(config.thread_pool_factory_config)


def _no_factory(wanted: Any) -> ServingError:
    """What class_registration.h says of a config that nothing is made from."""
    name = wanted.type_url.rpartition("/")[2]
    return refused(
        f"Couldn't find factory for config proto message type {name}\nconfig={wanted.value.decode('latin-1')}"
    )


def _int32(number: int) -> int:
    """As C++ stores an int64 in an int32."""
    return (number + 2**31) % 2**32 - 2**31
