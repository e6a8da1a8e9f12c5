"""Classify, regress, and several of both at once: what a signature must have, and what its outputs become."""

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import numpy.typing as npt

from tfs_helpers import protos
from tfs_helpers.embedded.answering.json_text import shape_text
from tfs_helpers.embedded.status import refused

__all__ = ["CLASSIFY", "PREDICT", "REGRESS", "Judgement"]

Array = npt.NDArray[Any]

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
PREDICT = "tensorflow/serving/predict"
_INPUT = "inputs"


class Judgement:
    """One signature, run as a classifier or as a regressor.

    Args:
        definition: its SignatureDef.
        method: `CLASSIFY` or `REGRESS`.
        check_method_name: whether the signature must have been made for that.

    Attributes:
        input: the name of the tensor that takes the serialized examples.
        outputs: `{alias: tensor name}` of what must be fetched.

    Raises:
        ServingError: INVALID_ARGUMENT, where the signature cannot be run so.
    """

    def __init__(self, definition: Any, method: str, *, check_method_name: bool = False) -> None:
        self._method = method
        word = "classification" if method == CLASSIFY else "regression"
        if check_method_name and definition.method_name != method:
            raise refused(f"Expected {word} signature method_name to be {method}. Was: {definition.method_name}")
        if len(definition.inputs) != 1:
            raise refused("Expected one input Tensor.")
        if method == CLASSIFY and len(definition.outputs) not in (1, 2):
            raise refused(f"Expected one or two output Tensors, found {len(definition.outputs)}")
        if method == REGRESS and len(definition.outputs) != 1:
            raise refused("Expected one output Tensor.")
        if _INPUT not in definition.inputs:
            raise refused(f"No {word} inputs found in SignatureDef: {definition}")
        wanted = ("classes", "scores") if method == CLASSIFY else ("outputs",)
        found = {alias: definition.outputs[alias].name for alias in wanted if alias in definition.outputs}
        if not found and method == REGRESS:
            raise refused(f"No regression outputs found in SignatureDef: {definition}")
        if not found:
            raise refused(
                'Expected classification signature outputs to contain at least one of "classes" or "scores". '
                f"Signature was: {definition}"
            )
        self.input: str = definition.inputs[_INPUT].name
        self.outputs: dict[str, str] = found

    def result(self, outputs: Mapping[str, Array], count: int) -> Any:
        """The outputs as a ClassificationResult or RegressionResult.

        Args:
            outputs: by alias.
            count: how many examples went in.

        Raises:
            ServingError: INVALID_ARGUMENT, where shapes or types do not fit.
        """
        if self._method == CLASSIFY:
            return _classified(outputs.get("classes"), outputs.get("scores"), count)
        return _regressed(outputs["outputs"], count)


def _classified(classes: Array | None, scores: Array | None, count: int) -> Any:
    for array in (classes, scores):
        if array is None:
            continue
        if array.ndim != 2:
            raise refused(f"Expected Tensor shape: [batch_size num_classes] but got {shape_text(array.shape)}")
        if array.shape[0] != count:
            raise refused(f"Expected Tensor to have batch size {count} but got {array.shape[0]}")
    if classes is not None and classes.dtype.kind != "O":
        raise refused("Expected classes Tensor of DT_STRING.")
    if scores is not None and scores.dtype != "float32":
        raise refused("Expected scores Tensor of DT_FLOAT.")
    if classes is not None and scores is not None and classes.shape != scores.shape:
        raise refused(f"Tensors class and score should match in num_classes: {classes.shape[1]} vs. {scores.shape[1]}")
    result = protos.ClassificationResult()
    for row in range(count):
        labels = [] if classes is None else classes[row].tolist()
        values = [] if scores is None else scores[row].tolist()
        classification = result.classifications.add()
        for label, value in zip_longest(labels, values):
            classification.classes.add(label=(label or b"").decode(errors="replace"), score=value or 0.0)
    return result


def _regressed(values: Array, count: int) -> Any:
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] != 1):
        raise refused(
            "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] "
            f"but got {shape_text(values.shape)}"
        )
    if values.shape[0] != count:
        raise refused(f"Input batch size did not match output batch size: {count} vs. {values.shape[0]}")
    if values.dtype != "float32":
        raise refused(f"Expected output Tensor of DT_FLOAT.  Got: {values.dtype}")
    result = protos.RegressionResult()
    for value in values.ravel().tolist():
        result.regressions.add().value = value
    return result
