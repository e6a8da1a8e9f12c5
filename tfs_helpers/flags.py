"""The 48 flags of `tensorflow_model_server` 2.20, in the one place that lists them.

The real server takes `--name=value` only, and starts all the same when it does
not know a flag; so a misspelt one has no effect and nobody notices. Here it is
found before anything starts.
"""

import difflib
import math
from collections.abc import Collection
from dataclasses import dataclass

from tfs_helpers.errors import ConfigError

__all__ = ["FLAGS", "Flag", "Value", "nearest", "option"]

Value = str | int | float | bool


@dataclass(frozen=True)
class Flag:
    """One flag.

    Attributes:
        name: without the dashes.
        type: `int32`, `int64`, `bool`, `float` or `string`.
        default: what holds when it is not given; None where it is counted from the machine's processors.
        meaning: one line.
    """

    name: str
    type: str
    default: Value | None
    meaning: str

    def parse(self, text: str) -> Value:
        """The value that the real server reads from `--name=text`.

        Raises:
            ValueError: it cannot; the real server then prints its usage and ends with 255.
        """
        if self.type == "string":
            return text
        if self.type == "bool":
            if text.lower() in {"true", "1"}:
                return True
            if text.lower() in {"false", "0"}:
                return False
            raise ValueError(f"{text!r} is neither true nor false")
        if not text.isascii() or "_" in text or text != text.strip():
            raise ValueError(f"{text!r} is no {self.type}")
        try:
            number = float(text) if self.type == "float" else int(text)
        except ValueError:
            raise ValueError(f"{text!r} is no {self.type}") from None
        bits = 31 if self.type == "int32" else 63
        if isinstance(number, int) and not -(2**bits) <= number < 2**bits:
            raise ValueError(f"{text} does not fit {self.type}")
        return number

    def write(self, value: Value) -> str:
        """The text that goes after `--name=`.

        Raises:
            ValueError: `value` is not of this flag's type.
        """
        fits = {"string": (), "bool": (bool,), "float": (int, float)}.get(self.type, (int,))
        if not isinstance(value, (str, *fits)) or (isinstance(value, bool) and self.type != "bool"):
            raise ValueError(f"it is no {self.type}")
        text = ("true" if value else "false") if isinstance(value, bool) else str(value)
        parsed = self.parse(text)
        if isinstance(parsed, float) and not math.isfinite(parsed):
            raise ValueError("it is no finite number")
        if "\0" in text:
            raise ValueError("it holds a null character")
        return text


FLAGS: dict[str, Flag] = {
    flag.name: flag
    for flag in (
        Flag("port", "int32", 8500, "The gRPC port; 0 for none, when there is a socket path."),
        Flag("grpc_socket_path", "string", "", "A UNIX socket on which gRPC listens too."),
        Flag("rest_api_port", "int32", 0, "The REST port; 0 leaves REST off."),
        Flag("rest_api_num_threads", "int32", None, "Threads for REST, one of which only accepts connections."),
        Flag("rest_api_timeout_in_ms", "int32", 30000, "How long one REST call may run; 0 or less for no limit."),
        Flag("rest_api_enable_cors_support", "bool", False, "Let web pages of other origins call REST."),
        Flag("enable_batching", "bool", False, "Run the requests of several callers as one batch."),
        Flag(
            "allow_version_labels_for_unavailable_models",
            "bool",
            False,
            "Accept a new label for a version that is not loaded yet; labels in the first config need it.",
        ),
        Flag("batching_parameters_file", "string", "", "How to batch: a text file; needs enable_batching."),
        Flag(
            "enable_per_model_batching_parameters",
            "bool",
            False,
            "Read batching_params.pbtxt from each version's folder.",
        ),
        Flag("model_config_file", "string", "", "Several models, policies and labels: a text file."),
        Flag(
            "model_config_file_poll_wait_seconds",
            "int32",
            0,
            "Read and apply the model config again every so many seconds; 0 for never.",
        ),
        Flag("model_name", "string", "default", "What clients call the one model."),
        Flag("model_base_path", "string", "", "The folder with the one model's version folders: absolute, or a URI."),
        Flag("num_load_threads", "int32", 0, "Threads that load versions; 0 loads in the managing thread itself."),
        Flag("num_unload_threads", "int32", 0, "Threads that unload versions; 0 as for loading."),
        Flag("max_num_load_retries", "int32", 5, "How often a failed load is tried again."),
        Flag(
            "load_retry_interval_micros",
            "int64",
            60000000,
            "The pause between two tries to load, in microseconds; negative for none.",
        ),
        Flag(
            "file_system_poll_wait_seconds",
            "int32",
            1,
            "Look for new versions every so many seconds; 0 looks once, a negative number never.",
        ),
        Flag("flush_filesystem_caches", "bool", True, "Give up the file caches that loading has filled."),
        Flag(
            "tensorflow_session_parallelism",
            "int64",
            0,
            "Threads within and between operations, both at once; 0 for automatic.",
        ),
        Flag("tensorflow_session_config_file", "string", "", "TensorFlow's own ConfigProto: a text file."),
        Flag("tensorflow_intra_op_parallelism", "int64", 0, "Threads within one operation; 0 for automatic."),
        Flag("tensorflow_inter_op_parallelism", "int64", 0, "Operations that run side by side; 0 for automatic."),
        Flag("use_alts_credentials", "bool", False, "Secure gRPC by Google's ALTS."),
        Flag("ssl_config_file", "string", "", "Keys and certificates for gRPC over TLS: a text file."),
        Flag("platform_config_file", "string", "", "Replace the whole TensorFlow platform config: a text file."),
        Flag("per_process_gpu_memory_fraction", "float", 0.0, "The part of GPU memory to take; 0 leaves it to TF."),
        Flag("saved_model_tags", "string", "serve", "The tags of the graph to load, with commas between them."),
        Flag("grpc_channel_arguments", "string", "", "Settings of the gRPC library: key=value,key=value."),
        Flag("grpc_max_threads", "int32", None, "The most threads that gRPC may use."),
        Flag("enable_model_warmup", "bool", True, "Replay a version's warm-up requests before it becomes AVAILABLE."),
        Flag("num_request_iterations_for_warmup", "int32", 0, "How often each warm-up request is replayed; 0 is once."),
        Flag("version", "bool", False, "Print the version and end."),
        Flag("monitoring_config_file", "string", "", "Prometheus metrics on the REST port: a text file."),
        Flag(
            "remove_unused_fields_from_bundle_metagraph",
            "bool",
            True,
            "Keep the signatures of a loaded graph and drop the rest.",
        ),
        Flag("prefer_tflite_model", "bool", False, "Serve a version's model.tflite, where there is one."),
        Flag("num_tflite_pools", "int32", None, "Pools of TF Lite interpreters."),
        Flag("num_tflite_interpreters_per_pool", "int32", 1, "Interpreters in each of these pools."),
        Flag(
            "enable_signature_method_name_check",
            "bool",
            False,
            "Refuse a signature whose method name does not fit the call.",
        ),
        Flag("xla_cpu_compilation_enabled", "bool", False, "Compile graphs for the CPU by XLA."),
        Flag("xla_gpu_compilation_enabled", "bool", False, "Compile graphs for CPU and GPU by XLA."),
        Flag("enable_profiler", "bool", True, "Offer TensorFlow's profiler on the gRPC port."),
        Flag("thread_pool_factory_config_file", "string", "", "Where operations get their threads: a text file."),
        Flag("mixed_precision", "string", "", "Compute in a smaller type; bfloat16 is the only one."),
        Flag("skip_initialize_tpu", "bool", False, "Leave TPUs alone."),
        Flag("enable_grpc_healthcheck_service", "bool", False, "Offer gRPC's standard health service."),
        Flag(
            "enable_serialization_as_tensor_content",
            "bool",
            False,
            "Answer gRPC Predict in tensor_content instead of typed fields.",
        ),
    )
}


def nearest(name: str, known: Collection[str] = FLAGS) -> str | None:
    """The flag that somebody who wrote `name` most likely meant, or None.

    Args:
        name: as written, with or without dashes before it or between its words.
        known: the flags that there are.
    """
    words = name.strip().lstrip("-").partition("=")[0].lower().replace("-", "_")
    words = {"grpc_port": "port", "http_port": "rest_api_port"}.get(words, words)
    if words in known:
        return words
    # What people remember of a long name are words of it (max_retries); then there are slips of the hand.
    parts = set(words.split("_")) - {""}
    holding = [flag for flag in known if parts and parts <= set(flag.split("_"))]
    return min(holding, key=len, default=None) or next(iter(difflib.get_close_matches(words, known, n=1)), None)


def option(name: str, value: Value) -> str:
    """One flag as it is typed: `--name=value`.

    Raises:
        ConfigError: there is no such flag, or the value is not of its type.
    """
    flag = FLAGS.get(name)
    if flag is None:
        near = nearest(name)
        raise ConfigError(
            f"The server has no flag {name!r}.",
            "It would start all the same, without what you asked for.",
            f"Did you mean {near}?" if near else "The flags are listed in tfs_helpers.flags.FLAGS.",
        )
    try:
        return f"--{name}={flag.write(value)}"
    except ValueError as error:
        raise ConfigError(
            f"The flag {name} cannot be {value!r}: {error}.",
            f"{flag.meaning} It takes {_TYPES[flag.type]}.",
            f"Its default is {flag.write(flag.default)!r}." if flag.default not in {None, ""} else "",
        ) from error


_TYPES = {
    "int32": "a whole number",
    "int64": "a whole number",
    "bool": "True or False",
    "float": "a number",
    "string": "text",
}
