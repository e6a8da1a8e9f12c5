"""numpy <-> TensorProto, held to what TensorFlow makes of the same protos."""

import math
import sys
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tensorflow.core.framework import tensor_pb2

from tfs_helpers import dtypes, protos
from tfs_helpers.dtypes import DTYPES, DType
from tfs_helpers.errors import InputError
from tfs_helpers.tensors import as_array, from_proto, to_proto

NUMBERS = [dtype for dtype in DTYPES if not dtype.is_text]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
each_number = pytest.mark.parametrize("dtype", NUMBERS, ids=lambda d: d.name)


def bits(array: Any) -> tuple[Any, ...]:
    """What makes an array what it is; every NaN is the same, since Python's floats do not keep signalling ones."""
    array = np.asarray(array)
    if array.dtype.kind == "O":
        return array.dtype, array.shape, array.tolist()
    parts = np.ascontiguousarray(array)
    if array.dtype.kind == "c":
        parts = parts.view(parts.real.dtype)
    if parts.dtype.kind in "fV":
        with np.errstate(invalid="ignore"):  # ml_dtypes under an older numpy warns of bfloat16's NaN
            missing = np.isnan(parts)
        parts = np.where(missing, parts.dtype.type(1), parts), missing
        return array.dtype, array.shape, parts[0].tobytes(), parts[1].tobytes()
    return array.dtype, array.shape, parts.tobytes()


def arrays_of(dtype: DType) -> st.SearchStrategy[Any]:
    """Arrays of any shape and any bits."""
    if dtype.is_text:
        texts = st.binary(max_size=5) | st.sampled_from([b"\0", b"a\0", b"\xff\xfe", "Grüße".encode(), b""])
        return hnp.arrays(object, SHAPES, elements=texts)
    if dtype.type.kind == "b":
        return hnp.arrays(bool, SHAPES)
    raw = np.dtype((np.void, dtype.type.itemsize))

    def shaped(shape: tuple[int, ...]) -> st.SearchStrategy[Any]:
        size = math.prod(shape) * raw.itemsize
        return st.binary(min_size=size, max_size=size).map(
            lambda content: np.frombuffer(content, dtype.type).reshape(shape)
        )

    return SHAPES.flatmap(shaped)


def theirs(proto: Any) -> Any:
    """The array that TensorFlow's `Tensor::FromProto` makes."""
    array = tf.io.parse_tensor(proto.SerializeToString(), tf.dtypes.as_dtype(proto.dtype)).numpy()
    return np.array(array, object) if proto.dtype == 7 else array  # one text alone is bytes


def proto_of(dtype: int, shape: list[int], **fields: Any) -> Any:
    proto = protos.TensorProto(dtype=dtype, **fields)
    proto.tensor_shape.SetInParent()
    for size in shape:
        proto.tensor_shape.dim.add(size=size)
    return proto


# ---- the table of types


def test_every_number_name_and_word_is_that_of_tensorflow() -> None:
    for dtype in DTYPES:
        known = tf.dtypes.as_dtype(dtype.number)
        assert dtype.name == protos.enum_name("tensorflow.DataType", dtype.number)
        assert dtype.type == known.as_numpy_dtype
        assert dtypes.by_name(dtype.name) is dtypes.by_number(dtype.number) is dtype
        assert dtype.word == {"float16": "half", "float32": "float", "float64": "double"}.get(known.name, known.name)
        assert dtype.label == known.name


def test_every_type_that_both_know_is_there() -> None:
    shared = {
        number
        for name, number in protos.TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values_by_name.items()
        for number in [number.number]
        if 0 < number < 100 and not name.startswith(("DT_Q", "DT_INT2", "DT_INT4", "DT_UINT2", "DT_UINT4", "DT_FLOAT"))
        and name not in ("DT_RESOURCE", "DT_VARIANT")
    }  # fmt: skip
    assert shared | {1} == {dtype.number for dtype in DTYPES}


def test_the_tags_are_those_of_the_fields() -> None:
    fields = protos.TensorProto.DESCRIPTOR.fields_by_name
    for dtype in DTYPES:
        assert dtype.field in fields
        assert dtype.tag in (0, fields[dtype.field].number * 8 + 2)


def test_a_reference_is_its_value() -> None:
    assert dtypes.by_name("DT_INT64_REF") is dtypes.by_name("DT_INT64")


@pytest.mark.parametrize("name", ["DT_RESOURCE", "DT_QINT8", "DT_NOTHING", "9999", ""])
def test_a_type_that_numpy_cannot_hold(name: str) -> None:
    with pytest.raises(InputError, match="cannot be converted to or from numpy"):
        dtypes.by_name(name)
    assert dtypes.by_number(20) is None


@pytest.mark.parametrize("dtype", ["M8[s]", "m8[s]", "i4,f4", "g", "V3", ml_dtypes.float8_e4m3fn, ml_dtypes.int4])
def test_an_array_of_a_type_that_tensorflow_has_not(dtype: Any) -> None:
    with pytest.raises(InputError, match="TensorFlow has no tensors of numpy type"):
        to_proto(np.zeros(2, dtype))


# ---- arrays there and back


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), typed=st.booleans())
def test_there_and_back(dtype: DType, data: st.DataObject, typed: bool) -> None:
    array = data.draw(arrays_of(dtype))
    proto = to_proto(array, typed=typed)
    back = from_proto(proto)
    assert bits(back) == bits(array)
    assert back.flags.writeable
    assert back.flags.c_contiguous
    assert bits(theirs(proto)) == bits(array)
    if typed and not dtype.is_text:
        assert not proto.tensor_content


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_what_tensorflow_makes_is_read_and_the_other_way_round(dtype: DType, data: st.DataObject) -> None:
    array = data.draw(arrays_of(dtype))
    made = tf.make_tensor_proto(array, dtype=dtype.number, shape=array.shape)
    assert bits(from_proto(protos.TensorProto.FromString(made.SerializeToString()))) == bits(array)
    for typed in (False, True):
        ours = tensor_pb2.TensorProto.FromString(to_proto(array, typed=typed).SerializeToString())
        if array.size:
            assert bits(tf.make_ndarray(ours)) == bits(array)


@each_number
def test_the_typed_form_is_that_of_tensorflow(dtype: DType) -> None:
    """Field by field what `Tensor::AsProtoField` gives, which a real server answers with."""
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype.type)
    graph = tf.Graph()
    with graph.as_default():
        node = tf.constant(array).op.node_def.attr["value"].tensor
    ours = to_proto(array, typed=True)
    assert theirs(ours).tolist() == tf.make_ndarray(node).tolist()
    parts = 2 if dtype.type.kind == "c" else 1
    assert len(getattr(ours, dtype.field)) == parts * array.size
    assert [field.name for field, _ in ours.ListFields()] == ["dtype", "tensor_shape", dtype.field]


@each_number
def test_any_layout_in_memory(dtype: DType) -> None:
    plain = np.arange(24).reshape(2, 3, 4).astype(dtype.type)
    layouts = [
        np.asfortranarray(plain),
        plain.transpose(2, 0, 1),
        plain[:, ::-1],
        plain[::2, 1:, ::3],
        np.broadcast_to(plain[:1], (5, 3, 4)),
    ]
    if dtype.numpy != "bfloat16":  # which numpy knows in the machine's order only
        layouts += [plain.astype(dtype.type.newbyteorder(order)) for order in "<>"]
        layouts += [np.asfortranarray(plain.astype(dtype.type.newbyteorder(">")))]
    for array in layouts:
        for typed in (False, True):
            back = from_proto(to_proto(array, typed=typed))
            assert bits(back) == bits(np.ascontiguousarray(array).astype(dtype.type))


@each_number
def test_one_value_alone(dtype: DType) -> None:
    for value in (np.array(1).astype(dtype.type), dtype.type.type(1)):
        for typed in (False, True):
            proto = to_proto(value, typed=typed)
            assert proto.HasField("tensor_shape")
            assert from_proto(proto).shape == ()
            assert theirs(proto) == value


def test_one_text_alone() -> None:
    for value in ("Grüße", "Grüße".encode(), np.str_("Grüße"), bytearray("Grüße".encode()), np.array("Grüße")):
        back = from_proto(to_proto(as_array(value, dtypes.by_name("DT_STRING"))))
        assert back.shape == ()
        assert back.item() == "Grüße".encode()


def test_texts_keep_every_byte() -> None:
    texts = [[b"a\0", b"\0\0"], ["\0b", b"\xff"]]
    back = from_proto(to_proto(texts))
    assert back.tolist() == [[b"a\0", b"\0\0"], [b"\0b", b"\xff"]]
    assert from_proto(to_proto(np.array(["a", "bc"]))).tolist() == [b"a", b"bc"]
    assert from_proto(to_proto(np.array([b"a", b"bc"]))).tolist() == [b"a", b"bc"]
    assert from_proto(to_proto([np.array(["a", "b"]), np.array(["c", "d"])])).tolist() == [[b"a", b"b"], [b"c", b"d"]]


def test_a_tensor_of_tensorflow_is_an_array_and_keeps_its_type() -> None:
    tensor = tf.constant([1.0, 2.0], tf.float64)
    assert as_array(tensor, dtypes.by_name("DT_FLOAT")).dtype == np.float64
    assert as_array(tf.constant([b"\xff\0"])).tolist() == [b"\xff\0"]


def test_an_array_is_not_copied_without_need() -> None:
    array = np.zeros((2, 3), np.float32)
    assert as_array(array) is array


# ---- Python values


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        ([1, 2], "DT_FLOAT", np.array([1, 2], "f4")),
        ([1, 2.5], "DT_HALF", np.array([1, 2.5], "f2")),
        ([0.1], "DT_FLOAT", np.array([0.1], "f4")),
        ([0.1, float("nan"), float("inf")], "DT_DOUBLE", np.array([0.1, np.nan, np.inf])),
        ([1], "DT_COMPLEX64", np.array([1], "c8")),
        ([1j, 2.5], "DT_COMPLEX64", np.array([1j, 2.5], "c8")),
        ([-128, 127], "DT_INT8", np.array([-128, 127], "i1")),
        ([1, 2**63, 2**64 - 1], "DT_UINT64", np.array([1, 2**63, 2**64 - 1], "u8")),
        ([-(2**63)], "DT_INT64", np.array([-(2**63)])),
        ([2**64], "DT_FLOAT", np.array([2.0**64], "f4")),
        ([1.5, 2**70], "DT_DOUBLE", np.array([1.5, 2.0**70])),
        ([True, False], "DT_BOOL", np.array([True, False])),
        ([], "DT_INT32", np.zeros(0, "i4")),
        ([], "DT_UINT64", np.zeros(0, "u8")),
        ([], "DT_BOOL", np.zeros(0, bool)),
        ([[], []], "DT_STRING", np.zeros((2, 0), object)),
        (7, "DT_INT64", np.array(7)),
        (range(3), "DT_INT32", np.arange(3, dtype="i4")),
        ((1, (2)), "DT_INT32", np.array([1, 2], "i4")),
    ],
)
def test_python_values_take_the_wanted_type(value: Any, dtype: str, expected: Any) -> None:
    assert bits(as_array(value, dtypes.by_name(dtype))) == bits(expected)


@pytest.mark.parametrize(
    ("value", "dtype", "kind"),
    [
        ([1.0], "DT_INT32", "f"),
        ([1.5], "DT_UINT64", "f"),
        ([True], "DT_INT32", "b"),
        ([1], "DT_BOOL", "i"),
        ([1j], "DT_FLOAT", "c"),
        (["1"], "DT_FLOAT", "O"),
    ],
)
def test_a_value_of_another_kind_stays_what_it_is(value: Any, dtype: str, kind: str) -> None:
    assert as_array(value, dtypes.by_name(dtype)).dtype.kind == kind


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        ([[1], [2, 3]], "DT_FLOAT", "ragged"),
        ([1, [2]], "DT_FLOAT", "ragged"),
        ([["a"], ["b", "c"]], "DT_STRING", "ragged"),
        (["a", ["b"]], "DT_STRING", "ragged"),
        ([["a"], "b"], "DT_STRING", "ragged"),
        ([300], "DT_UINT8", "300 does not fit uint8"),
        ([-1], "DT_UINT64", "-1 does not fit uint64"),
        ([1, -(2**40)], "DT_INT32", f"{-(2**40)} does not fit int32"),
        ([2**63], "DT_INT64", f"{2**63} does not fit int64"),
        ([1e40], "DT_FLOAT", "1e\\+40 does not fit float32"),
        ([70000], "DT_HALF", "70000 does not fit float16"),
        ([-1, 2**63], "DT_UINT64", "too large"),
        ([2**64], "DT_UINT64", "too large"),
        ([10**400], "DT_DOUBLE", "too large"),
        ([2**64], None, "too large"),
        ([None], "DT_FLOAT", "element 0 is of type NoneType"),
        ([1.0, "a"], "DT_FLOAT", "element 0 is of type float"),
        ([b"a", 1], "DT_STRING", "element 1 is of type int"),
        ({"x": 1}, "DT_FLOAT", "is of type dict"),
        ("\ud800", "DT_STRING", "UTF-8"),
        (np.array([1, None], object), None, "element 0 is of type int"),
    ],
)
def test_a_value_that_is_no_tensor(value: Any, dtype: str | None, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        as_array(value, None if dtype is None else dtypes.by_name(dtype))
    assert len(str(caught.value).splitlines()) == 3


def test_more_than_a_message_carries() -> None:
    with pytest.raises(InputError, match="message ends at 2 GiB"):
        to_proto(np.zeros(2**31, np.uint8))  # never touched, so it takes no memory


# ---- protos as anybody may make them


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), shape=hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
def test_fewer_values_and_more_of_them(dtype: DType, data: st.DataObject, shape: tuple[int, ...]) -> None:
    """The last is repeated, surplus ones are ignored, none at all are zeros: as TensorFlow does it."""
    values = np.array(data.draw(st.lists(st.integers(0, 1), max_size=8)))
    typed = to_proto(["ab"[i] for i in values] if dtype.is_text else values.astype(dtype.type), typed=True)
    typed.tensor_shape.CopyFrom(proto_of(dtype.number, list(shape)).tensor_shape)
    assert bits(from_proto(typed)) == bits(theirs(typed))


ODD = {
    "no shape": proto_of(1, [], float_val=[3, 4]),
    "no shape field": protos.TensorProto(dtype=1, float_val=[3, 4]),
    "nothing": protos.TensorProto(dtype=1),
    "values of another field": proto_of(1, [2], int_val=[3, 4], double_val=[1]),
    "content wins": proto_of(1, [1], tensor_content=b"\0\0\x80?", float_val=[7]),
    "content for nothing": proto_of(1, [0, 2], tensor_content=b"abc"),
    "narrow integers wrap": proto_of(4, [2], int_val=[300, -1]),
    "half bits wrap": proto_of(19, [2], half_val=[70000, -1]),
    "half a complex number": proto_of(8, [2], scomplex_val=[1, 2, 3]),
    "texts in one piece": proto_of(7, [2], tensor_content=b"\1\2abc"),
    "a long text in one piece": proto_of(7, [], tensor_content=b"\xac\2" + b"x" * 300),
    "texts for nothing": proto_of(7, [0], tensor_content=b"\1a"),
    "text content wins": proto_of(7, [1], tensor_content=b"\1a", string_val=[b"b"]),
    "32 dimensions": proto_of(3, [1] * 32, int_val=[5]),
}
ODD["unknown rank"] = protos.TensorProto(dtype=1, float_val=[3, 4])
ODD["unknown rank"].tensor_shape.unknown_rank = True
BROKEN = {
    "no type": (proto_of(0, [1]), "DT_INVALID"),
    "a type of nobody": (proto_of(9999, [1]), "9999"),
    "a resource": (proto_of(20, [1]), "DT_RESOURCE"),
    "a negative dimension": (proto_of(1, [2, -1]), "no full shape"),
    "short content": (proto_of(1, [2], tensor_content=b"abcd"), "has 4 bytes, but shape \\[2\\] of float needs 8"),
    "long content": (proto_of(1, [1], tensor_content=b"abcde"), "has 5 bytes"),
    "no booleans": (proto_of(10, [2], tensor_content=b"\1\2"), "no booleans"),
    "short lengths": (proto_of(7, [3], tensor_content=b"\1\1"), "ends before its lengths"),
    "endless length": (proto_of(7, [1], tensor_content=b"\xff" * 8), "ends before its lengths"),
    "short texts": (proto_of(7, [2], tensor_content=b"\1\2ab"), "does not have the length"),
    "long texts": (proto_of(7, [2], tensor_content=b"\1\1abc"), "does not have the length"),
}
MORE_THAN_NUMPY = {
    "65 dimensions": (proto_of(1, [1] * 65), "65 dimensions"),
    "too much": (proto_of(1, [2**29]), "more than 2 GiB"),
    "too many texts": (proto_of(7, [2**28]), "more than 2 GiB"),
    "an overflow": (proto_of(1, [2**62, 2**62]), "more than 2 GiB"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_proto_is_read_as_tensorflow_reads_it(name: str) -> None:
    assert bits(from_proto(ODD[name])) == bits(theirs(ODD[name]))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_proto_is_refused_as_by_tensorflow(name: str) -> None:
    proto, words = BROKEN[name]
    with pytest.raises(InputError, match=words):
        from_proto(proto)
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError)):
        theirs(proto)


@pytest.mark.parametrize("name", MORE_THAN_NUMPY)
def test_a_proto_that_no_array_can_hold(name: str) -> None:
    proto, words = MORE_THAN_NUMPY[name]
    with pytest.raises(InputError, match=words):
        from_proto(proto)


def test_the_machine_is_little_endian() -> None:
    """What the tests above run on; on another machine `_little` swaps, which they would see."""
    assert sys.byteorder == "little"
