"""What is looked at before anything is published: is this a SavedModel, is that a base path?"""

import re
from pathlib import Path

from google.protobuf.message import DecodeError

from tfs_helpers import protos
from tfs_helpers.errors import PublishError

__all__ = ["check_base_path", "check_saved_model"]

_MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
_KERAS_FILES = (".keras", ".h5", ".hdf5")
_VARIABLE_OPS = {"VarHandleOp", "VariableV2", "Variable"}
_NOT_CALLABLE = "__saved_model_init_op"
_URL = re.compile(r"[a-z][a-z0-9+.-]*:/")
_SHARD = re.compile(r"variables\.data-\d{5}-of-(\d{5})")


def check_base_path(base: Path, *, looks_like_version: bool) -> None:
    """See that `base` holds versions, or may come to.

    Args:
        base: the folder to publish into; need not exist.
        looks_like_version: its name is a number.

    Raises:
        PublishError: it is a URL, a file, or a version folder itself.
    """
    if _URL.match(str(base)):
        raise PublishError(
            f"{str(base).replace(':/', '://', 1)} is not a folder of this machine.",
            "Object stores have no rename, so a version cannot appear there at once.",
            "Upload the version folder with the store's own tool, saved_model.pb last.",
        )
    if base.exists() and not base.is_dir():
        raise PublishError(
            f"{base} is not a folder.", "", "Give the folder that holds, or will hold, the version folders."
        )
    if any((base / name).exists() for name in _MODEL_FILES):
        raise PublishError(
            f"{base} is a SavedModel itself.",
            "A base path holds version folders, and those hold models.",
            _parent(base),
        )
    if looks_like_version and not base.exists():
        raise PublishError(
            f"{base} does not exist, and its name is a number.", "It looks like a version folder.", _parent(base)
        )


def check_saved_model(folder: Path) -> None:
    """See that `folder` is a SavedModel that a server can load, as far as its files tell.

    Raises:
        PublishError: it is something else, or a part is missing.
    """
    if not folder.exists():
        raise PublishError(
            f"There is no {folder}.", "", "Give the folder that tf.saved_model.save or model.export wrote."
        )
    if not folder.is_dir():
        raise _a_file(folder)
    present = [folder / name for name in _MODEL_FILES if (folder / name).is_file()]
    if not present:
        raise _something_else(folder)
    if present[0].stat().st_size == 0:
        raise PublishError(f"{present[0]} is empty.", "Its export was cut short.", "Export the model again.")
    if present[0].suffix == ".pb":
        _check_content(folder, present[0])


def _parent(base: Path) -> str:
    return f"Publish into {base.parent} instead; its versions are found and numbered by themselves."


def _a_file(path: Path) -> PublishError:
    if path.suffix in _KERAS_FILES:
        return PublishError(
            f"{path} is a Keras file, and a server loads SavedModels only.",
            "model.save writes Keras files; model.export writes SavedModels.",
            "Use publish(model.export, base_path), after keras.models.load_model if need be.",
        )
    if path.name in _MODEL_FILES:
        return PublishError(
            f"{path} is only a part of a SavedModel.", "", f"Publish the folder it lies in, {path.parent}."
        )
    return PublishError(f"{path} is a file, not a SavedModel folder.", "", "Give the folder that holds saved_model.pb.")


def _something_else(folder: Path) -> PublishError:
    children = sorted(folder.iterdir())
    what = f"{folder} is not a SavedModel: it holds no saved_model.pb."
    models = [child for child in children if any((child / name).is_file() for name in _MODEL_FILES)]
    if models:
        return PublishError(what, "It holds folders that are.", f"Publish one of those, such as {models[-1]}.")
    if any(child.name == "variables.index" for child in children):
        return PublishError(what, "It is the variables folder of one.", f"Publish the folder above, {folder.parent}.")
    for child in children:
        if child.suffix in _KERAS_FILES:
            return _a_file(child)
    return PublishError(
        what, "" if children else "It is empty.", "Give the folder that tf.saved_model.save or model.export wrote."
    )


def _check_content(folder: Path, file: Path) -> None:
    try:
        model = protos.SavedModel.FromString(file.read_bytes())
    except DecodeError as error:
        raise PublishError(
            f"{file} is damaged.", "Its export or its copy was cut short.", "Export the model again."
        ) from error
    if not model.meta_graphs:
        raise PublishError(
            f"{file} holds no model.", "Its export or its copy was cut short.", "Export the model again."
        )
    if all(set(graph.signature_def) <= {_NOT_CALLABLE} for graph in model.meta_graphs):
        raise PublishError(
            f"{folder} has no signature, so nobody could call it.",
            "tf.saved_model.save writes none for a plain tf.Module.",
            'tf.saved_model.save(module, folder, signatures={"serving_default": module.predict})',
        )
    if any(node.op in _VARIABLE_OPS for graph in model.meta_graphs for node in graph.graph_def.node):
        _check_variables(folder)


def _check_variables(folder: Path) -> None:
    variables = folder / "variables"
    shards = [match for path in variables.glob("variables.data-*") if (match := _SHARD.fullmatch(path.name))]
    if (variables / "variables.index").is_file() and shards and len(shards) == int(shards[0][1]):
        return
    raise PublishError(
        f"{folder} is not complete: its graph has variables, their values are missing.",
        f"{variables} should hold variables.index and all of variables.data-?????-of-?????.",
        "Copy the whole folder, or export the model again.",
    )
