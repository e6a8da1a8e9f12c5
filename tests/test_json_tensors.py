"""numpy <-> the JSON of the REST API, with Python's `json` as the judge."""

import base64
import json
import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfs_helpers.dtypes import by_name
from tfs_helpers.embedded.answering.json_text import column_form, row_form
from tfs_helpers.errors import InputError
from tfs_helpers.json_tensors import decode_outputs, encode_inputs, number_block
from tfs_helpers.signatures import Signature, TensorSpec

IN_JSON = ("FLOAT", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT32", "UINT64", "BOOL", "STRING")
KEYS = (b"inputs", b"instances")
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)


def arrays_of(name: str, shapes: Any = SHAPES) -> st.SearchStrategy[Any]:
    dtype = by_name(f"DT_{name}")
    if dtype.is_text:
        return hnp.arrays(object, shapes, elements=st.binary(max_size=6) | st.text(max_size=4).map(str.encode))
    return hnp.arrays(dtype.type, shapes)


def signature(**outputs: str) -> Signature:
    return Signature("s", "", {}, {name: TensorSpec(name, f"DT_{dtype}", None) for name, dtype in outputs.items()})


def value_of(document: Any) -> Any:
    """JSON's values as a tensor's: base64 objects and text become bytes."""
    if isinstance(document, list):
        return [value_of(item) for item in document]
    if isinstance(document, dict):
        assert list(document) == ["b64"]
        return base64.b64decode(document["b64"], validate=True)
    return document.encode() if isinstance(document, str) else document


def same(array: Any, other: Any) -> None:
    assert (array.dtype, array.shape) == (other.dtype, other.shape)
    if array.dtype.kind == "O":
        assert array.tolist() == other.tolist()
    else:
        np.testing.assert_array_equal(array, other)
    if array.dtype.kind == "f":
        assert (np.signbit(array) == np.signbit(other))[~np.isnan(array)].all()


# ---- out


@pytest.mark.parametrize("name", IN_JSON)
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_is_sent_is_the_array(name: str, data: st.DataObject) -> None:
    array = data.draw(arrays_of(name))
    document = json.loads(encode_inputs({"x": array}))
    assert list(document) == ["inputs"]
    values = value_of(document["inputs"])
    if name == "STRING":
        assert values == array.tolist()
    else:
        same(np.array(values, array.dtype), array)


@settings(deadline=None)
@given(st.data(), st.integers(1, 3))
def test_rows_say_the_same_as_columns(data: st.DataObject, batch: int) -> None:
    names = data.draw(st.lists(st.sampled_from(IN_JSON), min_size=1, max_size=3, unique=True))
    shapes = hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3).map(lambda shape: (batch, *shape))
    arrays = {name.lower(): data.draw(arrays_of(name, shapes)) for name in names}
    columns = json.loads(encode_inputs(arrays))["inputs"]
    rows = json.loads(encode_inputs(arrays, rows=True))["instances"]
    alone = len(arrays) == 1
    expected = columns if alone else [{name: columns[name][i] for name in arrays} for i in range(batch)]
    assert repr(rows) == repr(expected)  # NaN is not equal to itself


def test_the_signature_is_named_where_it_is_not_the_default() -> None:
    assert json.loads(encode_inputs({"x": np.zeros(1)}, "other")) == {"signature_name": "other", "inputs": [0.0]}
    assert json.loads(encode_inputs({"x": np.zeros(1)}, "other", rows=True))["signature_name"] == "other"


def test_numbers_that_json_has_no_word_for() -> None:
    array = np.array([np.nan, np.inf, -np.inf, -0.0, 0.1], np.float32)
    assert encode_inputs({"x": array}) == b'{"inputs": [NaN, Infinity, -Infinity, -0.0, 0.1]}'
    assert encode_inputs({"x": np.array(np.nan)}) == b'{"inputs": NaN}'
    both = json.loads(encode_inputs({"x": array, "n": np.array([1], np.uint8)}, rows=False))
    assert both["inputs"]["n"] == [1]
    rows = json.loads(encode_inputs({"x": array[3:], "t": np.array([b"a", b"\xff"], object)}, rows=True))
    assert rows["instances"] == [{"x": -0.0, "t": "a"}, {"x": 0.1, "t": {"b64": "/w=="}}]
    rows = json.loads(encode_inputs({"x": array[:1], "t": np.array([b"\xff"], object)}, rows=True))
    assert repr(rows) == "{'instances': [{'x': nan, 't': {'b64': '/w=='}}]}"


def test_text_is_text_and_other_bytes_are_base64() -> None:
    texts = np.array(["Grüße".encode(), b"\xff\0", b'"\\\n\0', b""], object)
    assert json.loads(encode_inputs({"x": texts}))["inputs"] == ["Grüße", {"b64": "/wA="}, '"\\\n\0', ""]


@pytest.mark.parametrize("layout", ["big-endian", "fortran", "strided"])
def test_any_layout_in_memory(layout: str) -> None:
    plain = np.arange(6, dtype=np.float32).reshape(2, 3)
    array = {"big-endian": plain.astype(">f4"), "fortran": np.asfortranarray(plain), "strided": plain[:, ::-1]}[layout]
    assert json.loads(encode_inputs({"x": array}))["inputs"] == array.tolist()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.uint16, np.complex64, np.complex128])
def test_a_type_that_json_cannot_carry(dtype: Any) -> None:
    with pytest.raises(InputError, match=r"Input 'x' is \w+, which the REST API cannot carry") as caught:
        encode_inputs({"a": np.zeros(1), "x": np.zeros(1, dtype)})
    assert "gRPC" in caught.value.fix


def test_an_empty_shape_that_json_cannot_carry() -> None:
    assert json.loads(encode_inputs({"x": np.zeros((2, 0))}))["inputs"] == [[], []]
    assert json.loads(encode_inputs({"x": np.zeros(0)}))["inputs"] == []
    for shape in ((0, 3), (2, 0, 1), (0, 128, 128, 1)):
        with pytest.raises(InputError, match="JSON cannot carry its shape"):
            encode_inputs({"x": np.zeros(shape)})


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((), (2,)), ((), ())])
def test_rows_need_one_length(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InputError, match="one common first dimension"):
        encode_inputs({"a": np.zeros(shapes[0]), "b": np.zeros(shapes[1])}, rows=True)


# ---- in


@pytest.mark.parametrize("name", IN_JSON)
@settings(deadline=None, max_examples=60)
@given(data=st.data(), key=st.sampled_from(["outputs", "predictions"]))
def test_what_is_received_is_the_array(name: str, data: st.DataObject, key: str) -> None:
    """Written by Python's json."""
    array = data.draw(arrays_of(name))
    listed = array.tolist()
    if name == "STRING":
        listed = json.loads(encode_inputs({"x": array}))["inputs"]
    space = data.draw(st.sampled_from([None, 1, "\t"]))
    found = decode_outputs(json.dumps({key: listed}, indent=space).encode(), signature(x=name))["x"]
    same(found, array)
    assert found.flags.writeable


@settings(deadline=None)
@given(data=st.data(), rows=st.booleans())
def test_what_a_server_writes_is_what_a_client_reads(data: st.DataObject, rows: bool) -> None:
    """In the real server's layout, `%g` and all."""
    names = data.draw(st.lists(st.sampled_from(IN_JSON), min_size=1, max_size=3, unique=True))
    shapes = hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3)
    arrays = {
        f"{name.lower()}{data.draw(st.sampled_from(['', '_bytes']))}": data.draw(
            arrays_of(name, shapes.map(lambda shape: (2, *shape)) if rows else shapes)
        )
        for name in names
    }
    text = (row_form if rows else column_form)(arrays)
    wanted = signature(**{name: name.removesuffix("_bytes").upper() for name in arrays})
    found = decode_outputs(text.encode(errors="surrogateescape"), wanted)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        same(found[name], array)


def test_large_answers_take_the_quick_road_and_are_the_same() -> None:
    array = np.random.default_rng(0).normal(size=(4, 512)).astype(np.float32)
    same(decode_outputs(column_form({"y": array}).encode(), signature(y="FLOAT"))["y"], array)
    array[1, 7] = np.nan
    same(decode_outputs(row_form({"y": array}).encode(), signature(y="FLOAT"))["y"], array)


def test_bytes_that_are_no_text_arrive_unchanged() -> None:
    found = decode_outputs(b'{"outputs": ["\xff<\xc3\xbc", "a"]}', signature(y="STRING"))["y"]
    assert found.tolist() == [b"\xff<\xc3\xbc", b"a"]


@pytest.mark.parametrize(
    ("body", "outputs"),
    [
        (b"", {"y": "FLOAT"}),
        (b"<html>", {"y": "FLOAT"}),
        (b"[1, 2]", {"y": "FLOAT"}),
        (b"5", {"y": "FLOAT"}),
        (b'{"error": "no"}', {"y": "FLOAT"}),
        (b'{"outputs": [1.0, 2.0', {"y": "FLOAT"}),
        (b'{"outputs": ["a"]}', {"y": "FLOAT"}),
        (b'{"outputs": ["1.5"]}', {"y": "FLOAT"}),
        (b'{"outputs": [null]}', {"y": "FLOAT"}),
        (b'{"outputs": [true]}', {"y": "FLOAT"}),
        (b'{"outputs": [[1.0], [2.0, 3.0]]}', {"y": "FLOAT"}),
        (b'{"outputs": {"a": [1.0], "b": [2.0]}}', {"y": "FLOAT"}),
        (b'{"outputs": [1.5]}', {"y": "INT32"}),
        (b'{"outputs": [1.0]}', {"y": "INT64"}),
        (b'{"outputs": [300]}', {"y": "UINT8"}),
        (b'{"outputs": [-1]}', {"y": "UINT64"}),
        (b'{"outputs": [1]}', {"y": "BOOL"}),
        (b'{"outputs": [0.5]}', {"y": "BOOL"}),
        (b'{"outputs": [1]}', {"y": "STRING"}),
        (b'{"outputs": [{"b64": "!"}]}', {"y": "STRING"}),
        (b'{"outputs": [{"c64": "YQ=="}]}', {"y": "STRING"}),
        (b'{"outputs": [1.0]}', {"y": "FLOAT", "z": "FLOAT"}),
        (b'{"outputs": {"y": [1.0]}}', {"y": "FLOAT", "z": "FLOAT"}),
        (b'{"predictions": [{"y": 1.0}]}', {"y": "FLOAT", "z": "FLOAT"}),
        (b'{"predictions": [1.0]}', {"y": "FLOAT", "z": "FLOAT"}),
    ],
)
def test_an_answer_of_another_form_is_refused(body: bytes, outputs: dict[str, str]) -> None:
    """Among them answers of a model that took over since its signature was read: never a wrong array."""
    with pytest.raises(ValueError, match=r"\w"):
        decode_outputs(body, signature(**outputs))


def test_whole_numbers_between_the_signs() -> None:
    body = json.dumps({"outputs": {"y": [1, 2**63, 2**64 - 1], "z": [[-1], [2**62 + 1]]}}).encode()
    found = decode_outputs(body, signature(y="UINT64", z="INT64"))
    assert found["y"].tolist() == [1, 2**63, 2**64 - 1]
    assert found["z"].tolist() == [[-1], [2**62 + 1]]


# ---- the quick road


def judged(body: bytes, kind: str) -> np.ndarray | None:
    """What `number_block` must give, if it gives anything: what json and numpy make of the document."""
    try:
        document = json.loads(body)
    except ValueError:
        return None
    if not isinstance(document, dict) or len(document) != 1 or next(iter(document)) not in ("inputs", "instances"):
        return None
    (values,) = document.values()
    try:
        array = np.array(values, object)
    except ValueError:
        return None
    number = (int,) if kind in "iu" else (int, float)
    if not isinstance(values, list) or not array.size or not all(type(item) in number for item in array.flat):
        return None
    try:
        return array.astype({"d": np.float64, "i": np.int64, "u": np.uint64}[kind])
    except OverflowError:
        return None


def check(body: bytes, kind: str) -> bool:
    found, expected = number_block(body, KEYS, kind), judged(body, kind)
    if found is None:
        return False
    assert expected is not None
    assert found[0] == next(iter(json.loads(body)))
    same(found[1], expected)
    return True


SPACE = st.text(" \t\r\n", max_size=2)
NUMBERS = st.one_of(
    st.integers(-9, 9).map(str),
    st.integers(-(2**65), 2**65).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "-0.0", "1e5", "1E+5", "1e-400", "1e400", "5e-324", "0.1e1", "9007199254740993"]),
    st.sampled_from(["01", "+1", ".5", "1.", "-", "1e", "0x1", "1 2", "NaN", "Infinity", "-Infinity", "null", "true"]),
    st.sampled_from(['"1"', "{}", "[]", "", "e", "--1", "1e5e5", "1..2", "٣", "1_0"]),
)
GOOD = st.integers(-(2**63), 2**63 - 1).map(str) | st.floats(allow_nan=False, allow_infinity=False).map(repr)


@st.composite
def documents(draw: Any, numbers: Any, *, ragged: bool) -> bytes:
    """A nested list as text; here and there a list of another length, where it may be ragged."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=0 if ragged else 1, max_side=3))

    def text(depth: int) -> str:
        if depth == len(shape):
            return str(draw(numbers))
        size = shape[depth]
        if ragged and draw(st.integers(0, 9)) == 0:
            size = draw(st.integers(0, 3))
        items = [text(depth + 1) for _ in range(size)]
        return "[" + draw(SPACE) + f"{draw(SPACE)},{draw(SPACE)}".join(items) + draw(SPACE) + "]"

    key = draw(st.sampled_from(["inputs", "instances"]))
    blank = draw(SPACE)
    return f'{blank}{{{blank}"{key}"{blank}:{blank}{text(0)}{blank}}}{blank}'.encode()


@settings(deadline=None, max_examples=300)
@given(documents(NUMBERS, ragged=True), st.sampled_from("diu"))
def test_a_block_is_right_or_none(body: bytes, kind: str) -> None:
    check(body, kind)


@settings(deadline=None, max_examples=200)
@given(documents(GOOD, ragged=False))
def test_a_full_block_of_numbers_is_found(body: bytes) -> None:
    assert check(body, "d")


@settings(deadline=None, max_examples=100)
@given(documents(st.integers(-(2**63), 2**63 - 1).map(str), ragged=False))
def test_a_full_block_of_whole_numbers_is_found(body: bytes) -> None:
    assert check(body, "i")


@settings(deadline=None, max_examples=400)
@given(documents(GOOD, ragged=False), st.data())
def test_a_damaged_block_is_right_or_none(body: bytes, data: st.DataObject) -> None:
    """One or two bytes dropped, doubled or replaced."""
    for _ in range(data.draw(st.integers(1, 2))):
        place = data.draw(st.integers(0, len(body) - 1))
        patch = data.draw(
            st.sampled_from([b"", b"[", b"]", b",", b"{", b"}", b" ", b"1", b"e", b"-", b".", b'"', b"\0"])
        )
        body = body[:place] + patch + body[place + data.draw(st.integers(0, 1)) :]
        assume(body)
    check(body, "d")


@settings(max_examples=300)
@given(st.text('[],1 {}:"inputs', max_size=24).map(lambda text: b'{"inputs": [' + text.encode()))
@example(b'{"inputs": [[1],[]]}')
@example(b'{"inputs": [[[1,2]],[[3]]]}')
@example(b'{"inputs": [[1,2],[3]], "inputs": [1]}')
def test_any_text_is_right_or_none(body: bytes) -> None:
    check(body, "d")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"inputs": 5}',
        b'{"inputs": []}',
        b'{"inputs": [[]]}',
        b'{"outputs": [1]}',
        b'{"inputs": [1]} 5',
        b'{"inputs": [1]}]',
        b'{"inputs": [1], "signature_name": "s"}',
        b'{"signature_name": "s", "inputs": [1]}',
        b'{"inputs": [1,]}',
        b'{"inputs": [NaN]}',
        b'\xef\xbb\xbf{"inputs": [1]}',
        b'{"inputs": ' + b"[" * 33 + b"1" + b"]" * 33 + b"}",
        b'{"inputs": ' + b"[" * 5000 + b"1" + b"]" * 5000 + b"}",
        b'{"inputs": ' + b"[" * 5000,
    ],
)
def test_no_block(body: bytes) -> None:
    assert number_block(body, KEYS, "d") is None


def test_blocks_are_their_own_and_threads_do_not_meet() -> None:
    wrong: list[object] = []

    def read(number: int) -> None:
        array = np.full((50, number), number)
        body = json.dumps({"inputs": array.tolist()}).encode()
        kept = []
        for _ in range(50):
            found = number_block(body, KEYS, "i")
            assert found is not None
            kept.append(found[1])
        wrong.extend(block for block in kept if not np.array_equal(block, array))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
