"""Every explanation is found by a message as people really meet it, and none is hidden by another."""

import re

import pytest

from tfs_helpers.advice import TABLE, Advice, advise

# The message, and a word of the cause or the cure that must be found for it.
MESSAGES = [
    ("No versions of servable m found under base path /models/m. Did you forget to name your leaf directory", "number"),
    (
        "FileSystemStoragePathSource encountered a filesystem access error: Could not find base path /m for servable m",
        "mo",
    ),
    ("Version 3 of servable m, which was requested to be served as a 'specific' version in the policy", "Publish"),
    (
        "Request to assign label to version 1 of model m, which is not currently available for inference",
        "--allow_version_labels_for_unavailable_models=true",
    ),
    ("NOT_FOUND: Specified file path does not appear to contain a SavedModel bundle (should have a file", ".keras"),
    ("DATA_LOSS: Can't parse /models/m/1/saved_model.pb as binary proto", "damaged"),
    ("OUT_OF_RANGE: Read less bytes than requested", "damaged"),
    (
        "Error while reading resource variable b from Container: localhost. This could mean that the variable",
        "variables/",
    ),
    ("HTTP 502 from http://127.0.0.1:80, not an answer of TensorFlow Serving: Bad Gateway", "proxy"),
    ("no answer within 2 s", "Give more time"),
    ("NOT_FOUND: Could not find meta graph def matching supplied tags: { x }. To inspect available", "tags"),
    ("NOT_FOUND: Op type not registered 'SentencepieceOp' in binary running on vm", "operation"),
    ("Failed to start server. Error: INVALID_ARGUMENT: No request-logger-creator provided.", "logging_config"),
    ("UNIMPLEMENTED: Session Bundle is deprecated and removed.", "1.0"),
    ("Both server_options.model_base_path and server_options.model_config_file are empty!", "--model_base_path"),
    ("Expected model m to have an absolute path or URI; got base_path()=models/m", "from / on"),
    ("Failed to start server. Error: INVALID_ARGUMENT: Invalid protobuf file: '/m.config'", "version for versions"),
    ("Illegal to list model m multiple times in config list", "same name"),
    (
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform",
        "tensorfl",
    ),
    ("Illegal to change a model's platform. For model m platform was  and new platform requested is t", "Restart"),
    ("Cannot transition to requested config. It is only legal to transition from one ModelConfigList to", "list"),
    (
        "server_options.batching_parameters_file is set without setting server_options.enable_batching",
        "--enable_batching",
    ),
    ("allowed_batch_sizes entries must be increasing. Last entry must match max_batch_size", "max_batch_size"),
    ("tensorflow_inter_op_parallelism) separately. You cannot configure all.", "intra"),
    ("Either use_alts_credentials must be false or ssl_config_file must be empty.", "either"),
    ("At least one of server_options.grpc_port or server_options.grpc_socket_path must be set.", "--port=8500"),
    ("server_options.http_port cannot be same as grpc_port. Please use a different port for HTTP/REST", "share"),
    ("[evhttp_server.cc : 234] NET_LOG: Couldn't bind to port 8501", "REST port"),
    ("Failed to start server. Error: UNKNOWN: Failed to BuildAndStart gRPC server", "gRPC port"),
    ("unknown argument: --enable_batchin=true", "--name=value"),
    ("Couldn't interpret value yes for flag enable_batching.", "wrong type"),
    ("Number of warmup records exceeds the maximum (1000) at /m/1/assets.extra/tf_serving_warmup_requests", "1000"),
    ("/usr/bin/tf_serving_entrypoint.sh: line 3:     7 Illegal instruction     (core dumped)", "AVX"),
    ("qemu: uncaught target signal 6 (Aborted) - core dumped", "amd64"),
    ('could not select device driver "" with capabilities: [[gpu]]', "NVIDIA"),
    ("Could not load dynamic library 'libcuda.so.1'; dlerror: libcuda.so.1: cannot open", "NVIDIA"),
    ("exit status 137", "killed"),
    ("exit status 143", "SIGTERM"),
    ("RESOURCE_EXHAUSTED: OOM when allocating tensor with shape[1024,1024]", "memory"),
    ("[Errno 28] No space left on device", "full"),
    ("UNIMPLEMENTED: File system scheme 's3' not implemented (file: 's3://b/m')", "gs://"),
    (
        "driver failed programming external connectivity: Bind for 127.0.0.1:8501 failed: port is already allocated",
        "ps",
    ),
    ("permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock", "group"),
    (
        "Error while fetching server API version: ('Connection aborted.', PermissionError(13, 'Permission denied'))",
        "group",
    ),
    (
        "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
        "Start Docker",
    ),
    ("Unable to find image 'tensorflow/serving:2.20' locally", "docker pull"),
    ("toomanyrequests: You have reached your pull rate limit.", "registry"),
    ('invalid mount config for type "bind": bind source path does not exist: /nowhere', "absolute"),
    ('Conflict. The container name "/tfs-8500" is already in use by container "abc"', "docker rm"),
    ('exec: "-p": executable file not found in $PATH: unknown', "before the image"),
    ("Servable not found for request: Latest(half_plus_tow)", "name"),
    ("Could not find any versions of model nope", "never loaded"),
    ("Could not find version 3 of model half_plus_two", "never loaded"),
    ("Malformed request: POST /v1/models/half_plus_two", ":predict"),
    ("Unrecognized servable version label: stable", "label"),
    ("Both model version (1) and model version label (stable) cannot be supplied.", "either"),
    ("Missing ModelSpec", "model_spec.name"),
    ('Serving signature key "foo" not found.', "metadata()"),
    ('Serving signature name: "foo" not found in signature def', "metadata()"),
    ("input size does not match signature: 1!=2 len({x}) != len({x,y}). Sent extra: {}.", "names of the inputs"),
    ("JSON object: does not have named input: age", "names of the inputs"),
    ("output tensor alias not found in signature: foo Outputs expected to be in the set {y}.", "outputs"),
    ("Expects arg[0] to be float but int32 is provided", "astype"),
    ('JSON Value: {\n    "b64": "AA=="\n} Type: Object is not of expected type: float', "pixels"),
    ("JSON Value: 1 Type: Number is not of expected type: string", "b64"),
    ("Unable to base64 decode", "standard base64"),
    ("Missing 'inputs' or 'instances' key", "instances"),
    ("instances is a plain list, but expecting list of objects as multiple input tensors required", "several inputs"),
    ("Encountered list at unexpected size: 3 at level: 2 expected size: 2", "ragged"),
    ("Tensor name: y has inconsistent batch size: 1 expecting: 3", "columns"),
    ("JSON Parse error: Invalid value. at offset: 14", "json.dumps"),
    ("Could not parse example input, value: '1.0'", "SerializeToString"),
    ("Conversion of JSON Value: 1.0 to type: half", "gRPC"),
    ("JSON Value: [1, 2, 3] Is not object", "instances"),
    (
        "Name: <unknown>, Key: x, Index: 1.  Data types don't match. Data type: int64 but expected type: float",
        "feature",
    ),
    ("No classification inputs found in SignatureDef: inputs {", "predict"),
    ("Unknown image file format. One of JPEG, PNG, GIF, BMP, WebP required.", "whole file"),
    ("tensor parsing error: x", "TensorProto"),
    ("F tensor_format.h:428] Check failed: index >= 0 && index < num_total_dims", "TF_ENABLE_ONEDNN_OPTS=0"),
    ("Batching session Run() input tensors must have equal 0th-dimension size", "first axis"),
    ("The batch scheduling queue to which this task was submitted is full", "queue"),
    ("Matrix size-incompatible: In[0]: [1,3], In[1]: [4,2]", "shape"),
    ("Received message larger than max (32243844 vs. 4194304)", "grpc.max_receive_message_length"),
    ("Deadline Exceeded", "timeout="),
    ("Trying to connect an http1.x server", "8501 is REST"),
    ("DNS resolution failed for http://127.0.0.1:8500", "http://"),
    ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:8500: Connection refused", "listens"),
    ("('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))", "left side"),
    ("Object of type ndarray is not JSON serializable", "tolist"),
    ("Descriptors cannot be created directly.", "protos"),
]


@pytest.mark.parametrize(("message", "word"), MESSAGES, ids=[message[:40] for message, _ in MESSAGES])
def test_a_message_finds_its_explanation(message: str, word: str) -> None:
    found = advise(message)
    assert found is not None
    assert word in f"{found.cause} {found.cure}"


def test_no_explanation_is_hidden_or_untried() -> None:
    assert {advise(message) for message, _ in MESSAGES} == set(TABLE.values())


@pytest.mark.parametrize(("pattern", "advice"), TABLE.items(), ids=[pattern[:40] for pattern in TABLE])
def test_each_is_two_lines(pattern: str, advice: Advice) -> None:
    re.compile(pattern)
    for line in advice:
        assert "\n" not in line
        assert 10 < len(line) <= 120
    assert advice.cause.endswith(".")


@pytest.mark.parametrize("text", ["", "Exporting HTTP/REST API at:localhost:8501 ...", "OK", "half_plus_two"])
def test_of_other_text_nothing_is_said(text: str) -> None:
    assert advise(text) is None


def test_in_a_log_the_more_telling_line_counts() -> None:
    log = (
        "failed call to cuInit: UNKNOWN ERROR\nCould not find base path /models/m for servable m\nunknown argument: --x"
    )
    assert "not there as the server sees it" in advise(log).cause
