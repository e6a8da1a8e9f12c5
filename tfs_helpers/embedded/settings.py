"""What the flags and the files that they name mean, checked as the real server checks them."""

from typing import Any

from tfs_helpers import protos
from tfs_helpers.embedded.loading import LoadOptions
from tfs_helpers.embedded.model_config import single_model
from tfs_helpers.embedded.options import Options
from tfs_helpers.embedded.status import Code, ServingError
from tfs_helpers.embedded.text_proto import read_text_proto

__all__ = ["check_options", "load_options", "read_model_config"]


def check_options(options: Options) -> None:
    """Refuse flags that no server can start with.

    Raises:
        ServingError: in the real server's words.
    """
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


def read_model_config(options: Options) -> Any:
    """The ModelServerConfig that the flags say, from its file or from a name and a base path.

    Raises:
        ServingError: NOT_FOUND or INVALID_ARGUMENT, in the real server's words.
    """
    path = options.text("model_config_file")
    if path:
        return read_text_proto(path, protos.ModelServerConfig())
    return single_model(options.text("model_name"), options.text("model_base_path"))


def load_options(options: Options) -> LoadOptions:
    """How versions are loaded, by the flags."""
    both = options.number("tensorflow_session_parallelism")
    session = protos.ConfigProto(
        intra_op_parallelism_threads=options.number("tensorflow_intra_op_parallelism") or both,
        inter_op_parallelism_threads=options.number("tensorflow_inter_op_parallelism") or both,
    )
    tags = tuple(tag.strip() for tag in options.text("saved_model_tags").split(","))
    pause = max(0.0, options.number("load_retry_interval_micros") / 1e6)
    return LoadOptions(tags, session.SerializeToString(), options.number("max_num_load_retries"), pause)
