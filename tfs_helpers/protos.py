"""The serving protos, from a descriptor set that the package ships: no TensorFlow needed, none imported.

    request = protos.PredictRequest()
    request.model_spec.name = "half_plus_two"

Every message is an attribute of this module, by its short name. The classes
live in a descriptor pool of their own, so a process that uses them can still
import `tensorflow`, whatever its version; on the wire they are the same.
`scripts/make_protos.py` makes the set from `tensorflow-serving-api`.
"""

from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = ["RPCS", "Rpc", "enum_name", "enum_value", "message_class", "pool"]

_PACKAGES = ("tensorflow.serving", "tensorflow", "google.protobuf")


@cache
def pool() -> descriptor_pool.DescriptorPool:
    """The private pool, filled on first use (about 10 ms)."""
    private = descriptor_pool.DescriptorPool()
    content = files("tfs_helpers").joinpath("serving.binpb").read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        private.Add(file)
    return private


@cache
def message_class(full_name: str) -> Any:
    """The class of the message `full_name`, such as `tensorflow.serving.PredictRequest`.

    Raises:
        KeyError: there is no such message.
    """
    return message_factory.GetMessageClass(pool().FindMessageTypeByName(full_name))


@cache
def _enum(full_name: str) -> Any:
    return pool().FindEnumTypeByName(full_name)


def enum_name(enum: str, number: int) -> str:
    """The name of a value of the enum `tensorflow.DataType`, say; the number as text where it has none."""
    value = _enum(enum).values_by_number.get(number)
    return str(number) if value is None else str(value.name)


def enum_value(enum: str, name: str) -> int:
    """The number of `name` in an enum.

    Raises:
        KeyError: there is no such name.
    """
    return int(_enum(enum).values_by_name[name].number)


class Rpc(NamedTuple):
    """One method of the two services: where it is called, and what it takes and gives."""

    service: str
    name: str
    request: str
    response: str

    @property
    def path(self) -> str:
        """The path that gRPC calls: `/tensorflow.serving.PredictionService/Predict`."""
        return f"/tensorflow.serving.{self.service}/{self.name}"


# The service modules of the serving API's wheel do not load under current protobuf, so the seven methods stand here;
# tests hold them to the wheel's own stubs.
RPCS = {
    rpc.name: rpc
    for rpc in (
        Rpc("PredictionService", "Predict", "PredictRequest", "PredictResponse"),
        Rpc("PredictionService", "Classify", "ClassificationRequest", "ClassificationResponse"),
        Rpc("PredictionService", "Regress", "RegressionRequest", "RegressionResponse"),
        Rpc("PredictionService", "MultiInference", "MultiInferenceRequest", "MultiInferenceResponse"),
        Rpc("PredictionService", "GetModelMetadata", "GetModelMetadataRequest", "GetModelMetadataResponse"),
        Rpc("ModelService", "GetModelStatus", "GetModelStatusRequest", "GetModelStatusResponse"),
        Rpc("ModelService", "HandleReloadConfigRequest", "ReloadConfigRequest", "ReloadConfigResponse"),
    )
}


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    for package in _PACKAGES:
        try:
            found = message_class(f"{package}.{name}")
        except KeyError:
            continue
        globals()[name] = found
        return found
    raise AttributeError(f"there is no message {name!r} among the serving protos")
