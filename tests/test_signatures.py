"""Signatures: from disk, from both wires, and against arrays."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from served_models import DTYPES

from tfs_helpers import RunningServer, protos
from tfs_helpers.dtypes import DTYPES as ALL
from tfs_helpers.errors import ExportError, InputError, TfsError
from tfs_helpers.signatures import Signature, TensorSpec, find_signature, read_signatures, signatures_from


def one(dtype: str, shape: tuple[int | None, ...] | None, name: str = "x") -> Signature:
    return Signature("serving_default", "", {name: TensorSpec(name, dtype, shape)}, {})


TWO = Signature(
    "serving_default",
    "",
    {"eyes": TensorSpec("eyes", "DT_FLOAT", (None, 128, 128, 1)), "weight": TensorSpec("weight", "DT_INT64", ())},
    {"output_1": TensorSpec("output_1", "DT_FLOAT", (None, 512))},
)


def refusal(call: Callable[[], object], kind: type[TfsError] = InputError) -> str:
    """The text of the error, which has at most three lines and no empty one."""
    with pytest.raises(kind) as caught:
        call()
    lines = str(caught.value).splitlines()
    assert 1 <= len(lines) <= 3
    assert all(lines)
    return str(caught.value)


# ---- from disk, and from the wires


@pytest.mark.parametrize("name", ["half_plus_two", "eye1_encoder"])
def test_the_same_as_tensorflow_reads(models: Path, name: str) -> None:
    folder = next(path for path in sorted((models / name).iterdir()) if path.name.isdecimal())
    loaded = tf.saved_model.load(str(folder))
    ours = {key: value for key, value in read_signatures(folder).items() if not key.startswith("__")}
    assert set(ours) == set(loaded.signatures)
    for key, function in loaded.signatures.items():
        for specs, theirs in (
            (ours[key].inputs, function.structured_input_signature[1]),
            (ours[key].outputs, function.structured_outputs),
        ):
            assert set(specs) == set(theirs)
            for label, spec in specs.items():
                assert spec.name == label
                assert protos.enum_value("tensorflow.DataType", spec.dtype) == theirs[label].dtype.as_datatype_enum
                known = theirs[label].shape
                assert spec.shape == (None if known.rank is None else tuple(known.as_list()))
        assert ours[key].method == "tensorflow/serving/predict"


def test_disk_and_both_wires_say_the_same(rich_models: Path, rich_server: RunningServer) -> None:
    for base_path in sorted(rich_models.iterdir()):
        written = read_signatures(base_path / "1")
        for client in (rich_server.rest(), rich_server.grpc()):
            metadata = client.metadata(base_path.name)
            assert (metadata.name, metadata.version) == (base_path.name, 1)
            assert metadata.signatures == written


def test_what_the_models_say(rich_models: Path) -> None:
    def of(name: str) -> dict[str, Signature]:
        return read_signatures(str(rich_models / name / "1"))

    assert str(of("mixed")["serving_default"]).splitlines() == [
        "serving_default",
        "  in   count       int32 (?,)",
        "  in   features    float32 (?, 2)",
        "  in   label       string (?,)",
        "  out  big         int64 (?,)",
        "  out  even        bool (?,)",
        "  out  huge        uint64 (?,)",
        "  out  text        string (?,)",
        "  out  text_bytes  string (?,)",
        "  out  total       float32 (?,)",
    ]
    assert of("scalar")["serving_default"].inputs["a"] == TensorSpec("a", "DT_FLOAT", ())
    assert of("any_rank")["serving_default"].inputs["x"].shape is None
    assert str(of("any_rank")["serving_default"].inputs["x"]) == "x: float32 (any shape)"
    assert of("fixed")["serving_default"].inputs["grid"].shape == (2, 3)
    assert list(of("texts")) == ["echo", "echo_bytes", "serving_default"]
    assert of("variable")["serving_default"].outputs["value"].dtype == "DT_FLOAT_REF"
    assert of("variable")["serving_default"].outputs["value"].word == "float32"
    for dtype in DTYPES:
        assert of(f"identity_{dtype}")["serving_default"].inputs["x"].word == dtype


def test_types_that_numpy_has_not_are_named_all_the_same() -> None:
    definition = protos.SignatureDef(method_name="m")
    definition.inputs["a"].dtype = 20
    definition.inputs["b"].dtype = 9999
    definition.inputs["b"].tensor_shape.unknown_rank = True
    signature = signatures_from({"s": definition})["s"]
    assert str(signature).splitlines()[1:] == ["  in   a  DT_RESOURCE ()", "  in   b  9999 (any shape)"]
    assert "DT_RESOURCE" in refusal(lambda: signature.check({"a": 1, "b": 2}))


def test_inputs_with_a_default_may_be_left_out() -> None:
    definition = protos.SignatureDef()
    for name in ("x", "scale"):
        definition.inputs[name].dtype = 1
    definition.defaults["scale"].dtype = 1
    signature = signatures_from({"s": definition})["s"]
    assert signature.optional == {"scale"}
    assert list(signature.check({"x": 1.0})) == ["x"]
    assert "also needs 'x'" in refusal(lambda: signature.check({"scale": 1.0}))


# ---- folders that are no SavedModel


def test_a_folder_that_is_no_saved_model(tmp_path: Path, rich_models: Path) -> None:
    assert "The folder does not exist" in refusal(lambda: read_signatures(tmp_path / "none"), ExportError)
    assert "Export the model there first" in refusal(lambda: read_signatures(tmp_path), ExportError)
    for version in ("9", "10", "tmp"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "saved_model.pb").touch()
    words = refusal(lambda: read_signatures(tmp_path), ExportError)
    assert "looks like a base path" in words
    assert f"Read {tmp_path / '10'} instead" in words
    assert "Not a directory" in refusal(lambda: read_signatures(tmp_path / "9" / "saved_model.pb"), ExportError)
    (tmp_path / "saved_model.pb").mkdir()
    assert "Is a directory" in refusal(lambda: read_signatures(tmp_path), ExportError)


@pytest.mark.parametrize("content", [b"", b"\x00", b"<html>not found</html>", b"version https://git-lfs", b"\xff" * 99])
def test_a_file_that_is_no_saved_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    assert "is not a SavedModel" in refusal(lambda: read_signatures(tmp_path), ExportError)


@given(cut=st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short(rich_models: Path, tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
    content = (rich_models / "mixed" / "1" / "saved_model.pb").read_bytes()
    folder = tmp_path_factory.mktemp("cut")
    (folder / "saved_model.pb").write_bytes(content[: int(cut * len(content))])
    assert "is not a SavedModel" in refusal(lambda: read_signatures(folder), ExportError)


def test_a_graph_of_other_tags(tmp_path: Path) -> None:
    model = protos.SavedModel()
    model.meta_graphs.add().meta_info_def.tags.extend(["train", "gpu"])
    model.meta_graphs.add()
    (tmp_path / "saved_model.pb").write_bytes(model.SerializeToString())
    words = refusal(lambda: read_signatures(tmp_path), ExportError)
    assert "no graph tagged serve" in words
    assert "train, gpu; none" in words
    assert read_signatures(tmp_path, tags=("gpu", "train")) == {}


# ---- names


def test_one_input_needs_no_name() -> None:
    assert one("DT_FLOAT", (None,)).check([1, 2])["x"].tolist() == [1.0, 2.0]
    words = refusal(lambda: TWO.check([1.0]))
    assert "has 2 inputs, but one value without a name" in words
    assert "eyes: float32 (?, 128, 128, 1); weight: int64 ()" in words


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["eyes", "wieght"], "has no input 'wieght' and also needs 'weight'.*Did you mean 'weight'"),
        (["eyes"], "also needs 'weight'.*It takes eyes: float32"),
        (["eyes", "weight", "zebra"], "has no input 'zebra'\\..*Use exactly these names"),
        (["Eyes", "weight", 7], "has no input '7', 'Eyes' and also needs 'eyes'"),
        ([], "also needs 'eyes', 'weight'"),
    ],
)
def test_wrong_names(names: list[Any], words: str) -> None:
    text = refusal(lambda: TWO.check(dict.fromkeys(names, 0)))
    assert re.search(words, text, re.DOTALL), text


def test_a_signature_that_takes_nothing() -> None:
    empty = Signature("reset", "", {}, {})
    assert empty.check({}) == {}
    assert "takes no input at all" in refusal(lambda: empty.check({"x": 1}))
    assert "has 0 inputs" in refusal(lambda: empty.check(1))


def test_no_such_signature() -> None:
    known = {"serving_default": TWO, "encode": TWO, "__saved_model_init_op": TWO}
    assert find_signature(known, "encode") is TWO
    words = refusal(lambda: find_signature(known, "encoed"))
    assert "Did you mean 'encode'" in words
    assert "__saved_model_init_op" not in words
    assert "'serving_default', 'encode'" in refusal(lambda: find_signature(known, "zzz"))
    assert "none that can be called" in refusal(lambda: find_signature({}, "serving_default"))


# ---- types


def test_numpys_float64_is_refused_by_name() -> None:
    words = refusal(lambda: one("DT_FLOAT", (None,)).check(np.zeros(3)))
    assert "'x' must be float32, but the array is float64" in words
    assert "numpy makes float64" in words
    assert 'astype("float32")' in words


@pytest.mark.parametrize("wanted", ALL, ids=lambda d: d.name)
@pytest.mark.parametrize("found", ALL, ids=lambda d: d.name)
def test_an_array_must_have_the_very_type(wanted: Any, found: Any) -> None:
    signature = one(wanted.name, (None,))
    array = np.full(2, b"1", object) if found.is_text else np.ones(2, found.type)
    if wanted is found:
        assert signature.check({"x": array})["x"] is array or found.is_text
        return
    words = refusal(lambda: signature.check({"x": array}))
    assert f"must be {wanted.label}, but the array is {found.label}" in words


def test_lists_take_the_type_where_they_fit() -> None:
    assert one("DT_FLOAT", (None,)).check([1, 2.5])["x"].dtype == np.float32
    assert one("DT_UINT64", (None,)).check([2**64 - 1, 0])["x"].tolist() == [2**64 - 1, 0]
    assert one("DT_STRING", ()).check("ü")["x"].item() == "ü".encode()
    assert "must be int32, but the array is float64" in refusal(lambda: one("DT_INT32", (None,)).check([1.0]))
    assert "must be bool, but the array is int64" in refusal(lambda: one("DT_BOOL", (None,)).check([1]))
    assert "300 does not fit uint8" in refusal(lambda: one("DT_UINT8", (None,)).check([300]))
    assert "must be float32, but the array is string" in refusal(lambda: one("DT_FLOAT", (None,)).check(["1"]))
    assert "ragged" in refusal(lambda: one("DT_FLOAT", None).check([[1], [2, 3]]))


# ---- shapes


@pytest.mark.parametrize(
    ("wanted", "got", "words"),
    [
        ((None, 128, 128, 1), (128, 128, 1), "batch dimension is missing.*array\\[np.newaxis\\]"),
        ((None, 128, 128, 1), (7, 128, 128), "last dimension is missing.*array\\[..., np.newaxis\\]"),
        ((None, 128, 128, 1), (128, 128), "first and the last.*array\\[np.newaxis, ..., np.newaxis\\]"),
        ((None, 128, 128, 1), (1, 64, 64, 1), "Dimension 1 must be 128 and is 64.*crop, resize or pad"),
        ((None, 128, 128, 1), (16384,), "needs 4 dimensions and has 1.*array.reshape"),
        ((None, 3), (5,), "needs 2 dimensions and has 1.*crop, resize or pad"),
        ((2, 3), (3,), "needs 2 dimensions and has 1"),
        ((2, 3), (3, 2), "Dimension 0 must be 2 and is 3.*array.reshape"),
        ((), (1,), "needs 0 dimensions and has 1.*array.reshape"),
        ((), (2,), "needs 0 dimensions and has 1.*crop"),
        ((None,), (), "batch dimension is missing"),
        ((None, 2), (0, 3), "Dimension 1 must be 2 and is 3"),
    ],
)
def test_wrong_shapes(wanted: tuple[int | None, ...], got: tuple[int, ...], words: str) -> None:
    text = refusal(lambda: one("DT_FLOAT", wanted).check(np.zeros(got, np.float32)))
    assert f"must have shape {TensorSpec('x', 'DT_FLOAT', wanted).shape_text}, but the array has {got}" in text
    assert re.search(words, text, re.DOTALL), text


@given(st.lists(st.none() | st.integers(0, 3), max_size=3), st.lists(st.integers(0, 3), max_size=3))
def test_advice_on_shapes_is_true(wanted: list[int | None], got: list[int]) -> None:
    """Whoever follows it has an array that fits."""
    spec, array = TensorSpec("x", "DT_FLOAT", tuple(wanted)), np.zeros(got, np.float32)
    fits = len(wanted) == len(got) and all(want in (None, size) for want, size in zip(wanted, got, strict=True))
    assert spec.fits(tuple(got)) == fits
    if fits:
        assert spec.check(array) is array
        return
    text = refusal(lambda: spec.check(array))
    cures = {
        "array[np.newaxis].": array[np.newaxis],
        "array[..., np.newaxis].": array[..., np.newaxis],
        "array[np.newaxis, ..., np.newaxis].": array[np.newaxis, ..., np.newaxis],
    }
    for cure, cured in cures.items():
        if cure in text:
            assert spec.check(cured) is cured


def test_any_shape_will_do_where_the_model_says_so() -> None:
    for shape in ((), (0,), (2, 3, 4)):
        assert one("DT_FLOAT", None).check(np.zeros(shape, np.float32))["x"].shape == shape
    assert one("DT_FLOAT", (None, 2)).check(np.zeros((0, 2), np.float32))["x"].shape == (0, 2)
