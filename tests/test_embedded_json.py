"""The embedded server's JSON, in and out, against the standard library and the real server's documented texts."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfs_helpers import dtypes, protos
from tfs_helpers.embedded.answering import rapidjson
from tfs_helpers.embedded.answering.grisu import double_text
from tfs_helpers.embedded.answering.json_request import PredictBody
from tfs_helpers.embedded.answering.json_text import column_form, error_text, number_texts, row_form, value_text
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


def alike(found: object, expected: object) -> bool:
    """Whether two documents are the same, but for the last digit of their doubles, in which RapidJSON may err."""
    if isinstance(found, float) and isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-15, abs_tol=5e-324)
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(alike, found, expected))
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(alike(found[key], expected[key]) for key in found)
    return type(found) is type(expected) and found == expected


@given(documents, st.booleans(), st.sampled_from([None, 1]))
def test_what_the_standard_library_writes_is_read_back(document: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    assert alike(rapidjson.parse(text.encode()), json.loads(text))


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
        ("]", "The document is empty. at offset: 0"),
        ("\0[1]", "The document is empty. at offset: 0"),
        ("\ufeff", "The document is empty. at offset: 3"),
        ("\ufeff[", "Invalid value. at offset: 4"),
        ("[Infinit]", "Invalid value. at offset: 8"),
        ("2e309", "Number too big to be stored in double. at offset: 0"),
        ("1" + "0" * 309, "Number too big to be stored in double. at offset: 0"),
    ],
)
def test_what_is_wrong_is_said_in_rapidjsons_words(text: str, words: str) -> None:
    with pytest.raises(rapidjson.JsonError) as caught:
        rapidjson.parse(text.encode())
    assert str(caught.value) == words


# Answers of RapidJSON 1.1.0 itself, compiled with the flags of the real server: doubles in hexadecimal.
@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3.0e38", "0x1.c363cbf21f289p+127"),  # one less than the nearest double
        ("-4101908.21859468585017754865", "-0x1.f4b8a1bfae921p+21"),
        ("123456789012345678901234567890", "0x1.8ee90ff6c373dp+96"),
        ("-975155341706978804104.2518", "-0x1.a6e7fdc581292p+69"),
        ("1736662572973169861443.03879009343242834E-25", "0x1.6c345ca8060d0p-13"),
        ("930.55549297061616443305", "0x1.d1471a64c6fa2p+9"),
        ("667254256354973e-317", "0x1.24d9e6556e24ep-1004"),
        ("2.5e-324", "0x0.0000000000001p-1022"),
        ("1e-400", "0x0p+0"),
        ("-1.8e308", "-inf"),
        ("Inf.5", "0x1p-1"),
        ("NaNe1", "0x0p+0"),
    ],
)
def test_a_double_is_the_one_that_rapidjson_makes(text: str, number: str) -> None:
    assert rapidjson.parse(text.encode()) == float.fromhex(number)


# Texts of RapidJSON 1.1.0 itself.
@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((0.1, "0.1"), (-1.0, "-1.0"), (123456.789, "123456.789"), (0.0, "0.0"), (-0.0, "-0.0")),
        *((1e20, "100000000000000000000.0"), (1e21, "1e21"), (-1.5e300, "-1.5e300")),
        *((0.000001, "0.000001"), (0.0000012, "0.0000012"), (1e-7, "1e-7"), (5e-324, "5e-324")),
        *((2.0**64, "18446744073709553000.0"), (2.9999999999999997e38, "2.9999999999999999e38")),
    ],
)
def test_a_double_is_written_as_rapidjson_writes_it(number: float, text: str) -> None:
    assert double_text(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
@settings(max_examples=500)
def test_a_double_reads_back_as_itself(number: float) -> None:
    assert float(double_text(number)) == number


@pytest.mark.parametrize("number", [2**64 - 1, 2**32, -(2**63), 0])
def test_integers_are_exact_up_to_64_bits(number: int) -> None:
    assert type(rapidjson.parse(b"%d" % number)) is int
    assert rapidjson.parse(b"%d" % number) == number


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_integers_beyond_64_bits_are_doubles(number: int) -> None:
    assert type(rapidjson.parse(b"%d" % number)) is float


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


def test_a_name_that_comes_twice() -> None:
    assert arrays('{"inputs": {"x": 1, "x": [2]}}')["x"].tolist() == 1
    # Both values go into the tensor, and there are then more of them than rows.
    assert arrays('{"instances": [{"x": 1, "x": 2}, {"x": 3}]}')["x"].tolist() == [1, 2]
    assert "not of expected type: float" in refusal('{"inputs": [{"b64": "", "b64": ""}]}')
    assert "not formatted correctly for base64" in refusal('{"inputs": [{"b64": "", "b64": ""}]}', x=STRING)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("aGk=", b"hi"),
        ("aGk", b"hi"),
        ("aGk.", b"hi"),
        (" a\\nGk = ", b"hi"),
        ("", b""),
        ("YQ==", b"a"),
        ("+/8=", b"\xfb\xff"),
    ],
)
def test_base64_is_read_as_abseil_reads_it(text: str, content: bytes) -> None:
    assert arrays(f'{{"inputs": {{"b64": "{text}"}}}}', x=STRING)["x"].item() == content


@pytest.mark.parametrize("text", ["a", "YQ=", "aGk==", "a=Gk", "-_8=", "é", "====", "aGkhx"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    assert refusal(f'{{"inputs": {{"b64": "{text}"}}}}', x=STRING) == "Unable to base64 decode"


def test_bytes_that_are_no_utf8_go_through() -> None:
    body = b'{"inputs": ["\xff\xfe", "\\udc00"]}'
    assert PredictBody(body).arrays(infos(x=STRING))["x"].tolist() == [b"\xff\xfe", b"\xed\xb0\x80"]
    with pytest.raises(ServingError) as caught:
        PredictBody(b'{"inputs": ["\xff' + b"x" * 300 + b'"]}').arrays(infos(x=FLOAT))
    assert caught.value.message.encode(errors="surrogateescape").startswith(b'JSON Value: "\xffxxx')


def test_depth_is_refused_rather_than_fatal() -> None:
    deep = "[" * dtypes.MOST_DIMENSIONS + "1" + "]" * dtypes.MOST_DIMENSIONS
    assert arrays(f'{{"inputs": {deep}}}')["x"].ndim == dtypes.MOST_DIMENSIONS
    for body in (
        f'{{"instances": [{deep}]}}',
        f'{{"inputs": [{deep}]}}',
        '{"inputs": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ):
        assert "dimensions cannot be served" in refusal(body)
    assert refusal("[" * 100_000 + "]" * 100_000) == "JSON Value: " + "[" * 256 + " Is not object"
    assert refusal('{"a":' * 50_000 + "1" + "}" * 50_000) == "Missing 'inputs' or 'instances' key"


@pytest.mark.parametrize("body", ['{"inputs": 2.5}', '{"inputs": {"x": 2.5}}'])
def test_a_scalar_has_no_dimension(body: str) -> None:
    assert arrays(body)["x"].shape == ()


def test_narrow_integers_wrap_as_in_the_real_server() -> None:
    assert arrays('{"inputs": [300, -1]}', x=UINT8)["x"].tolist() == [44, 255]


@pytest.mark.parametrize(
    ("body", "dtype", "words"),
    [
        ("[1, 2]", FLOAT, "JSON Value: [1, 2] Is not object"),
        ("[1, NaN, 2]", FLOAT, "JSON Value: [1,  Is not object"),
        (
            "[1e20, 1e21, 1e22, 1e-7, 3.0e38, 0.00012, -0.0, 18446744073709551616]",
            FLOAT,
            (
                "JSON Value: [100000000000000000000.0, 1e21, 1e22, 1e-7, 2.9999999999999999e38, 0.00012, -0.0, "
                "18446744073709553000.0] Is not object"
            ),
        ),
        ("{}", FLOAT, "Missing 'inputs' or 'instances' key"),
        ('{"inputs": {"x": {}}}', STRING, "JSON Value: {} not formatted correctly for base64 data"),
        ('{"inputs": [{}]}', FLOAT, "JSON Value: {} Type: Object is not of expected type: float"),
        (
            '{"inputs": [3.0e38]}',
            INT32,
            "JSON Value: 2.9999999999999999e38 Type: Number is not of expected type: int32",
        ),
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


def test_base64_passes_for_an_object_among_several_inputs_until_it_is_read() -> None:
    body = '{"instances": [{"b64": "aGk="}]}'
    assert "is not of expected type: int32" in refusal(body, a=INT32, b=STRING)
    assert refusal(body, a=STRING, b=STRING) == (
        "input size does not match signature: 1!=2 len({a}) != len({a,b}). Sent extra: {}. Missing but required: {b}."
    )


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
    assert error_text("\x1f\n\\/\x7f\udcff") == '{\n    "error": "\\u001F\\n\\\\/\x7f\udcff"\n}'


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
