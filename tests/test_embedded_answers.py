"""What the embedded server makes of requests that no careful client sends: the real one's words, and never its end."""

import json
from typing import Any

import pytest
import requests

from tfs_helpers import RunningServer, protos
from tfs_helpers.embedded.answering.examples import input_from_json, serialized
from tfs_helpers.embedded.answering.judging import CLASSIFY, REGRESS, Judgement
from tfs_helpers.embedded.status import ServingError
from tfs_helpers.errors import InputError
from tfs_helpers.tensors import from_proto

FLOAT, STRING = 1, 7


# ---- examples from JSON


def examples(body: str | bytes) -> list[Any]:
    """The examples of a classify or regress request, context merged in."""
    _, given = input_from_json(body if isinstance(body, bytes) else body.encode())
    return [protos.message_class("tensorflow.Example").FromString(text) for text in serialized(given)]


def feature(body: str | bytes, name: str = "x") -> tuple[str | None, list[Any]]:
    """The kind and the values of one feature of the first example."""
    found = examples(body)[0].features.feature[name]
    kind = found.WhichOneof("kind")
    return kind, list(getattr(found, kind).value) if kind else []


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("[1, true, false]", "int64_list", [1, 1, 0]),
        ("-9223372036854775808", "int64_list", [-(2**63)]),
        ("18446744073709551616", "float_list", [2.0**64]),
        ("[1.0, 1e39, -Inf]", "float_list", [1.0, float("inf"), float("-inf")]),
        ('["a", {"b64": "/w"}]', "bytes_list", [b"a", b"\xff"]),
        ("[]", None, []),
    ],
)
def test_a_features_kind_is_that_of_its_json(text: str, kind: str | None, values: list[Any]) -> None:
    assert feature(f'{{"examples": [{{"x": {text}}}]}}') == (kind, values)


def test_of_two_features_of_one_name_the_last_counts() -> None:
    assert feature('{"examples": [{"x": 1, "x": "b"}]}') == ("bytes_list", [b"b"])


def test_a_context_is_part_of_every_example() -> None:
    found = examples('{"context": {"y": 2.0}, "examples": [{"x": 1.0}, {}]}')
    assert [sorted(example.features.feature) for example in found] == [["x", "y"], ["y"]]


def test_a_feature_whose_name_is_no_utf8_is_nobodys() -> None:
    assert feature(b'{"examples": [{"\xff": 1, "x": "\xfe"}]}') == ("bytes_list", [b"\xfe"])
    assert len(examples(b'{"examples": [{"\xff": 1}]}')[0].features.feature) == 0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("{}", "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ('{"context": 1}', "Example must be JSON object but got JSON Number"),
        ('{"examples": 1}', "JSON Value: {\n    \"examples\": 1\n} Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "JSON Value: {\n    \"examples\": []\n} 'examples' value is an empty array"),
        ('{"examples": [null]}', "Example must be JSON object but got JSON Null"),
        ('{"examples": [{"x": [[1]]}]}', "Feature: x has element with unexpected JSON type: Array"),
        ('{"examples": [{"x": {"y": 1}}]}', "Feature: x has element with unexpected JSON type: Object"),
        ('{"examples": [{"x": ["a", 1]}]}', "Unexpected element type in feature: x expecting type: bytes"),
        ('{"examples": [{"x": [1.0, 1]}]}', "Unexpected element type in feature: x expecting type: float"),
        ('{"examples": [{"x": [1, {"b64": "?"}]}]}', "Unexpected element type in feature: x expecting type: int64"),
        ('{"examples": [{"x": {"b64": "?"}}]}', "Unable to base64 decode"),
        (
            '{"examples": [{"x": 9223372036854775808}]}',
            "Feature: x has uint64_t element. Only int64_t is supported.",
        ),
    ],
)
def test_examples_are_refused_in_the_real_servers_words(body: str, words: str) -> None:
    with pytest.raises(ServingError) as caught:
        input_from_json(body.encode())
    assert caught.value.message == words


# ---- signatures that can be judged


def signature(inputs: list[str], outputs: list[str]) -> Any:
    definition = protos.SignatureDef()
    for name in inputs:
        definition.inputs[name].name = f"{name}:0"
    for name in outputs:
        definition.outputs[name].name = f"{name}:0"
    return definition


@pytest.mark.parametrize(
    ("method", "inputs", "outputs", "words"),
    [
        (CLASSIFY, [], ["scores"], "Expected one input Tensor."),
        (CLASSIFY, ["inputs"], ["classes", "scores", "more"], "Expected one or two output Tensors, found 3"),
        (CLASSIFY, ["x"], ["scores"], "No classification inputs found in SignatureDef: "),
        (
            CLASSIFY,
            ["inputs"],
            ["y"],
            'Expected classification signature outputs to contain at least one of "classes" ',
        ),
        (REGRESS, ["inputs"], ["outputs", "more"], "Expected one output Tensor."),
        (REGRESS, ["x"], ["outputs"], "No regression inputs found in SignatureDef: "),
        (REGRESS, ["inputs"], ["scores"], "No regression outputs found in SignatureDef: "),
    ],
)
def test_a_signature_that_cannot_be_judged_is_refused(
    method: str, inputs: list[str], outputs: list[str], words: str
) -> None:
    with pytest.raises(ServingError) as caught:
        Judgement(signature(inputs, outputs), method)
    assert caught.value.message.startswith(words)


def test_an_output_beside_the_scores_is_let_be() -> None:
    assert Judgement(signature(["inputs"], ["scores", "more"]), CLASSIFY).outputs == {"scores": "scores:0"}


# ---- little messages that promise much


@pytest.mark.parametrize(
    "proto",
    [
        protos.TensorProto(dtype=FLOAT, float_val=[1]),
        protos.TensorProto(dtype=FLOAT),
        protos.TensorProto(dtype=STRING, string_val=[b"a"]),
    ],
)
def test_a_few_bytes_do_not_fill_the_memory(proto: Any) -> None:
    for size in (2**12, 2**13):
        proto.tensor_shape.dim.add().size = size
    with pytest.raises(InputError, match="more than it brings"):
        from_proto(proto)


def test_a_long_text_is_not_repeated_without_end() -> None:
    proto = protos.TensorProto(dtype=STRING, string_val=[b"x" * 2**20])
    proto.tensor_shape.dim.add().size = 100
    with pytest.raises(InputError, match="more than it brings"):
        from_proto(proto)


def test_an_empty_tensor_may_be_wide_but_not_too_wide() -> None:
    proto = protos.TensorProto(dtype=FLOAT)
    proto.tensor_shape.dim.add().size = 0
    proto.tensor_shape.dim.add().size = 2**40
    assert from_proto(proto).shape == (0, 2**40)
    proto.tensor_shape.dim.add().size = 2**40
    with pytest.raises(InputError, match="how far apart"):
        from_proto(proto)


# ---- a server that lives through all of it


ODD_BODIES = [
    b"[" * 100_000,
    b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"signature_name": "\xff", "inputs": 1}',
    b'{"inputs": ["\xff' + b"x" * 300 + b'"]}',
    b'{"inputs": ["\\ud800"]}',
    b'{"instances": [{"x": 1, "x": "a"}]}',
    b'{"examples": [{"\xff": 9223372036854775808}]}',
    b'{"signature_name": "\xff", "examples": [{}]}',
    b"\x00",
    b"\xef\xbb\xbf",
]


@pytest.mark.parametrize("verb", ["predict", "classify"])
@pytest.mark.parametrize("body", ODD_BODIES, ids=lambda body: repr(body[:30]))
def test_an_odd_body_is_refused_and_the_server_lives(rich_server: RunningServer, body: bytes, verb: str) -> None:
    url = f"{rich_server.rest().url}/v1/models/identity_float32"
    answer = requests.post(f"{url}:{verb}", data=body, timeout=20)
    assert answer.status_code == 400
    assert json.loads(answer.content.decode(errors="surrogateescape"))["error"]
    assert requests.post(f"{url}:predict", data='{"inputs": [1]}', timeout=20).json() == {"outputs": [1.0]}
