"""Checks for the exercises: each says what is wrong with an answer, and how to go on. None gives the solution away."""

from os import PathLike
from pathlib import Path

from tfs_helpers.errors import ExportError
from tfs_helpers.export.publishing import version_folder, versions
from tfs_helpers.pictures import eyes
from tfs_helpers.signatures import DEFAULT, TensorSpec, read_signatures

__all__ = ["check_nearest", "check_two_outputs"]

_NEAREST_TO_CAT_LEFT = "cat_right"


def check_nearest(answer: object) -> None:
    """Notebook 00: which eye is nearest to `cat_left`?"""
    if answer is None:
        print("Not yet: nearest is None. Put the name of an eye there.")
    elif not isinstance(answer, str):
        print(f"Not yet: give the name of one eye, a string, not a value of type {type(answer).__name__}.")
    elif answer not in eyes():
        print(f"Not yet: {answer!r} is no eye. They are {', '.join(eyes())}.")
    elif answer == "cat_left":
        print("Not yet: every eye is nearest to itself. Leave cat_left out.")
    elif answer != _NEAREST_TO_CAT_LEFT:
        print(f"Not yet: another eye is nearer than {answer}. Is it the smallest distance, and the right row?")
    else:
        print(f"Right: {answer}.")


def check_two_outputs(base_path: str | PathLike[str]) -> None:
    """Notebook 01: is there a published model with input `x`, and outputs `half` and `double` that are right?"""
    base = Path(base_path)
    if (base / "saved_model.pb").exists():
        print(f"Not yet: {base} is the SavedModel itself. It belongs into a version folder, {base / '1'}.")
        return
    found = versions(base)
    if not found:
        print(f"Not yet: there is no version. A server looks for {base / '1' / 'saved_model.pb'}.")
        return
    try:
        folder = version_folder(base, found[-1])
        signature = read_signatures(folder).get(DEFAULT)
    except ExportError as error:
        print(f"Not yet: {error.what}")
        return
    if signature is None:
        print("Not yet: the model has no signature serving_default.")
    elif list(signature.inputs.values()) != [TensorSpec("x", "DT_FLOAT", (None,))]:
        listed = ", ".join(map(str, signature.inputs.values()))
        print(f"Not yet: it takes {listed}. It should take x: float32 of any length, TensorSpec([None], tf.float32).")
    elif sorted(signature.outputs) != ["double", "half"]:
        print(f"Not yet: its outputs are {sorted(signature.outputs)}.")
        print("Return a dictionary with the keys half and double.")
    else:
        _check_values(folder)


def _check_values(folder: Path) -> None:
    import tensorflow as tf

    numbers = tf.constant([1.0, 2.0, 5.0])
    outputs = tf.saved_model.load(str(folder)).signatures[DEFAULT](x=numbers)
    for name, wanted in {"half": [0.5, 1.0, 2.5], "double": [2.0, 4.0, 10.0]}.items():
        got = outputs[name].numpy().tolist()
        if got != wanted:
            print(f"Not yet: for x = [1, 2, 5], {name} should be {wanted}, and is {got}.")
            return
    print("Right: the input x, the outputs double and half, and their values.")
