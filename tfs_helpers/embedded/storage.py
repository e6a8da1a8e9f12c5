"""Which version folders a base path holds, and which of them a version policy wants."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tfs_helpers.embedded.log import log
from tfs_helpers.version_folders import read_candidates

__all__ = ["aspired_versions", "read_versions"]


def read_versions(base_path: str) -> dict[int, str] | None:
    """`{version: folder}` of a base path, lowest first; None where the base path itself is missing.

    Where two names mean one number (`1` and `01`), the last in alphabetical order counts.
    """
    try:
        found = read_candidates(base_path)
    except OSError:
        return None
    for version, candidates in found.items():
        for ignored, loaded in pairwise(candidates):
            log.warning(
                "Duplicate version directories detected. Version %d will be loaded from %s, %s will be ignored.",
                version,
                loaded.name,
                ignored.name,
            )
    return {version: f"{base_path.rstrip('/')}/{candidates[-1].name}" for version, candidates in found.items()}


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
