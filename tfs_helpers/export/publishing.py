"""Publish a version of a model: its folder appears complete or not at all.

A server looks into the base path every second and loads what has a number for
a name. So a version is written beside its final place under a name that no
server takes for a version, forced to disk, and renamed to its number. Whatever
ends the publisher half way (full disk, Ctrl-C, `kill -9`, power cut), no
server sees a part of a model, and the versions that are there stay as they are.

    base/.unfinished-3f9c.../   written, checked, fsync   ->   rename   ->   base/3/

Of two publishers who chose the same number one gets it: the rename refuses a
name that is taken. What killed publishers left behind is known by its lock,
which nobody holds any more, and is removed by the next one.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from os import PathLike
from pathlib import Path

from tfs_helpers.errors import ExportError, PublishError, TfsError
from tfs_helpers.export.atomic import rename_to_new, settle, sweep, sync, unfinished
from tfs_helpers.export.checking import check_base_path, check_saved_model
from tfs_helpers.version_folders import parse_version, read_versions

__all__ = ["publish", "retire", "version_folder", "versions"]

_LARGEST = 2**63 - 1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def versions(base_path: str | PathLike[str]) -> list[int]:
    """The versions in a base path, as a server reads their names, in rising order.

    The whole name must be a number of 64 bits: `3`, `000003` and `+3` are
    version 3; `v3`, `3.0` and `3.tmp` are nothing. A server asks no more than
    that, so a file or an empty folder named `3` counts as well.

    Args:
        base_path: the folder that holds the version folders.

    Returns:
        Each version once; empty if there is none, or no such folder.

    Raises:
        ExportError: the base path cannot be read.
    """
    return list(_found(Path(base_path)))


def version_folder(base_path: str | PathLike[str], version: int) -> Path:
    """The folder that a server reads `version` from; of `1` and `01` that is `1`, the last in order.

    Args:
        base_path: the folder that holds the version folders.
        version: its number.

    Returns:
        Its path. Whether it holds a model is not looked at.

    Raises:
        ExportError: there is no such version, or the base path cannot be read.
    """
    base = Path(base_path)
    found = _found(base)
    if version not in found:
        there = ", ".join(map(str, found)) or "none"
        raise ExportError(f"{base} has no version {version}.", f"Versions there: {there}.")
    return found[version]


def publish(
    source: str | PathLike[str] | Callable[[Path], object],
    base_path: str | PathLike[str],
    version: int | None = None,
) -> Path:
    """Publish a SavedModel as a version, complete or not at all.

    A version that is there is never overwritten. Symbolic links in a source
    folder are followed, so the version stands by itself. A server is often
    another user: whatever modes the source has, the published files are
    readable for everybody whom the umask allows.

    Args:
        source: a SavedModel folder, or a callable that writes a SavedModel into
            the empty folder it is given, such as `keras_model.export`.
        base_path: the folder that holds the version folders; made if missing.
        version: the number, 0 or more; if None, one more than the highest that
            is there, or 1.

    Returns:
        The version folder, such as `base_path/1`.

    Raises:
        PublishError: the source is no SavedModel, the version exists, the base
            path is not one, or writing failed. No version was added or changed.
    """
    base = Path(base_path)
    try:
        check_base_path(base, looks_like_version=parse_version(base.name) is not None)
        if version is not None:
            _check_version(base, version)
        if not callable(source):
            source = _folder(source)
            check_saved_model(source)
            if base.resolve().is_relative_to(source.resolve()):
                raise PublishError(f"{base} lies inside the model {source}.", "", "Choose a base path outside of it.")
        with _made(base):
            sweep(base)
            with unfinished(base) as folder:
                _fill(folder, source)
                settle(folder)
                return _rename_to_number(folder, base, version)
    except OSError as error:
        raise _failure(f"Publishing into {base} failed", error) from error


def _folder(source: object) -> Path:
    if isinstance(source, (str, PathLike)):
        return Path(source)
    raise PublishError(
        f"A {type(source).__name__} cannot be published as it is.",
        "A version is a SavedModel folder; what makes one differs from model to model.",
        "Give such a folder, or a function that writes into the folder it is given, such as keras_model.export.",
    )


def retire(base_path: str | PathLike[str], version: int) -> None:
    """Remove a version: first its name, in one step, then its files.

    A server that watches the base path unloads it within a second or so. When
    the last one goes, the model is served no more.

    Args:
        base_path: the folder that holds the version folders.
        version: its number.

    Raises:
        ExportError: there is no such version, or it cannot be removed.
    """
    base = Path(base_path)
    retired = version_folder(base, version)
    try:
        with unfinished(base) as folder:
            retired.rename(folder / retired.name)
    except OSError as error:
        raise _failure(f"{retired} cannot be retired", error) from error


def _found(base: Path) -> dict[int, Path]:
    """The versions in a base path, lowest first; none where it is missing."""
    try:
        return read_versions(base)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise PublishError(f"{base} cannot be read: {error.strerror}.") from error


def _check_version(base: Path, version: int) -> None:
    if type(version) is not int or not 0 <= version <= _LARGEST:
        raise PublishError(
            f"{version!r} cannot be a version.",
            f"A version is an int from 0 to {_LARGEST}.",
            "Leave it out to get the next free number.",
        )
    if version in _found(base):
        raise _exists(base, version)


def _exists(base: Path, version: int) -> PublishError:
    return PublishError(
        f"Version {version} is already in {base}.",
        "A published version is never overwritten: a server may be reading it.",
        "Leave out the version to get the next free number, or retire the old one first.",
    )


@contextlib.contextmanager
def _made(base: Path) -> Iterator[None]:
    """Make the base path; unmake on failure what was made."""
    missing = [folder for folder in (base, *base.parents) if not folder.exists()]
    try:
        base.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):  # by now somebody else uses it
                folder.rmdir()
        raise


def _fill(folder: Path, source: Path | Callable[[Path], object]) -> None:
    if isinstance(source, Path):
        called = f"The copy of {source}"
        inside = f"{called}/"
        _copy(source, folder, ())
    else:
        called, inside = "What the function wrote", ""
        _call(source, folder)
    try:
        check_saved_model(folder)
    except PublishError as error:
        lines = (error.what, error.why, error.fix)
        named = (line.replace(f"{folder}/", inside).replace(str(folder), called) for line in lines)
        raise PublishError(*named) from None


def _call(source: Callable[[Path], object], folder: Path) -> None:
    try:
        source(folder)
    except (TfsError, OSError):
        raise
    except Exception as error:
        for code in _NO_ROOM:  # TensorFlow's own errors carry it in their text only
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code)) from error
        said = next(iter(f"{type(error).__name__}: {error}".splitlines())).rstrip(": .")
        raise PublishError(
            f"The model could not be written: {said}.",
            "The function that should write it raised that.",
            "Mend the cause and publish again; nothing was published.",
        ) from error


def _copy(source: Path, target: Path, above: tuple[tuple[int, int], ...]) -> None:
    """Copy what lies in `source`, following links; `above` are the folders passed on the way."""
    status = source.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise PublishError(f"{source} is a symbolic link to a folder that it lies in.", "", "Remove the link.")
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            (target / entry.name).mkdir()
            _copy(entry, target / entry.name, (*above, here))
        elif entry.is_file():
            shutil.copyfile(entry, target / entry.name)
        else:
            raise PublishError(f"{entry} is neither a file nor a folder.", "It may be a link to nothing.", "Remove it.")


def _rename_to_number(folder: Path, base: Path, version: int | None) -> Path:
    while True:
        number = max([0, *_found(base)]) + 1 if version is None else version
        if number > _LARGEST:
            raise PublishError(f"{base} has no number left after {_LARGEST}.", "", "Say which version to publish.")
        target = base / str(number)
        try:
            rename_to_new(folder, target)
        except FileExistsError:
            if version is not None:
                raise _exists(base, version) from None
            continue  # another publisher was faster: take the next number
        sync(base)
        return target


def _failure(what: str, error: OSError) -> PublishError:
    reason = error.strerror or str(error)
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _NO_ROOM:
        why, fix = "There is no room for the model.", "Make room and try again; nothing was changed."
        return PublishError(f"{what}: {reason}.", why, fix)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        why, fix = "This user may not read or write there.", "Mend it with chown or chmod, or choose another base path."
        return PublishError(f"{what}: {reason}{where}.", why, fix)
    return PublishError(f"{what}: {reason}{where}.")
