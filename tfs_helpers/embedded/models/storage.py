"""Which version folders a base path holds, and which of them a version policy wants."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tfs_helpers.embedded.log import log
from tfs_helpers.version_folders import read_candidates

__all__ = ["aspired_versions", "read_versions"]

_LOCAL = "file://"


def read_versions(model: str, base_path: str) -> dict[int, str] | None:
    """`{version: folder}` of a base path, lowest first; None where the base path itself cannot be read.

    Where two names mean one number (`1` and `01`), the last in alphabetical order counts.
    """
    scheme, remote, _ = base_path.removeprefix(_LOCAL).partition("://")
    if remote:
        _cannot_find(model, base_path, f"UNIMPLEMENTED: File system scheme '{scheme}' not implemented")
        return None
    folder = base_path.removeprefix(_LOCAL)
    try:
        found = read_candidates(folder)
    except FileNotFoundError:
        _cannot_find(model, base_path, f"NOT_FOUND: {base_path} not found")
        return None
    except OSError as error:
        _cannot_find(model, base_path, f"UNKNOWN: {base_path}; {error.strerror}")
        return None
    for version, candidates in found.items():
        for ignored, loaded in pairwise(candidates):
            log.warning(
                "Duplicate version directories detected. Version %d will be loaded from %s, %s will be ignored.",
                version,
                loaded.name,
                ignored.name,
            )
    return {version: f"{folder.rstrip('/')}/{candidates[-1].name}" for version, candidates in found.items()}


def _cannot_find(model: str, base_path: str, why: str) -> None:
    log.error(
        "FileSystemStoragePathSource encountered a filesystem access error: Could not find base path "
        "%s for servable %s with error %s",
        *(base_path, model, why),
    )


def aspired_versions(model: str, base_path: str, policy: Any, found: Mapping[int, str]) -> dict[int, str]:
    """Those of the `found` versions that a `ServableVersionPolicy` proto wants; the latest where it says nothing."""
    if not found:
        log.warning(
            "No versions of servable %s found under base path %s. "
            "Did you forget to name your leaf directory as a number (eg. '/1/')?",
            model,
            base_path,
        )
        return {}
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return dict(found)
    if choice == "specific":
        return _specific(model, policy.specific.versions, found)
    many = policy.latest.num_versions or 1
    return {version: found[version] for version in sorted(found)[-many:]}


def _specific(model: str, wanted: Any, found: Mapping[int, str]) -> dict[int, str]:
    if not wanted:
        log.warning("No specific versions requested for servable %s.", model)
    for version in wanted:
        if version not in found:
            log.warning(
                "Version %d of servable %s, which was requested to be served as a 'specific' version in the "
                "servable's version policy, was not found in the file system",
                version,
                model,
            )
    return {version: found[version] for version in wanted if version in found}
