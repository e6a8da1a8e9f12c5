"""What a server will find under a base path, looked at before it is started.

The real server waits for ever, without a word to its caller and with every
port closed, for a folder that does not come. So each way of that is found here.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path

from tfs_helpers.config import All, Latest, Model, Specific, is_uri
from tfs_helpers.errors import ConfigError
from tfs_helpers.version_folders import parse_version, read_versions

__all__ = ["check_folders", "versions_to_wait_for"]

_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


def versions_to_wait_for(model: Model) -> set[int]:
    """The versions that the policy calls for, as the folder stands now; empty where it cannot be looked into."""
    if isinstance(model.policy, Specific):
        return set(model.policy.versions)
    if is_uri(model.path):
        return set()
    found = list(read_versions(Path(model.path)))
    return set(found[-model.policy.num_versions :] if isinstance(model.policy, Latest) else found)


def check_folders(models: Iterable[Model], *, graphs: Iterable[str] = _GRAPHS) -> None:
    """Make sure that a server would load each of the models.

    Args:
        models: what is to be served. A URI is taken on trust.
        graphs: the files of which a version folder must hold one.

    Raises:
        ConfigError: it would wait for ever, or give up; the message names the folder and the cure.
    """
    for model in models:
        if not is_uri(model.path):
            base = _as_people_write_it(Path(model.path))
            _check_base_path(model, base, tuple(graphs))
            _check_versions(model, base, tuple(graphs))


def _as_people_write_it(path: Path) -> Path:
    """A path below the current folder as a relative one: messages name it as it was typed."""
    current = Path.cwd()
    return path.relative_to(current) if path.is_relative_to(current) else path


def _check_base_path(model: Model, base: Path, graphs: tuple[str, ...]) -> None:
    waits = "A server would wait for it for ever, with its ports closed."
    layout = f"A server reads {base}/1/saved_model.pb, {base}/2/saved_model.pb, ..."
    try:
        children = sorted(child.name for child in base.iterdir() if not child.name.startswith("."))
    except FileNotFoundError:
        raise ConfigError(f"Model {model.name}: there is no folder {base}.", waits, _nearby(base)) from None
    except NotADirectoryError:
        raise ConfigError(
            f"Model {model.name}: {base} is a file.",
            layout,
            "Give the folder that holds the version folders.",
        ) from None
    except PermissionError as error:
        raise ConfigError(
            f"Model {model.name}: {base} cannot be read by this user.", waits, f"Try: chmod -R u+rX {base}"
        ) from error
    if any(graph in children for graph in graphs):
        inside = parse_version(base.name) is not None
        raise ConfigError(
            f"Model {model.name}: {base} is itself a version, not the folder that holds the versions.",
            layout,
            f"Give its parent, {base.parent}." if inside else f"Move what it holds into {base}/1, or publish it there.",
        )
    if not children:
        raise ConfigError(
            f"Model {model.name}: the folder {base} is empty.",
            waits,
            f"Publish a version into it, so that there is {base}/1/saved_model.pb.",
        )
    if not read_versions(base):
        raise ConfigError(
            f"Model {model.name}: {base} holds no version, only {_some(children)}.",
            "A version folder is named by a whole number and nothing else: 1, 2, 000003.",
            f"Rename it: mv {base / children[0]} {base / '1'}",
        )


def _check_versions(model: Model, base: Path, graphs: tuple[str, ...]) -> None:
    found = read_versions(base)
    wanted = versions_to_wait_for(model)
    there = f"{base} holds {_some(str(version) for version in found)}."
    for version in sorted(wanted):
        if version not in found:
            raise ConfigError(
                f"Model {model.name}: version {version} is to be served, and is not there.",
                there,
                f"Publish it first, or leave {version} out.",
            )
        if not any((found[version] / graph).is_file() for graph in graphs):
            raise ConfigError(
                f"Model {model.name}: version {version} has no {graphs[0]}: {found[version]}",
                "A version folder is an exported SavedModel; a .keras or .h5 file is none, nor is a folder around one.",
                "Export the model into it, or take the folder away.",
            )
    for label, version in model.labels.items():
        if version not in wanted:
            served = ", ".join(map(str, sorted(wanted)))
            raise ConfigError(
                f"Model {model.name}: the label {label} points at version {version}, and only {served} will be served.",
                f"The policy is {'All()' if isinstance(model.policy, All) else model.policy}; {there}",
                f"Leave versions out, or write Specific(...) with {version} in it.",
            )


def _nearby(base: Path) -> str:
    """The cure for a folder that is not there: what was meant, perhaps."""
    parent = base
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    missing = base.relative_to(parent).parts[0]
    near = difflib.get_close_matches(missing, (child.name for child in parent.iterdir() if child.is_dir()), n=1)
    if near:
        return f"Did you mean {parent / near[0] / base.relative_to(parent / missing)}?"
    return f"Correct the path, or make it (mkdir -p {base}) and publish a version into it."


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")
