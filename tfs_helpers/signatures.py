"""What a model takes and gives: read from a SavedModel on disk or from a server's metadata, and held against
arrays before they are sent.

    signature = read_signatures("models/half_plus_two/1")["serving_default"]
    arrays = signature.check({"x": [1.0, 2.0]})
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

import numpy.typing as npt
from google.protobuf.message import DecodeError

from tfs_helpers import dtypes, protos
from tfs_helpers.errors import ExportError, InputError
from tfs_helpers.tensors import as_array

__all__ = [
    "DEFAULT",
    "ModelMetadata",
    "Signature",
    "TensorSpec",
    "find_signature",
    "read_signatures",
    "signatures_from",
]

DEFAULT = "serving_default"
"""The signature that runs when a request names none."""


@dataclass(frozen=True)
class TensorSpec:
    """One named input or output of a signature.

    Attributes:
        name: the name that requests and answers use.
        dtype: TensorFlow's name of its type, such as `DT_FLOAT`.
        shape: its dimensions, None where any size will do; None as a whole where even the rank is open.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        return f"{self.name}: {self.word} {self.shape_text}"

    @property
    def word(self) -> str:
        """Its type in numpy's words: `float32`; `string` for bytes; TensorFlow's name where numpy has none."""
        try:
            return dtypes.by_name(self.dtype).label
        except InputError:
            return self.dtype

    @property
    def shape_text(self) -> str:
        """Its shape as people write it: `(?, 128, 128, 1)`."""
        if self.shape is None:
            return "(any shape)"
        sizes = ["?" if size is None else str(size) for size in self.shape]
        return "(" + ", ".join(sizes) + ("," if len(sizes) == 1 else "") + ")"

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of that shape may be fed to it."""
        if self.shape is None:
            return True
        if len(shape) != len(self.shape):
            return False
        return all(want is None or want == got for want, got in zip(self.shape, shape, strict=True))

    def check(self, value: Any) -> npt.NDArray[Any]:
        """`value` as an array that this tensor takes.

        Python numbers and lists become the wanted type; an array must have it already, so that
        no precision is lost without a word.

        Raises:
            InputError: another dtype or shape, or no tensor at all.
        """
        wanted = dtypes.by_name(self.dtype)
        array = as_array(value, wanted)
        found = dtypes.of_array(array)
        if found.number != wanted.number:
            raise InputError(
                f"Input {self.name!r} must be {self.word}, but the array is {found.label}.",
                _why_dtype(found, wanted),
                _fix_dtype(found, wanted),
            )
        if not self.fits(array.shape):
            raise InputError(
                f"Input {self.name!r} must have shape {self.shape_text}, but the array has {_shape_text(array.shape)}.",
                *self._why_and_fix(array.shape),
            )
        return array

    def _why_and_fix(self, got: tuple[int, ...]) -> tuple[str, str]:
        wanted = self.shape or ()
        if self.fits((1, *got)):
            why = "The batch dimension is missing: models take many examples at once, even if it is one."
            return why, "Add it: array[np.newaxis]."
        if self.fits((*got, 1)):
            return "The last dimension is missing: a grey picture has one channel.", "Add it: array[..., np.newaxis]."
        if self.fits((1, *got, 1)):
            return "The first and the last dimension are missing.", "Add them: array[np.newaxis, ..., np.newaxis]."
        fix = "Bring the array to that shape first: crop, resize or pad it."
        known = math.prod(size for size in wanted if size is not None)
        if math.prod(got) == known:
            fix = "The number of values fits: array.reshape may be what you need."
        if len(got) != len(wanted):
            return f"It needs {len(wanted)} dimensions and has {len(got)}.", fix
        axis = next(i for i, (want, size) in enumerate(zip(wanted, got, strict=True)) if want not in (None, size))
        return f"Dimension {axis} must be {wanted[axis]} and is {got[axis]}.", fix


@dataclass(frozen=True)
class Signature:
    """One way to call a model.

    Attributes:
        name: its key, such as `serving_default`.
        method: its method name, such as `tensorflow/serving/predict`; may be empty.
        inputs: by name.
        outputs: by name.
        optional: names of inputs that have a default in the model and may be left out over gRPC.
    """

    name: str
    method: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    optional: frozenset[str] = frozenset()

    def __str__(self) -> str:
        rows = [("in", spec) for spec in self.inputs.values()] + [("out", spec) for spec in self.outputs.values()]
        width = max((len(spec.name) for _, spec in rows), default=0)
        lines = [f"  {way:<3}  {spec.name:<{width}}  {spec.word} {spec.shape_text}" for way, spec in rows]
        return "\n".join([self.name, *lines])

    def check(self, inputs: Any) -> dict[str, npt.NDArray[Any]]:
        """The inputs as arrays that this signature takes.

        Args:
            inputs: `{name: array-like}`; the array-like alone where the signature has one input.

        Raises:
            InputError: a name is missing or unknown, or a value does not fit; it says what was expected.
        """
        if not isinstance(inputs, Mapping):
            if len(self.inputs) != 1:
                raise InputError(
                    f"Signature {self.name!r} has {len(self.inputs)} inputs, but one value without a name was given.",
                    f"It takes {_listed(self.inputs)}.",
                    "Give a dictionary from input name to array.",
                )
            inputs = {next(iter(self.inputs)): inputs}
        unknown = sorted(str(name) for name in inputs if name not in self.inputs)
        missing = sorted(name for name in self.inputs if name not in inputs and name not in self.optional)
        if unknown or missing:
            raise InputError(*self._names_are_wrong(unknown, missing))
        return {name: self.inputs[name].check(value) for name, value in inputs.items()}

    def _names_are_wrong(self, unknown: list[str], missing: list[str]) -> tuple[str, str, str]:
        said = [f"has no input {', '.join(map(repr, unknown))}"] if unknown else []
        said += [f"also needs {', '.join(map(repr, missing))}"] if missing else []
        takes = f"It takes {_listed(self.inputs)}." if self.inputs else "It takes no input at all."
        near = get_close_matches(unknown[0], self.inputs, n=1) if unknown else []
        fix = f"Did you mean {near[0]!r}?" if near else "Use exactly these names as the dictionary's keys."
        return f"Signature {self.name!r} {' and '.join(said)}.", takes, fix


@dataclass(frozen=True)
class ModelMetadata:
    """What a server says of one loaded version of a model."""

    name: str
    version: int
    signatures: Mapping[str, Signature]

    def __str__(self) -> str:
        return "\n".join([f"{self.name}, version {self.version}", *(str(s) for s in self.signatures.values())])


def find_signature(signatures: Mapping[str, Signature], name: str) -> Signature:
    """The signature called `name`.

    Raises:
        InputError: there is none; it names those that are there.
    """
    if name in signatures:
        return signatures[name]
    callable_ones = [key for key in signatures if not key.startswith("__")]
    near = get_close_matches(name, callable_ones, n=1)
    raise InputError(
        f"The model has no signature {name!r}.",
        f"It has {', '.join(map(repr, callable_ones)) or 'none that can be called'}.",
        f"Did you mean {near[0]!r}?" if near else "Signatures are fixed when the model is exported: use one of these.",
    )


def signatures_from(signature_defs: Mapping[str, Any]) -> dict[str, Signature]:
    """Signatures, sorted by name, from a map of SignatureDef protos."""
    return {
        key: Signature(
            key,
            definition.method_name,
            {name: _spec(name, definition.inputs[name]) for name in sorted(definition.inputs)},
            {name: _spec(name, definition.outputs[name]) for name in sorted(definition.outputs)},
            frozenset(definition.defaults),
        )
        for key, definition in sorted(signature_defs.items())
    }


def _spec(name: str, info: Any) -> TensorSpec:
    shape = None
    if not info.tensor_shape.unknown_rank:
        shape = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    return TensorSpec(name, protos.enum_name("tensorflow.DataType", info.dtype), shape)


def read_signatures(version_folder: str | PathLike[str], *, tags: tuple[str, ...] = ("serve",)) -> dict[str, Signature]:
    """The signatures of a SavedModel on disk. Needs no TensorFlow.

    Args:
        version_folder: the folder that holds `saved_model.pb`.
        tags: which of the SavedModel's graphs; the server loads `serve`.

    Raises:
        ExportError: there is no SavedModel, or it cannot be read, or has no graph with these tags.
    """
    folder = Path(version_folder)
    path = folder / "saved_model.pb"
    try:
        model = protos.SavedModel.FromString(path.read_bytes())
    except FileNotFoundError:
        raise ExportError(*_no_saved_model(folder)) from None
    except OSError as error:
        raise ExportError(
            f"Cannot read {path}: {error.strerror}.", "", "Check the folder and its permissions."
        ) from None
    except DecodeError:
        model = protos.SavedModel()
    if not model.meta_graphs:
        raise ExportError(
            f"{path} is not a SavedModel.",
            "The file is empty, cut short or damaged, or another kind of file has that name.",
            "Export the model again, and publish it in one step so that nobody meets half a file.",
        )
    for graph in model.meta_graphs:
        if set(graph.meta_info_def.tags) == set(tags):
            return signatures_from(graph.signature_def)
    held = "; ".join(", ".join(graph.meta_info_def.tags) or "none" for graph in model.meta_graphs)
    raise ExportError(
        f"{path} has no graph tagged {', '.join(tags)}.",
        f"The tags in the file: {held}.",
        "Export it for serving, with tf.saved_model.save or model.export.",
    )


def _no_saved_model(folder: Path) -> tuple[str, str, str]:
    what = f"There is no saved_model.pb in {folder}."
    if not folder.is_dir():
        return what, "The folder does not exist.", "Check the path; a relative one starts at the current directory."
    inner = [child for child in folder.iterdir() if (child / "saved_model.pb").is_file()]
    if inner:
        why = "This looks like a base path: the folder above the versions."
        latest = max(inner, key=lambda child: (int(child.name) if child.name.isdecimal() else -1, child.name))
        return what, why, f"Read {latest} instead."
    return what, "A SavedModel is a folder with saved_model.pb and variables/ in it.", "Export the model there first."


def _listed(specs: Mapping[str, TensorSpec]) -> str:
    return "; ".join(str(spec) for spec in specs.values())


def _shape_text(shape: tuple[int, ...]) -> str:
    return str(tuple(int(size) for size in shape))


def _why_dtype(found: dtypes.DType, wanted: dtypes.DType) -> str:
    if found.numpy == "float64" and wanted.numpy == "float32":
        return "numpy makes float64 unless told otherwise; the server would refuse it."
    if wanted.is_text:
        return "A string input takes text or bytes, such as an encoded picture or a serialized example."
    if found.is_text:
        return "The input takes numbers; encoded text or pictures need a model that decodes them."
    return "A server never converts types: they must be the signature's."


def _fix_dtype(found: dtypes.DType, wanted: dtypes.DType) -> str:
    if wanted.is_text or found.is_text:
        return "Send what the signature says, or export a signature that takes what you have."
    return f'Convert it yourself, so that you see it: array.astype("{wanted.numpy}").'
