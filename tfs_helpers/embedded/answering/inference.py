"""What the server does with a request, whichever door it came through."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy.typing as npt

from tfs_helpers import protos
from tfs_helpers.embedded.answering.examples import serialized
from tfs_helpers.embedded.answering.judging import CLASSIFY, PREDICT, REGRESS, Judgement
from tfs_helpers.embedded.graphs.graph_signature import GraphSignature
from tfs_helpers.embedded.metrics import Metrics
from tfs_helpers.embedded.models.core import InUse, ServerCore
from tfs_helpers.embedded.models.servable import Servable
from tfs_helpers.embedded.status import Code, ServingError
from tfs_helpers.errors import InputError
from tfs_helpers.signatures import DEFAULT
from tfs_helpers.tensors import from_proto, to_proto

__all__ = ["InferenceService"]

Array = npt.NDArray[Any]
JsonReader = Callable[[Mapping[str, Any]], Mapping[str, Array]]


class InferenceService:
    """The calls of PredictionService and ModelService, on a core.

    Args:
        core: the models.
        metrics: where runs are counted.
        as_content: answer tensors in `tensor_content` rather than in typed fields.
        check_method_names: refuse signatures that were not made for the method that is called.
    """

    def __init__(
        self,
        core: ServerCore,
        metrics: Metrics | None = None,
        *,
        as_content: bool = False,
        check_method_names: bool = False,
    ) -> None:
        self.core = core
        self.metrics = metrics or Metrics()
        self._as_content = as_content
        self._check_method_names = check_method_names

    # ---- predict

    def predict(self, request: Any, timeout: float | None = None) -> Any:
        """Answer a PredictRequest with a PredictResponse.

        Args:
            timeout: seconds that the run may take; None for any.

        Raises:
            ServingError: in the real server's words.
        """
        if not request.HasField("model_spec"):
            raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        spec = request.model_spec
        with self.core.use(spec) as used:
            name = spec.signature_name or DEFAULT
            signature = used.session.signatures.get(name)
            if signature is None:
                raise ServingError(Code.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
            self._check_method(signature)
            _check_count(request.inputs, signature)
            inputs = _decode(request.inputs, signature)
            outputs = self._run(used, signature, inputs, list(request.output_filter), timeout)
        response = protos.PredictResponse()
        _echo(response.model_spec, used.servable, name)
        for alias, array in outputs.items():
            try:
                response.outputs[alias].MergeFrom(to_proto(array, typed=not self._as_content))
            except InputError as error:
                raise ServingError(Code.RESOURCE_EXHAUSTED, f"The output {alias} is too large: {error.what}") from None
        return response

    def predict_arrays(
        self, spec: Any, signature_name: str, read: JsonReader, timeout: float | None = None
    ) -> dict[str, Array]:
        """Predict for REST, where the inputs can be read only once the signature is known.

        Args:
            spec: a ModelSpec proto.
            read: from the signature's inputs (TensorInfo by name) to arrays by name.

        Returns:
            The outputs by name.

        Raises:
            ServingError: in the real server's words.
        """
        with self.core.use(spec) as used:
            signature = _signature_for_rest(used, signature_name)
            inputs = read(signature.infos)
            self._check_method(signature)
            return self._run(used, signature, inputs, [], timeout)

    def _check_method(self, signature: GraphSignature) -> None:
        """Whether a signature is for prediction, where that is to be checked; those of other methods are too."""
        known = (PREDICT, CLASSIFY, REGRESS)
        name = signature.definition.method_name
        if self._check_method_names and name not in known:
            raise ServingError(
                Code.INTERNAL,
                f"Expected prediction signature method_name to be one of {{{', '.join(known)}}}. Was: {name}",
            )

    def _run(
        self,
        used: InUse,
        signature: GraphSignature,
        inputs: Mapping[str, Array],
        wanted: Sequence[str],
        timeout: float | None,
    ) -> dict[str, Array]:
        """Run a signature on arrays by alias; `wanted` outputs only, all where it is empty."""
        tensors = _wanted_outputs(signature, wanted) if wanted else signature.outputs
        feeds = _feeds(signature, inputs)
        return self._fetch(used, "Predict", feeds, tensors, timeout)

    def _fetch(
        self, used: InUse, api: str, feeds: Mapping[str, Array], tensors: Mapping[str, str], timeout: float | None
    ) -> dict[str, Array]:
        """Run the graph, and count it: from arrays by tensor name to arrays by the keys of `tensors`."""
        started = time.perf_counter()
        results = used.session.run(feeds, list(tensors.values()), timeout)
        if api:
            self.metrics.runtime(used.servable.name, api, time.perf_counter() - started)
        return dict(zip(tensors, results, strict=True))

    # ---- classify and regress

    def classify(self, request: Any, timeout: float | None = None) -> Any:
        """Answer a ClassificationRequest with a ClassificationResponse.

        Raises:
            ServingError: in the real server's words.
        """
        return self._judge(request, CLASSIFY, protos.ClassificationResponse(), timeout)

    def regress(self, request: Any, timeout: float | None = None) -> Any:
        """Answer a RegressionRequest with a RegressionResponse.

        Raises:
            ServingError: in the real server's words.
        """
        return self._judge(request, REGRESS, protos.RegressionResponse(), timeout)

    def _judge(self, request: Any, method: str, response: Any, timeout: float | None) -> Any:
        if not request.HasField("model_spec"):
            raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        name = request.model_spec.signature_name or DEFAULT
        with self.core.use(request.model_spec) as used:
            definition = _signature_to_judge(used, name)
            judgement = Judgement(definition, method, check_method_name=self._check_method_names)
            examples = serialized(request.input)
            api = "Classify" if method == CLASSIFY else "Regress"
            outputs = self._fetch(used, api, {judgement.input: examples}, judgement.outputs, timeout)
        response.result.CopyFrom(judgement.result(outputs, len(examples)))
        _echo(response.model_spec, used.servable, name)
        return response

    def multi_inference(self, request: Any, timeout: float | None = None) -> Any:
        """Answer a MultiInferenceRequest: several signatures of one model on the same examples, in one run.

        Raises:
            ServingError: in the real server's words.
        """
        first = request.tasks[0].model_spec if request.tasks else protos.ModelSpec()
        with self.core.use(first) as used:
            judgements = _judgements(request.tasks, used, check_method_names=self._check_method_names)
            examples = serialized(request.input)
            feeds = {judgement.input: examples for judgement in judgements.values()}
            tensors = {tensor: tensor for judgement in judgements.values() for tensor in judgement.outputs.values()}
            values = self._fetch(used, "", feeds, tensors, timeout)
        self.metrics.example_counts(used.servable.name, len(examples))
        response = protos.MultiInferenceResponse()
        for task, (name, judgement) in zip(request.tasks, judgements.items(), strict=True):
            row = response.results.add()
            _echo(row.model_spec, used.servable, name)
            outputs = {alias: values[tensor] for alias, tensor in judgement.outputs.items()}
            field = row.classification_result if task.method_name == CLASSIFY else row.regression_result
            field.CopyFrom(judgement.result(outputs, len(examples)))
        return response

    # ---- status and metadata

    def model_status(self, spec: Any) -> Any:
        """Answer the status of a model, or of one version, with a GetModelStatusResponse. A label is not looked at.

        Raises:
            ServingError: in the real server's words.
        """
        version = spec.version.value if spec.WhichOneof("version_choice") == "version" else None
        response = protos.GetModelStatusResponse()
        for servable in self.core.status(spec.name, version):
            row = response.model_version_status.add(version=servable.version, state=int(servable.state))
            row.status.SetInParent()
            if servable.error is not None and servable.state.name == "END":
                row.status.error_code = int(servable.error.code)
                row.status.error_message = servable.error.message
        return response

    def metadata(self, spec: Any) -> tuple[Any, Any]:
        """The ModelSpec and the SignatureDefMap of a loaded version.

        Raises:
            ServingError: in the real server's words.
        """
        with self.core.use(spec) as used:
            found = protos.ModelSpec()
            _echo(found, used.servable, "")
            signatures = protos.SignatureDefMap()
            for name, signature in used.session.signatures.items():
                signatures.signature_def[name].CopyFrom(signature.definition)
        return found, signatures

    def metadata_response(self, request: Any) -> Any:
        """Answer a GetModelMetadataRequest.

        Raises:
            ServingError: in the real server's words.
        """
        if not request.HasField("model_spec"):
            raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        if not request.metadata_field:
            raise ServingError(
                Code.INVALID_ARGUMENT, "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for name in request.metadata_field:
            if name != "signature_def":
                raise ServingError(Code.INVALID_ARGUMENT, f"Metadata field {name} is not supported")
        response = protos.GetModelMetadataResponse()
        spec, signatures = self.metadata(request.model_spec)
        response.model_spec.CopyFrom(spec)
        response.metadata["signature_def"].Pack(signatures)
        return response

    def status_response(self, request: Any) -> Any:
        """Answer a GetModelStatusRequest.

        Raises:
            ServingError: in the real server's words.
        """
        if not request.HasField("model_spec"):
            raise ServingError(Code.INVALID_ARGUMENT, "Missing ModelSpec")
        return self.model_status(request.model_spec)


def _echo(spec: Any, servable: Servable, signature_name: str) -> None:
    """Say which version answered."""
    spec.name = servable.name
    spec.version.value = servable.version
    spec.signature_name = signature_name


def _signature_for_rest(used: InUse, name: str) -> GraphSignature:
    signature = used.session.signatures.get(name or DEFAULT)
    if signature is None:
        raise ServingError(
            Code.INVALID_ARGUMENT, f'Serving signature name: "{name or DEFAULT}" not found in signature def'
        )
    if not signature.inputs:
        raise ServingError(Code.INVALID_ARGUMENT, f"Failed to get input map for signature: {name or 'DEFAULT'}")
    return signature


def _signature_to_judge(used: InUse, name: str) -> Any:
    signature = used.session.signatures.get(name)
    if signature is None:
        raise ServingError(Code.INVALID_ARGUMENT, f"No signature was found with the name: {name}")
    return signature.definition


def _judgements(tasks: Sequence[Any], used: InUse, *, check_method_names: bool) -> dict[str, Judgement]:
    """What each task of a MultiInferenceRequest asks for, by signature."""
    found: dict[str, Judgement] = {}
    for task in tasks:
        name = task.model_spec.signature_name or DEFAULT
        if not task.model_spec.name:
            raise ServingError(Code.INVALID_ARGUMENT, "Found ModelSpec with an empty model name.")
        if task.model_spec.name != used.servable.name:
            raise ServingError(
                Code.INVALID_ARGUMENT, "All ModelSpecs in a MultiInferenceRequest must access the same model name."
            )
        if name in found:
            raise ServingError(Code.INVALID_ARGUMENT, f"Duplicate evaluation of signature: {name}")
        signature = used.session.signatures.get(name)
        if signature is None:
            raise ServingError(Code.INVALID_ARGUMENT, f"Requested signature not found in model graph: {name}")
        if task.method_name not in (CLASSIFY, REGRESS):
            raise ServingError(Code.UNIMPLEMENTED, f"Unsupported signature method_name: {task.method_name}")
        found[name] = Judgement(signature.definition, task.method_name, check_method_name=check_method_names)
    return found


def _check_count(given: Mapping[str, Any], signature: GraphSignature) -> None:
    wanted = signature.inputs
    if len(given) == len(wanted) or (len(given) < len(wanted) and signature.defaults):
        return
    missing = sorted(wanted.keys() - set(given))
    extra = sorted(set(given) - wanted.keys())

    def braces(names: Iterable[str]) -> str:
        return "{" + ",".join(sorted(names)) + "}"

    raise ServingError(
        Code.INVALID_ARGUMENT,
        f"input size does not match signature: {len(given)}!={len(wanted)} len({braces(given)}) != "
        f"len({braces(wanted)}). Sent extra: {braces(extra)}. Missing but required: {braces(missing)}.",
    )


def _decode(given: Mapping[str, Any], signature: GraphSignature) -> dict[str, Array]:
    """The request's tensors as arrays, defaults of the signature filled in."""
    inputs: dict[str, Array] = {}
    for alias, tensor in signature.inputs.items():
        if alias in given:
            proto = given[alias]
        elif alias in signature.defaults:
            proto = signature.definition.defaults[alias]
        else:
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"Signature input alias: {alias}(feed name: {tensor}) not found in request and no default value "
                f"provided. Inputs expected to be in the request {{{','.join(sorted(given))}}}, or default input "
                f"alias set: {','.join(sorted(signature.defaults))}",
            )
        try:
            inputs[alias] = from_proto(proto)
        except InputError:
            raise ServingError(Code.INVALID_ARGUMENT, f"tensor parsing error: {alias}") from None
    used = [alias for alias in inputs if alias in given]
    if len(used) < len(given):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Inputs contains invalid name. Used request inputs: {','.join(sorted(used))}, "
            f"request input: {','.join(sorted(given))}",
        )
    return inputs


def _feeds(signature: GraphSignature, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """By tensor name."""
    feeds = {signature.inputs[alias]: array for alias, array in inputs.items()}
    if len(feeds) < len(inputs):
        names = [signature.inputs[alias] for alias in sorted(inputs)]
        twice = next(name for name in names if names.count(name) > 1)
        raise ServingError(Code.INVALID_ARGUMENT, f"Endpoint '{twice}' fed more than once.")
    return feeds


def _wanted_outputs(signature: GraphSignature, wanted: Sequence[str]) -> dict[str, str]:
    """Tensor names by alias, of these outputs."""
    for position, alias in enumerate(wanted):
        if alias not in signature.outputs:
            expected = "{" + ",".join(sorted(signature.outputs)) + "}"
            raise ServingError(
                Code.INVALID_ARGUMENT,
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set {expected}.",
            )
        if alias in wanted[:position]:
            raise ServingError(Code.INVALID_ARGUMENT, f"duplicate output tensor alias: {alias}")
    return {alias: signature.outputs[alias] for alias in wanted}
