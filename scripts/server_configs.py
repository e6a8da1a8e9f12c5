"""The configuration files of a server whose protos the `tensorflow-serving-api` wheel leaves out.

Such files are text, and text names its fields, so their names and types are
what counts here; the numbers are the real ones where we know them (session_bundle_config.proto,
ssl_config.proto and monitoring_config.proto of TensorFlow Serving), and follow on where we do not.
"""

from google.protobuf import descriptor_pb2

__all__ = ["server_configs"]

_PACKAGE = "tensorflow.serving"
_WRAPPERS = "google.protobuf"
# message: {field: type}; `*` repeats, a capital is a message.
_MESSAGES = {
    "PrometheusConfig": {"enable": "bool", "path": "string"},
    "MonitoringConfig": {"prometheus_config": "PrometheusConfig"},
    "SSLConfig": {"server_key": "string", "server_cert": "string", "custom_ca": "string", "client_verify": "bool"},
    "BatchingParameters": {
        "max_batch_size": f"{_WRAPPERS}.Int64Value",
        "batch_timeout_micros": f"{_WRAPPERS}.Int64Value",
        "max_enqueued_batches": f"{_WRAPPERS}.Int64Value",
        "num_batch_threads": f"{_WRAPPERS}.Int64Value",
        "thread_pool_name": f"{_WRAPPERS}.StringValue",
        "allowed_batch_sizes": "*int64",
        "pad_variable_length_inputs": "bool",
        "enable_large_batch_splitting": f"{_WRAPPERS}.BoolValue",
        "max_execution_batch_size": f"{_WRAPPERS}.Int64Value",
    },
    "ModelWarmupOptions": {"num_request_iterations": f"{_WRAPPERS}.Int32Value"},
    "SessionBundleConfig": {
        "session_target": "string",
        "session_config": "tensorflow.ConfigProto",
        "batching_parameters": "BatchingParameters",
        "session_run_load_threadpool_index": f"{_WRAPPERS}.Int32Value",
        "experimental_transient_ram_bytes_during_load": "uint64",
        "saved_model_tags": "*string",
        "enable_model_warmup": "bool",
        "model_warmup_options": "ModelWarmupOptions",
        "enable_session_metadata": "bool",
        "remove_unused_fields_from_bundle_metagraph": "bool",
        "prefer_tflite_model": "bool",
        "num_tflite_interpreters_per_pool": "int32",
        "num_tflite_pools": "int32",
        "wrap_session_with_no_threading_params": "bool",
        "enable_per_model_batching_params": "bool",
        "mixed_precision": "string",
    },
    "SavedModelBundleSourceAdapterConfig": {"legacy_config": "SessionBundleConfig"},
    "ThreadPoolFactoryConfig": {"thread_pool_factory_config": f"{_WRAPPERS}.Any"},
}
_NUMBERS = {"experimental_transient_ram_bytes_during_load": 5, "enable_model_warmup": 779, "legacy_config": 1000}


def server_configs() -> bytes:
    """A serialized FileDescriptorProto."""
    file = descriptor_pb2.FileDescriptorProto(
        name="tfs_helpers/server_configs.proto",
        package=_PACKAGE,
        syntax="proto3",
        dependency=[
            "google/protobuf/any.proto",
            "google/protobuf/wrappers.proto",
            "tensorflow/core/protobuf/config.proto",
        ],
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        number = 0
        for field, type_name in fields.items():
            number = _NUMBERS.get(field, number + 1)
            _add_field(message, field, number, type_name)
    serialized: bytes = file.SerializeToString(deterministic=True)
    return serialized


def _add_field(message: descriptor_pb2.DescriptorProto, name: str, number: int, type_name: str) -> None:
    kinds = descriptor_pb2.FieldDescriptorProto
    bare = type_name.lstrip("*")
    added = message.field.add(name=name, number=number)
    added.label = kinds.LABEL_REPEATED if type_name.startswith("*") else kinds.LABEL_OPTIONAL
    if bare.islower() and "." not in bare:
        added.type = getattr(kinds, f"TYPE_{bare.upper()}")
    else:
        added.type = kinds.TYPE_MESSAGE
        added.type_name = f".{bare}" if "." in bare else f".{_PACKAGE}.{bare}"
