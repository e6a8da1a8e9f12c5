"""The embedded server's JSON, in and out, against the standard library and the real server's documented texts."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfs_helpers import protos
from tfs_helpers.embedded import rapidjson
from tfs_helpers.embedded.json_request import PredictBody
from tfs_helpers.embedded.json_text import column_form, error_text, number_texts, row_form, value_text
from tfs_helpers.embedded.status import Code, ServingError

FLOAT, INT32, UINT8, BOOL, STRING, HALF = 1, 3, 4, 10, 7, 19

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
)
documents = st.recursive(
    scalars,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=4), children, max_size=4),
    max_leaves=20,
)


def infos(**dtypes: int) -> dict[str, object]:
    return {name: protos.TensorInfo(name=f"{name}:0", dtype=dtype) for name, dtype in dtypes.items()}


def arrays(body: str, **dtypes: int) -> dict[str, np.ndarray]:
    return PredictBody(body.encode()).arrays(infos(**(dtypes or {"x": FLOAT})))


def refusal(body: str, **dtypes: int) -> str:
    with pytest.raises(ServingError) as caught:
        arrays(body, **dtypes)
    return caught.value.message


# ---- the parser that fails as RapidJSON does


@given(documents, st.booleans(), st.sampled_from([None, 1]))
def test_what_the_standard_library_writes_is_read_back(document: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    assert rapidjson.parse(text.encode()) == json.loads(text)


@given(documents, st.data())
def test_a_document_cut_short_is_refused_or_is_what_the_standard_library_reads(
    document: object, data: st.DataObject
) -> None:
    text = json.dumps([document]).encode()
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    with pytest.raises(rapidjson.JsonError):
        rapidjson.parse(cut)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "The document is empty. at offset: 0"),
        ("   ", "The document is empty. at offset: 3"),
        ("instances=[1]", "Invalid value. at offset: 0"),
        ('{"instances": [1,2', "Missing a comma or ']' after an array element. at offset: 18"),
        ("{'instances': [1]}", "Missing a name for object member. at offset: 1"),
        ('{"a" 1}', "Missing a colon after a name of object member. at offset: 5"),
        ('{"a": 1 "b": 2}', "Missing a comma or '}' after an object member. at offset: 8"),
        ("[01]", "Missing a comma or ']' after an array element. at offset: 2"),
        ("[.5]", "Invalid value. at offset: 1"),
        ("[1.]", "Miss fraction part in number. at offset: 3"),
        ("[1e]", "Miss exponent in number. at offset: 3"),
        ('{"instances": [1e400]}', "Number too big to be stored in double. at offset: 15"),
        ('["\\x"]', "Invalid escape character in string. at offset: 2"),
        ('["\\ud800"]', "The surrogate pair in string is invalid. at offset: 2"),
        ('["\\u12g4"]', "Incorrect hex digit after \\u escape in string. at offset: 2"),
        ('["abc', "Missing a closing quotation mark in string. at offset: 5"),
        ("[nul]", "Invalid value. at offset: 4"),
    ],
)
def test_what_is_wrong_is_said_in_rapidjsons_words(text: str, words: str) -> None:
    with pytest.raises(rapidjson.JsonError) as caught:
        rapidjson.parse(text.encode())
    assert str(caught.value) == words


def test_the_parser_takes_what_the_real_server_takes() -> None:
    assert rapidjson.parse(b'{"a": 1, "a": 2} and more') == {"a": 1}
    assert rapidjson.parse(b"[Inf, -Infinity, -0]") == [math.inf, -math.inf, 0]
    assert math.isnan(rapidjson.parse(b"[NaN]")[0])
    deep = rapidjson.parse(b"[" * 50_000 + b"]" * 50_000)
    assert isinstance(deep, list)


# ---- requests


@given(
    st.lists(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=2), min_size=1),
    st.sampled_from(["inputs", "instances"]),
    st.sampled_from(['"signature_name": "", ', ""]),
)
def test_both_forms_and_both_roads_give_the_same_array(rows: list[list[float]], key: str, head: str) -> None:
    # With a second key the block of numbers is not seen at once, and the slow road is taken.
    found = arrays(f'{{{head}"{key}": {json.dumps(rows)}}}')["x"]
    assert found.dtype == np.float32
    assert (found == np.array(rows, "f4")).all()


def test_several_inputs_in_rows_and_in_columns() -> None:
    rows = arrays('{"instances": [{"a": [1, 2], "b": "s"}, {"b": {"b64": "/wA="}, "a": [3, 4]}]}', a=INT32, b=STRING)
    columns = arrays('{"inputs": {"a": [[1, 2], [3, 4]], "b": ["s", {"b64": "/wA"}], "c": 1}}', a=INT32, b=STRING)
    for found in (rows, columns):
        assert found["a"].tolist() == [[1, 2], [3, 4]]
        assert found["b"].tolist() == [b"s", b"\xff\0"]


@pytest.mark.parametrize("body", ['{"inputs": 2.5}', '{"inputs": {"x": 2.5}}'])
def test_a_scalar_has_no_dimension(body: str) -> None:
    assert arrays(body)["x"].shape == ()


def test_narrow_integers_wrap_as_in_the_real_server() -> None:
    assert arrays('{"inputs": [300, -1]}', x=UINT8)["x"].tolist() == [44, 255]


@pytest.mark.parametrize(
    ("body", "dtype", "words"),
    [
        ("[1, 2]", FLOAT, "JSON Value: [1, 2] Is not object"),
        ("{}", FLOAT, "Missing 'inputs' or 'instances' key"),
        ('{"instances": []}', FLOAT, "JSON Value: {\n    \"instances\": []\n} No values in 'instances' array"),
        (
            '{"instances": [1, 2.0]}',
            INT32,
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
                "JSON Value: 2.0 Type: Number is not of expected type: int32"
            ),
        ),
        ('{"inputs": [1.0]}', INT32, "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ('{"inputs": [2147483648]}', INT32, "JSON Value: 2147483648 Type: Number is not of expected type: int32"),
        ('{"inputs": [0]}', BOOL, "JSON Value: 0 Type: Number is not of expected type: bool"),
        ('{"inputs": [null]}', STRING, "JSON Value: null Type: Null is not of expected type: string"),
        ('{"inputs": [1.0]}', HALF, "Conversion of JSON Value: 1.0 to type: half"),
        ('{"inputs": [{"b64": "?"}]}', STRING, "Unable to base64 decode"),
        ('{"inputs": [[1, 2], [3]]}', FLOAT, "Encountered list at unexpected size: 1 at level: 1 expected size: 2"),
        ('{"inputs": [1, [2]]}', FLOAT, "Encountered list at unexpected level: 1 expected < 1"),
        (
            '{"inputs": [[1, 2], 3]}',
            FLOAT,
            "JSON Value: 3 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
        ),
        (
            '{"instances": [[1, 2], [3]]}',
            FLOAT,
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
                "Expecting tensor size: 2 but got: 1"
            ),
        ),
        (
            '{"instances": [[1, 2], [[3, 4]]]}',
            FLOAT,
            (
                "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: "
                "Expecting shape [2] but got: [1,2]"
            ),
        ),
    ],
)
def test_refusals_have_the_real_servers_words(body: str, dtype: int, words: str) -> None:
    assert refusal(body, x=dtype) == words


# ---- answers


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
@settings(max_examples=500)
def test_a_float_reads_back_as_itself_in_at_most_nine_digits(number: float) -> None:
    (text,) = number_texts(np.array([number], "f4"))
    assert np.float32(text) == np.float32(number)
    assert "." in text or "e" in text
    short = f"{number:g}"
    assert text.removesuffix(".0") in (short, f"{number:.9g}")


def test_floats_are_written_as_the_real_server_writes_them() -> None:
    values = np.array([3, 0.1, 1 / 3, 1e-7, 9e6, 1234567, -0.0, math.nan, math.inf, -math.inf], "f4")
    assert number_texts(values) == [
        *("3.0", "0.1", "0.333333343", "1e-07", "9e+06", "1234567.0", "-0.0"),
        *("NaN", "Infinity", "-Infinity"),
    ]
    assert number_texts(np.array([1 / 3])) == ["0.33333333333333331"]


def test_the_layout_is_the_real_servers() -> None:
    half = np.array([2.5, 3.0, 4.5], "f4")
    assert row_form({"y": half}) == '{\n    "predictions": [2.5, 3.0, 4.5\n    ]\n}'
    lines = ["{", '    "outputs": [', "        2.5,", "        3.0,", "        4.5", "    ]", "}"]
    assert column_form({"y": half}) == "\n".join(lines)
    assert row_form({"y": half[:0]}) == '{\n    "predictions": []\n}'
    assert column_form({"y": half[0]}) == '{\n    "outputs": 2.5\n}'
    assert error_text('a "b"') == '{\n    "error": "a \\"b\\""\n}'


@given(st.integers(1, 3), st.integers(0, 600), st.sampled_from(["f4", "f8", "i4", "i8", "bool", "u1"]))
def test_every_answer_is_json_of_the_same_values(rank: int, size: int, kind: str) -> None:
    array = (np.random.default_rng(size).random((2, *[size] * (rank > 1), *[1] * (rank > 2))) * 100).astype(kind)
    answers = [
        json.loads(row_form({"y": array}))["predictions"],
        json.loads(column_form({"y": array}))["outputs"],
        [row["z"] for row in json.loads(row_form({"y": array, "z": array}))["predictions"]],
        json.loads(column_form({"y": array, "z": array}))["outputs"]["y"],
    ]
    for answer in answers:
        assert np.array_equal(np.array(answer, kind).reshape(array.shape), array)


def test_strings_are_text_and_bytes_are_base64_by_the_outputs_name() -> None:
    texts = np.array([b"a", "ü".encode(), b'"\n'], object)
    assert json.loads(row_form({"text": texts}))["predictions"] == ["a", "ü", '"\n']
    assert json.loads(column_form({"text_bytes": texts[:1]}))["outputs"] == [{"b64": "YQ=="}]


@pytest.mark.parametrize("form", [row_form, column_form])
def test_what_json_cannot_carry_is_refused(form: Callable[[dict[str, np.ndarray]], str]) -> None:
    with pytest.raises(ServingError) as caught:
        form({"y": np.ones(1, "f2")})
    assert caught.value.message == "Failed to write JSON value for tensor type: half"


def test_rows_need_a_batch() -> None:
    with pytest.raises(ServingError) as caught:
        row_form({"y": np.float32(1)})
    assert (caught.value.code, caught.value.message) == (
        Code.INVALID_ARGUMENT,
        "Tensor name: y has no shape information ",
    )
    with pytest.raises(ServingError, match="Tensor name: b has inconsistent batch size: 1 expecting: 2"):
        row_form({"a": np.ones(2), "b": np.ones(1)})


def test_values_in_error_texts_are_cut() -> None:
    assert value_text({"a": [1, "b"]}) == '{\n    "a": [1, "b"]\n}'
    assert len(value_text(["x" * 1000])) == 256
