"""The shipped protos against those of the installed packages: the same bytes on the wire, in one process."""

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorflow.core.framework import tensor_pb2
from tensorflow.core.protobuf import config_pb2, saved_model_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from tfs_helpers import protos

ROOT = Path(__file__).parent.parent
THEIRS = {
    "PredictRequest": predict_pb2,
    "PredictResponse": predict_pb2,
    "ClassificationRequest": classification_pb2,
    "ClassificationResponse": classification_pb2,
    "RegressionRequest": regression_pb2,
    "RegressionResponse": regression_pb2,
    "MultiInferenceRequest": inference_pb2,
    "MultiInferenceResponse": inference_pb2,
    "GetModelMetadataRequest": get_model_metadata_pb2,
    "GetModelMetadataResponse": get_model_metadata_pb2,
    "GetModelStatusRequest": get_model_status_pb2,
    "GetModelStatusResponse": get_model_status_pb2,
    "ReloadConfigRequest": model_management_pb2,
    "ReloadConfigResponse": model_management_pb2,
    "SignatureDefMap": get_model_metadata_pb2,
    "PredictionLog": prediction_log_pb2,
    "TensorProto": tensor_pb2,
    "SavedModel": saved_model_pb2,
    "ModelServerConfig": model_server_config_pb2,
    "RunOptions": config_pb2,
}
SCALARS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}
DEEPEST = 4


def class_of(name: str) -> Any:
    return getattr(THEIRS[name], name)


def scalar(field: Any) -> st.SearchStrategy[Any]:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=8) if field.type == FieldDescriptor.TYPE_BYTES else st.text(max_size=8)
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return SCALARS[field.cpp_type]


def fill(draw: Any, message: Any, depth: int = 0) -> None:
    """Put something into some of the fields of a message, and so down into its parts."""
    fields = [f for f in message.DESCRIPTOR.fields if depth < DEEPEST or f.message_type is None]
    if not fields:
        return
    for field in draw(st.lists(st.sampled_from(fields), max_size=4, unique_by=lambda f: f.name)):
        value = getattr(message, field.name)
        if field.message_type is None:
            if field.is_repeated:
                value.extend(draw(st.lists(scalar(field), max_size=3)))
            else:
                setattr(message, field.name, draw(scalar(field)))
        elif field.message_type.GetOptions().map_entry:
            keys, values = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            for key in draw(st.lists(scalar(keys), max_size=2, unique=True)):
                if values.message_type is None:
                    value[key] = draw(scalar(values))
                else:
                    fill(draw, value[key], depth + 1)
        elif field.is_repeated:
            for _ in range(draw(st.integers(0, 2))):
                fill(draw, value.add(), depth + 1)
        else:
            value.SetInParent()
            fill(draw, value, depth + 1)


@pytest.mark.parametrize("name", THEIRS)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_same_bytes_both_ways(name: str, data: st.DataObject) -> None:
    theirs = class_of(name)()
    fill(data.draw, theirs)
    content = theirs.SerializeToString(deterministic=True)
    ours = getattr(protos, name).FromString(content)
    assert ours.SerializeToString(deterministic=True) == content
    assert class_of(name).FromString(ours.SerializeToString()) == class_of(name).FromString(content)


def test_what_is_drawn_is_not_empty() -> None:
    sizes = []

    @settings(max_examples=50, database=None)
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        message = predict_pb2.PredictRequest()
        fill(data.draw, message)
        sizes.append(message.ByteSize())

    draw()
    assert max(sizes) > 20


@pytest.mark.parametrize("name", THEIRS)
def test_the_same_definition(name: str) -> None:
    """Whatever the messages above do not hold: every file that they are built of is the same, byte for byte."""

    def files(file: Any, into: dict[str, bytes]) -> dict[str, bytes]:
        if file.name not in into:
            into[file.name] = file.serialized_pb
            for dependency in file.dependencies:
                files(dependency, into)
        return into

    assert files(getattr(protos, name).DESCRIPTOR.file, {}) == files(class_of(name).DESCRIPTOR.file, {})


STUB = re.compile(
    r"'(/tensorflow[^']+)',\s+request_serializer=\s*\w+\.\s*(\w+)\.SerializeToString,"
    r"\s+response_deserializer=\s*\w+\.\s*(\w+)\.FromString"
)


def test_the_methods_are_those_of_the_stubs() -> None:
    stubs = prediction_service_pb2_grpc.PredictionServiceStub, model_service_pb2_grpc.ModelServiceStub
    methods = [found for stub in stubs for found in STUB.findall(inspect.getsource(stub))]
    assert len(methods) == 7
    assert sorted(methods) == sorted((rpc.path, rpc.request, rpc.response) for rpc in protos.RPCS.values())
    for name, rpc in protos.RPCS.items():
        assert name == rpc.name
        assert protos.message_class(f"tensorflow.serving.{rpc.request}")


def test_ours_and_theirs_are_other_classes_of_the_same_name() -> None:
    ours, theirs = protos.TensorProto, tensor_pb2.TensorProto
    assert ours is not theirs
    assert ours.DESCRIPTOR.full_name == theirs.DESCRIPTOR.full_name == "tensorflow.TensorProto"
    made = tf.make_tensor_proto([1.0, 2.0])
    assert ours.FromString(made.SerializeToString()).dtype == made.dtype


@pytest.mark.parametrize("first", ["tfs_helpers", "tensorflow"])
def test_one_process_holds_both_in_either_order(first: str) -> None:
    ours = "from tfs_helpers import protos; protos.PredictRequest(); protos.SavedModel()\n"
    theirs = (
        "from make_protos import without_importing_tensorflow; without_importing_tensorflow()\n"
        "from tensorflow_serving.apis import predict_pb2; predict_pb2.PredictRequest()\n"
    )
    code = ours + theirs if first == "tfs_helpers" else theirs + ours
    code += "assert protos.PredictRequest.FromString(predict_pb2.PredictRequest().SerializeToString()) is not None"
    run([sys.executable, "-W", "error", "-c", code], path=[ROOT, ROOT / "scripts"])


def run(line: list[str], path: list[Path]) -> None:
    environment = {"PYTHONPATH": ":".join(map(str, path)), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_shipped_file_is_what_the_script_makes() -> None:
    run([sys.executable, str(ROOT / "scripts" / "make_protos.py"), "--check"], path=[ROOT])


def test_the_script_sees_a_difference(tmp_path: Path) -> None:
    copy = tmp_path / "scripts" / "make_protos.py"
    copy.parent.mkdir()
    for name in ("make_protos.py", "server_configs.py"):
        (copy.parent / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    content = (ROOT / "tfs_helpers" / "serving.binpb").read_bytes()
    (tmp_path / "tfs_helpers").mkdir()
    (tmp_path / "tfs_helpers" / "serving.binpb").write_bytes(content[:-1])
    done = subprocess.run([sys.executable, str(copy), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "differs from the installed packages" in done.stderr


def test_the_configs_that_the_packages_leave_out_read_their_text() -> None:
    text = "legacy_config { batching_parameters { max_batch_size { value: 8 } allowed_batch_sizes: [2, 8] } }"
    read = text_format.Parse(text, protos.SavedModelBundleSourceAdapterConfig(), descriptor_pool=protos.pool())
    assert read.legacy_config.batching_parameters.max_batch_size.value == 8
    assert list(read.legacy_config.batching_parameters.allowed_batch_sizes) == [2, 8]


def test_names_and_numbers() -> None:
    assert protos.enum_name("tensorflow.DataType", 1) == "DT_FLOAT"
    assert protos.enum_name("tensorflow.DataType", 9999) == "9999"
    assert protos.enum_value("tensorflow.serving.ModelVersionStatus.State", "AVAILABLE") == 30
    with pytest.raises(KeyError):
        protos.enum_value("tensorflow.DataType", "DT_NOTHING")
    with pytest.raises(KeyError):
        protos.message_class("tensorflow.serving.Nothing")
    with pytest.raises(AttributeError, match="no message 'PredictRequets'"):
        _ = protos.PredictRequets


def test_a_message_is_the_same_class_each_time() -> None:
    assert protos.PredictRequest is protos.PredictRequest
    assert protos.PredictRequest is protos.message_class("tensorflow.serving.PredictRequest")
    assert protos.Int64Value.DESCRIPTOR.full_name == "google.protobuf.Int64Value"
