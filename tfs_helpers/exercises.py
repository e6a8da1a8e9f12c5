"""Checks for the exercises: each says what is wrong with an answer, and how to go on. None gives the solution away."""

from os import PathLike

from tfs_helpers.errors import ExportError
from tfs_helpers.export.publishing import version_folder, versions
from tfs_helpers.pictures import eyes
from tfs_helpers.signatures import read_signatures

__all__ = ["check_nearest", "check_two_outputs"]

_NEAREST_TO_CAT_LEFT = "cat_right"


def check_nearest(answer: str | None) -> None:
    """Notebook 00: which eye is nearest to `cat_left`?"""
    if answer is None:
        print("Not yet: nearest is None. Put the name of an eye there.")
    elif answer not in eyes():
        print(f"Not yet: {answer!r} is no eye. They are {', '.join(eyes())}.")
    elif answer == "cat_left":
        print("Not yet: every eye is nearest to itself. Leave cat_left out.")
    elif answer != _NEAREST_TO_CAT_LEFT:
        print(f"Not yet: another eye is nearer than {answer}. Is it the smallest distance, and the right row?")
    else:
        print(f"Right: {answer}.")


def check_two_outputs(base_path: str | PathLike[str]) -> None:
    """Notebook 01: is there a published model with input `x` and outputs `half` and `double`?"""
    found = versions(base_path)
    if not found:
        print("Not yet: there is no version in that base path.")
        return
    try:
        signatures = read_signatures(version_folder(base_path, found[-1]))
    except ExportError as error:
        print(f"Not yet: {error.what}")
        return
    signature = signatures.get("serving_default")
    if signature is None:
        print("Not yet: the model has no signature serving_default.")
    elif sorted(signature.inputs) != ["x"]:
        print(f"Not yet: its inputs are {sorted(signature.inputs)}, not ['x'].")
    elif sorted(signature.outputs) != ["double", "half"]:
        print(f"Not yet: its outputs are {sorted(signature.outputs)}.")
        print("Return a dictionary with the keys half and double.")
    else:
        print("Right: the model has the input x and the outputs double and half.")
