"""Requests of classify and regress: `tf.Example`s from an Input proto or from JSON, serialized for the model."""

from typing import Any

import numpy as np
import numpy.typing as npt

from tfs_helpers import protos
from tfs_helpers.embedded.answering.json_request import is_base64, kind_of, parse_body, signature_name_of, unbase64
from tfs_helpers.embedded.answering.json_text import value_text
from tfs_helpers.embedded.answering.rapidjson import Members
from tfs_helpers.embedded.status import refused

__all__ = ["input_from_json", "serialized"]

Array = npt.NDArray[Any]

_INT64 = range(-(2**63), 2**63)


def serialized(given: Any) -> Array:
    """The examples of an Input proto, each as serialized bytes; the context is put in front of every one.

    Returns:
        An object array of bytes, shape (number of examples,).

    Raises:
        ServingError: INVALID_ARGUMENT, where there is none.
    """
    context, examples = b"", []
    if given.WhichOneof("kind") == "example_list":
        examples = list(given.example_list.examples)
    elif given.WhichOneof("kind") == "example_list_with_context":
        context = given.example_list_with_context.context.SerializeToString()
        examples = list(given.example_list_with_context.examples)
    if not examples:
        raise refused("Input is empty.")
    # Serialized messages that follow one another are one message, merged.
    array = np.empty(len(examples), object)
    array[:] = [context + example.SerializeToString() for example in examples]
    return array


def input_from_json(body: bytes) -> tuple[str, Any]:
    """The signature's name and the Input proto of a REST request, to classify or to regress: the texts are the same.

    Raises:
        ServingError: INVALID_ARGUMENT, in the real server's words.
    """
    document = parse_body(body)
    name = signature_name_of(document)
    given = protos.Input()
    if "context" in document:
        into = given.example_list_with_context.examples
        _fill(given.example_list_with_context.context, document["context"])
    else:
        into = given.example_list.examples
    if "examples" not in document:
        raise refused(
            f"JSON Value: {value_text(document)} When method is classify, key 'examples' is expected and was not found"
        )
    rows = document["examples"]
    if not isinstance(rows, list):
        raise refused(f"JSON Value: {value_text(document)} Expecting 'examples' value to be an list/array")
    if not rows:
        raise refused(f"JSON Value: {value_text(document)} 'examples' value is an empty array")
    for row in rows:
        _fill(into.add(), row)
    # No signature has a name that is no UTF-8, and no proto can hold one.
    return name.encode(errors="surrogateescape").decode(errors="replace"), given


def _fill(example: Any, value: Any) -> None:
    """One `tf.Example` from a JSON object; of two features of one name the last counts."""
    if not isinstance(value, dict):
        raise refused(f"Example must be JSON object but got JSON {kind_of(value)}")
    for name, content in value.pairs if isinstance(value, Members) else value.items():
        feature = _feature(example, name)
        feature.Clear()
        for item in content if isinstance(content, list) else [content]:
            _add(feature, name, item)


def _feature(example: Any, name: str) -> Any:
    try:
        return example.features.feature[name]
    except UnicodeEncodeError:
        # No model asks for a name that is no UTF-8: its values are looked at, and left out.
        return protos.message_class("tensorflow.Feature")()


def _add(feature: Any, name: str, item: Any) -> None:
    """One value more; the first one says of which kind they all are."""
    content: int | float | bytes
    if isinstance(item, int):  # booleans too
        field, content = "int64_list", int(item)
    elif isinstance(item, float):
        field, content = "float_list", item
    elif isinstance(item, str):
        field, content = "bytes_list", item.encode(errors="surrogateescape")
    elif is_base64(item):
        field, content = "bytes_list", b""
    else:
        raise refused(f"Feature: {name} has element with unexpected JSON type: {kind_of(item)}")
    kind = feature.WhichOneof("kind")
    if kind not in (None, field):
        raise refused(f"Unexpected element type in feature: {name} expecting type: {kind.removesuffix('_list')}")
    if isinstance(item, dict):
        content = unbase64(item["b64"])
    elif field == "int64_list" and item not in _INT64:
        raise refused(f"Feature: {name} has uint64_t element. Only int64_t is supported.")
    getattr(feature, field).value.append(content)
