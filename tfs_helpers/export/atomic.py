"""A folder that appears complete or not at all.

with unfinished(base) as folder:      # base/.unfinished-3f9c..., empty, ours
...                               # write into it
settle(folder)                    # modes, fsync
rename_to_new(folder, base / "3")
# whatever is left under the first name is gone
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["rename_to_new", "settle", "sweep", "sync", "unfinished"]

_PREFIX = ".unfinished-"  # no server takes that for a version


@contextlib.contextmanager
def unfinished(base: Path) -> Iterator[Path]:
    """An empty folder in `base` under a passing name, locked while this process lives.

    What bears that name at the end is removed, in success, error and Ctrl-C alike.

    Raises:
        OSError: it cannot be made.
    """
    folder, lock = _locked_folder(base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked_folder(base: Path) -> tuple[Path, int]:
    while True:
        folder = base / f"{_PREFIX}{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue  # swept before it was ours
        # Some network file systems lock no folders. There, nobody can sweep either.
        with contextlib.suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return folder, lock
        os.close(lock)


def sweep(base: Path) -> None:
    """Remove what killed processes left in `base`: the unfinished folders that nobody holds a lock on.

    Raises:
        OSError: `base` cannot be read.
    """
    for folder in [entry for entry in base.iterdir() if entry.name.startswith(_PREFIX)]:
        # An error says: somebody is at work there, or it is another user's, or just gone. Not ours to remove.
        with contextlib.suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(lock)


def settle(folder: Path) -> None:
    """Give every file the modes that new ones get, and force all of it to disk, the folders last.

    Raises:
        OSError: a file cannot be changed or written.
    """
    given = stat.S_IMODE(folder.stat().st_mode)  # 0o777 less the umask
    for parent, _, files in os.walk(folder, topdown=False):
        for path in (*(Path(parent, name) for name in files), Path(parent)):
            mode = stat.S_IMODE(path.stat().st_mode)
            wanted = mode | (given if path.is_dir() else given & 0o666)
            if wanted != mode:
                path.chmod(wanted)
            sync(path)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to disk.

    Raises:
        OSError: the disk failed, or is full.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and shared file systems know no fsync of a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def rename_to_new(folder: Path, target: Path) -> None:
    """Rename a folder with something in it to a name that must be free.

    Plain rename(2) never replaces a file, nor a folder with something in it,
    but it does replace an empty folder. So the kernel is asked not to. On a
    file system that cannot do that, a look beforehand stands in; it misses
    only an empty folder that somebody makes at that very moment.

    Raises:
        FileExistsError: the name is taken, by whatever it may be.
        OSError: it cannot be renamed.
    """
    code = _rename_exclusively(os.fsencode(folder), os.fsencode(target))
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        _rename_after_a_look(folder, target)
    elif code:
        raise OSError(code, os.strerror(code), str(folder), None, str(target))


def _rename_exclusively(folder: bytes, target: bytes) -> int:
    """The C library's own call for it: the errno, or 0."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        at_fdcwd, rename_noreplace = -100, 1
        failed = libc.renameat2(at_fdcwd, folder, at_fdcwd, target, rename_noreplace)
    elif sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        rename_excl = 4
        failed = libc.renamex_np(folder, target, rename_excl)
    else:
        return errno.ENOSYS
    return ctypes.get_errno() if failed else 0


def _rename_after_a_look(folder: Path, target: Path) -> None:
    taken = FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    if os.path.lexists(target):
        raise taken
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise taken from error
        raise
