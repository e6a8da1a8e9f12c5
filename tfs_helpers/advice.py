"""From a message that a user meets to its usual cause and its cure.

    advice = advise("Servable not found for request: Latest(half_plus_tow)")
    print(advice.cause, advice.cure)

The messages are the server's, Docker's, gRPC's and the operating system's; what
is said about them is ours. The clients, the launcher and the chapter on mending
all look here, so that one message has one explanation.
"""

import re
from functools import cache
from typing import NamedTuple

from tfs_helpers.versions import IMAGE

__all__ = ["TABLE", "Advice", "advise"]


class Advice(NamedTuple):
    """Why a message usually comes, and what to do about it: one line each."""

    cause: str
    cure: str


def advise(text: str) -> Advice | None:
    """The usual cause and cure of the first message in `text` that is known, or None.

    Args:
        text: one message, or a log. Where it holds several known ones, the more telling comes first in the table.
    """
    return next((advice for pattern, advice in TABLE.items() if _compiled(pattern).search(text)), None)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_START: dict[str, Advice] = {
    r"No versions of servable .* found under base path": Advice(
        "The base path holds no folder whose name is a whole number, as the server sees it.",
        "Lay the model out as <base path>/1/saved_model.pb, and mount or name the folder above the 1.",
    ),
    r"Could not find base path": Advice(
        "The folder is not there as the server sees it: a slip in the path, or a mount that is missing.",
        "In a container, the path is the one inside it (/models/NAME): check --mount, MODEL_NAME and model.config.",
    ),
    r"was requested to be served as a 'specific' version": Advice(
        "The version policy names a version that is not in the folder.",
        "Publish that version, or take it out of specific { versions: ... }.",
    ),
    r"which is not currently available for inference": Advice(
        "A label may only point at a version that is loaded; labels in the first config are read before anything is.",
        "Start with --allow_version_labels_for_unavailable_models=true; in a reload, load the version first.",
    ),
    r"does not appear to contain a SavedModel bundle|SavedModel file does not exist": Advice(
        "The version folder has no saved_model.pb: it is empty, half copied, or holds another format (.keras, .h5).",
        "Export the model there (model.export in Keras 3), and publish a version by renaming its folder into place.",
    ),
    r"Can't parse .*saved_model\.pb|Data loss|Read less bytes than requested|checksum does not match"
    r"|Unable to open table file|not an sstable": Advice(
        "A file of the version is damaged, or was still being written when the server read it.",
        "Export it again, and publish it by renaming a complete folder into place.",
    ),
    r"Could not find meta graph def matching supplied tags": Advice(
        "The SavedModel has no graph with the tags that the server asks for, serve by default.",
        "Look with saved_model_cli show --dir FOLDER; export for serving, or pass --saved_model_tags=...",
    ),
    r"Op type not registered": Advice(
        "The model uses an operation that this server was not built with, or is newer than the server.",
        "Use a server at least as new as the TensorFlow that exported the model, and no custom operations.",
    ),
    r"No request-logger-creator provided": Advice(
        "The stock server has no request logger, so it refuses a config with a logging_config.",
        "Take logging_config out; log requests in the client or in a proxy.",
    ),
    r"Session Bundle is deprecated": Advice(
        "The model is in the format of TensorFlow before 1.0.",
        "Export it again as a SavedModel.",
    ),
    r"model_base_path and server_options\.model_config_file are empty": Advice(
        "The server was not told what to serve.",
        "Pass --model_base_path (with --model_name), or --model_config_file.",
    ),
    r"to have an absolute path or URI": Advice(
        "The server takes no relative base path, because it may run in any folder.",
        "Write the path from / on.",
    ),
    r"Invalid protobuf file|Error parsing text-format": Advice(
        "A config file is not the protobuf text that the server expects; the log names line and column.",
        "The usual slips: version for versions, a missing closing brace, a field that does not exist.",
    ),
    r"to list model .* multiple times": Advice(
        "Two models in the config have the same name.",
        "Give each its own name, or serve one model with several versions.",
    ),
    r"neither ModelServerConfig::model_type|setting both ModelServerConfig::model_type|requests unsupported platform": (
        Advice(
            "Each model in the config needs a platform, and there is only one.",
            'Write model_platform: "tensorflow" in every config { ... }, and no model_type.',
        )
    ),
    r"change a model's platform": Advice(
        "The running config has this model under another platform, or under none after a bad reload.",
        "Restart the server with the right config.",
    ),
    r"only legal to transition from one ModelConfigList": Advice(
        "A running server can only go from one list of models to another.",
        "Send a model_config_list.",
    ),
    r"batching_parameters_file is set without": Advice(
        "Batching parameters were given, and batching is off.",
        "Pass --enable_batching=true as well.",
    ),
    r"allowed_batch_sizes|max_batch_size must|num_batch_threads must": Advice(
        "The batching parameters contradict each other.",
        "Let the allowed batch sizes rise, the last one equal to max_batch_size.",
    ),
    r"You cannot configure all": Advice(
        "tensorflow_session_parallelism sets both of the other two, so not all three can be given.",
        "Give either it, or the intra and inter pair.",
    ),
    r"use_alts_credentials must be false or ssl_config_file": Advice(
        "Two ways to secure gRPC were asked for.",
        "Use either --ssl_config_file or --use_alts_credentials.",
    ),
    r"server_options\.grpc_port or server_options\.grpc_socket_path must be set": Advice(
        "With --port=0 and no socket there is no way to reach the server.",
        "Give --port=8500, or --grpc_socket_path.",
    ),
    r"http_port cannot be same as grpc_port": Advice(
        "gRPC and REST cannot share a port; the server goes on without REST.",
        "Give REST its own, 8501 by custom.",
    ),
    r"Couldn't bind to port|Failed to start HTTP Server": Advice(
        "Another program listens on the REST port; the server goes on without REST.",
        "End that program, or choose another REST port.",
    ),
    r"Failed to BuildAndStart gRPC server": Advice(
        "The gRPC port could not be opened: it is taken, or not for this user.",
        "End the other program, or choose another gRPC port.",
    ),
    r"unknown argument:": Advice(
        "The server does not know this flag and goes on without it; it reads --name=value only, without spaces.",
        "Compare with tensorflow_model_server --help; write --port=8500, never --port 8500.",
    ),
    r"Couldn't interpret value": Advice(
        "A flag was given a value of the wrong type.",
        "Numbers are whole and bare; switches take true or false.",
    ),
    r"warmup records exceeds|verify your warmup data|Unsupported log_type for warmup": Advice(
        "The version's warm-up file cannot be replayed, and a failed warm-up is a failed load.",
        "Write assets.extra/tf_serving_warmup_requests again: a TFRecord of at most 1000 PredictionLogs.",
    ),
    r"Illegal instruction|exit status 132": Advice(
        "The server was built for a processor with AVX, and this one, or its emulation, has none.",
        "Run it on a machine that has AVX; on ARM use the embedded server.",
    ),
    r"qemu: uncaught target signal|does not match the detected host platform|exec format error": Advice(
        "The official image exists for amd64 only, and this machine is another.",
        "Use the embedded server, or an amd64 machine.",
    ),
    r"libcuda|failed call to cuInit|could not select device driver|unknown or invalid runtime name: nvidia"
    r"|nvidia-container": Advice(
        "A GPU was asked for, and Docker cannot give one: no NVIDIA driver or no container toolkit.",
        "Check docker run --rm --gpus all IMAGE nvidia-smi; install the NVIDIA Container Toolkit, or go without GPU.",
    ),
    r"exit status 137": Advice(
        "It was killed: by somebody, or by the system because memory ran out.",
        "Give it more memory or fewer versions to serve; while versions change, the old and the new one are loaded.",
    ),
    r"exit status 143": Advice(
        "It was told to end (SIGTERM), by somebody else than this program.",
        "Start it again.",
    ),
    r"out of memory|OOM when allocating|bad_alloc": Advice(
        "There was not enough memory; while versions change, the old and the new one are both loaded.",
        "Give the server more, serve fewer versions, or on a GPU set --per_process_gpu_memory_fraction.",
    ),
    r"No space left on device": Advice(
        "The disk is full.",
        "Make room and try again.",
    ),
    r"File system scheme '\w+' not implemented": Advice(
        "The server was built without that kind of file system; only local paths and gs:// are in.",
        "Copy the model to a local folder and serve that.",
    ),
}

_DOCKER: dict[str, Advice] = {
    r"port is already allocated|address already in use|bind: .*in use": Advice(
        "Another container or program listens on that port.",
        "docker ps shows which container; stop it, or publish another port (-p 8502:8501).",
    ),
    r"permission denied .*(docker\.sock|docker daemon)|PermissionError\(13": Advice(
        "This user may not talk to the Docker daemon.",
        "Add the user to the group docker (sudo usermod -aG docker $USER) and log in again.",
    ),
    r"Cannot connect to the Docker daemon|Error while fetching server API version|No Docker daemon": Advice(
        "No Docker daemon answers: it is not running, or DOCKER_HOST points elsewhere.",
        "Start Docker (sudo systemctl start docker, or Docker Desktop); docker info must answer.",
    ),
    r"No such image|pull access denied|manifest unknown|manifest for .* not found|Unable to find image": Advice(
        "The image is not on this machine, or its name has a slip.",
        f"Fetch it once: docker pull {IMAGE}",
    ),
    r"TLS handshake timeout|toomanyrequests|no such host|Temporary failure in name resolution": Advice(
        "The registry, or the host, cannot be reached by that name from here.",
        "Check the network and the name; work with an image that is already there.",
    ),
    r"bind source path does not exist|invalid mount config": Advice(
        "The folder to be mounted is not there on the machine of the Docker daemon.",
        "Give an absolute path that exists there; on Docker Desktop, one of the shared folders.",
    ),
    r"container name .* is already in use": Advice(
        "A container of that name is still there, running or not.",
        "docker rm -f NAME, or choose another name.",
    ),
    r"executable file not found in \$PATH|no such file or directory.*unable to start container": Advice(
        "What stands after the image name went to the container as a command, or the entry point has a slip.",
        "Put docker's own options before the image, the server's flags after it.",
    ),
}

_CALL: dict[str, Advice] = {
    r"Servable not found for request": Advice(
        "No model of that name, or no such version of it, is loaded now.",
        "Compare the name with the server's MODEL_NAME or model.config; status() lists the versions.",
    ),
    r"Could not find (any versions|version -?\d+) of model": Advice(
        "The server has never loaded such a model, or such a version of it.",
        "Compare the name with the server's MODEL_NAME or model.config; status() lists the versions.",
    ),
    r"Malformed request": Advice(
        "REST does not know this URL: often a missing :predict, GET for POST, or a slash at the end.",
        "POST /v1/models/NAME[/versions/1 or /labels/stable]:predict; GET /v1/models/NAME for the status.",
    ),
    r"Unrecognized servable version label": Advice(
        "The model has no such label now.",
        "Give it one in the config (version_labels), or call by version.",
    ),
    r"Both model version .* and model version label": Advice(
        "A call names either a version or a label.",
        "Leave one of them out.",
    ),
    r"Missing ModelSpec|ModelSpec has no name|Missing model name in request": Advice(
        "The request does not say which model is meant.",
        "Set request.model_spec.name.",
    ),
    r"Serving signature (name|key):? \".*\" not found": Advice(
        "The model has no signature of that name.",
        "metadata() lists them; serving_default is the usual one.",
    ),
    r"input size does not match signature|input tensor alias not found|Signature input alias|does not have named input"
    r"|Missing named input|keys must be equal to": Advice(
        "The names of the inputs are not those of the signature.",
        "metadata() lists them; send each by its name.",
    ),
    r"output tensor alias not found|duplicate output tensor alias": Advice(
        "The output filter asks for something that the signature does not give, or asks twice.",
        "metadata() lists the outputs.",
    ),
    r"Expects arg\[\d+\] to be": Advice(
        "An input has another type than the model takes; numpy makes float64 and int64 unless told otherwise.",
        "Convert it: array.astype(np.float32).",
    ),
    r"is not of expected type: ?(float|double|int|uint|bool)": Advice(
        "A JSON value has another type than the input: bytes or text for a number, or 1.0 for a whole number.",
        "Send numbers of the input's type; pictures as pixels, unless the model takes encoded strings.",
    ),
    r"is not of expected type: ?string": Advice(
        "The input takes strings, and something else was sent.",
        'Send text, or bytes as {"b64": "..."}.',
    ),
    r"Unable to base64 decode|not formatted correctly for base64": Advice(
        "The text under b64 is no standard base64: the web alphabet, a data: prefix, or a second key beside it.",
        'Send {"b64": base64.b64encode(content).decode()} and nothing else in that object.',
    ),
    r"Missing 'inputs' or 'instances' key|expecting only one of 'inputs' or 'instances'|Expecting 'instances'"
    r"|No values in 'instances'|JSON Value: .* Is not object": Advice(
        "The body of a prediction is an object with either instances, a list of rows, or inputs, the columns.",
        'Send {"instances": [row, row]}, or {"inputs": {"name": values}}.',
    ),
    r"instances is a plain list|inputs is a plain": Advice(
        "The signature has several inputs, so each value needs its name.",
        'Send {"instances": [{"a": 1, "b": 2}]}, or {"inputs": {"a": [1], "b": [2]}}.',
    ),
    r"Encountered list at unexpected size|at incorrect level|Expecting tensor size|Expecting shape": Advice(
        "The nested lists are ragged: rows of different lengths.",
        "Send rectangular data: np.array(values).tolist() of equal rows.",
    ),
    r"inconsistent batch size": Advice(
        "The rows form needs outputs with one row for each input row, and an output has not.",
        'Use the columns form: {"inputs": ...}.',
    ),
    r"JSON Parse error|JSON.*(document is empty|Invalid value)": Advice(
        "The body is no JSON: single quotes, nan for NaN, a comma too many, or nothing at all.",
        "Let json.dumps write it.",
    ),
    r"Conversion of JSON Value: .* to type": Advice(
        "JSON cannot carry this type to the server: no float16, bfloat16, uint16 or complex numbers.",
        "Call by gRPC, which carries every type, or export a signature that takes float32.",
    ),
    r"Data types don't match|is required but could not be found|Unexpected element type in feature"
    r"|has element with unexpected JSON type|Example must be JSON object": Advice(
        "The features of an example are not those that the signature parses: a name, or a type, 1 for 1.0.",
        "Give every feature by its name, with numbers of its type.",
    ),
    r"No (regression|classification) .* found in SignatureDef|Expected (classification|regression) signature": Advice(
        "The signature was not exported for classify or regress; Keras exports for predict alone.",
        "Call predict, or export a signature for it (inputs to scores, classes or outputs).",
    ),
    r"Unknown image file format": Advice(
        "The graph decodes pictures, and these bytes are none that it knows, or are encoded twice.",
        'Send the whole file, once in base64: {"b64": ...}.',
    ),
    r"Could not parse example input": Advice(
        "This signature takes serialized tf.Example protos, and raw values were sent.",
        'Send {"b64": ...} of example.SerializeToString(), or export a signature that takes tensors.',
    ),
    r"tensor parsing error": Advice(
        "A TensorProto does not hold what its type and shape say.",
        "Make it with tfs_helpers.tensors.to_proto, or tf.make_tensor_proto.",
    ),
    r"Check failed: index >= 0|tensor_format\.h": Advice(
        "An input with too few axes reached a convolution, which ends a server whose oneDNN is on.",
        "Send the batch and channel axes too; start the server with TF_ENABLE_ONEDNN_OPTS=0 to get an error instead.",
    ),
    r"equal 0th-dimension size|must have at least one dimension|padding is turned off|exceeds maximum batch size"
    r"|larger than maximum batch": Advice(
        "With batching on, all inputs of a call need the same first axis, no longer than the largest batch.",
        "Send such inputs, raise max_batch_size, or switch batching off for this model.",
    ),
    r"The batch scheduling queue": Advice(
        "More requests wait for a batch than the queue holds.",
        "Try again a little later, or raise max_enqueued_batches.",
    ),
    r"Matrix size-incompatible|must be \d+-dimensional|must have .*rank|Incompatible shapes|put depth must"
    r"|Invalid reduction dimension|Shape must be|Input to reshape|must be broadcastable": Advice(
        "An input has a shape that the graph cannot work with: often the batch or channel axis is missing.",
        "metadata() gives the shape; add the batch axis with array[None].",
    ),
    r"Received message larger than max|Sent message larger than max": Advice(
        "The message is larger than the client allows, 4 MiB unless told otherwise; the server allows 2 GiB.",
        "Open the channel with grpc.max_receive_message_length=-1 (and max_send_...); GrpcClient does.",
    ),
    r"Deadline Exceeded|DEADLINE_EXCEEDED|Timed out waiting for notification|Read timed out|no answer within": Advice(
        "The answer took longer than the call allows: a slow model, a busy server, or a first call that sets up.",
        "Give more time (timeout=), warm the model up, or send less at once.",
    ),
    r"Trying to connect an http1\.x server|Unsupported HTTP version|first record does not look like": Advice(
        "gRPC was spoken to a REST port, or the other way round.",
        "8500 is gRPC, 8501 is REST.",
    ),
    r"Name resolution failure|DNS resolution failed|Name or service not known": Advice(
        "No machine of that name is known here: a slip in the name, or a network that is not reached.",
        "Check the name; for gRPC it comes without http://, as in 127.0.0.1:8500.",
    ),
    r"Connection refused|failed to connect to all addresses|Failed to establish a new connection"
    r"|Max retries exceeded": Advice(
        "Nobody listens there: wrong port, no server, or one whose models are still loading.",
        "Check the port (docker ps) and the server's log; ports open only when every model is loaded.",
    ),
    r"Connection reset by peer|Empty reply from server|Remote end closed connection|Connection aborted|Socket closed"
    r"|Stream removed": Advice(
        "The other end broke the connection: the server ended, or the port leads to the wrong one in the container.",
        "Inside, gRPC is 8500 and REST 8501: change the left side of -p only. Then read the server's log.",
    ),
    r"Error while reading resource variable|could mean that the variable was uninitialized": Advice(
        "The version was exported or copied without its variables/ folder, or with an incomplete one.",
        "Export it again and publish the whole folder; publish() checks that nothing is missing.",
    ),
    r"not an answer of TensorFlow Serving": Advice(
        "Something else listens at that address: another program, or a proxy that does not reach the server.",
        "Check the port: REST is 8501 unless told otherwise; ask the proxy's log why it did not get through.",
    ),
    r"not JSON serializable": Advice(
        "json writes Python numbers and lists, not numpy's.",
        "Send array.tolist(), or let RestClient do it.",
    ),
    r"Descriptors cannot be created directly|Couldn't build proto file into descriptor pool": Advice(
        "Two copies of the serving protos, or one made by an old protoc, are in this process.",
        "Import only tfs_helpers.protos, or only tensorflow_serving.apis of the version that fits TensorFlow.",
    ),
}

TABLE: dict[str, Advice] = _START | _DOCKER | _CALL
"""Every pattern (a regular expression, case ignored) with its advice, the more telling first."""
