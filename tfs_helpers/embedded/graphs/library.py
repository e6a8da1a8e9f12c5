"""TensorFlow's own C library, found inside the installed `tensorflow` and called through ctypes.

The C API is public and stable, and `TF_SessionRun` is the `Session::Run` that
the C++ server calls, so the error texts are TensorFlow's own. TensorFlow's
Python side is never imported: it would cost seconds and hundreds of megabytes.
"""

import ctypes
import os
import re
import sys
import threading
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

import numpy.random  # noqa: F401  numpy must be loaded whole before the library: their symbols clash otherwise

from tfs_helpers.errors import BackendUnavailable

__all__ = ["Buffer", "Deallocator", "Output", "Status", "find_library", "load_library"]


class Output(ctypes.Structure):
    """`TF_Output`: one output of an operation."""

    _fields_ = [("operation", c_void_p), ("index", c_int)]


class Buffer(ctypes.Structure):
    """`TF_Buffer`: a block of bytes."""

    _fields_ = [("data", c_void_p), ("length", c_size_t), ("deallocator", c_void_p)]


Deallocator = ctypes.CFUNCTYPE(None, c_void_p, c_size_t, c_void_p)

# name: (result, arguments), from tensorflow/c/c_api.h, tf_tensor.h, tf_status.h and tf_buffer.h
_FUNCTIONS = {
    "TF_Version": (c_char_p, []),
    "TF_NewStatus": (c_void_p, []),
    "TF_DeleteStatus": (None, [c_void_p]),
    "TF_GetCode": (c_int, [c_void_p]),
    "TF_Message": (c_char_p, [c_void_p]),
    "TF_NewBuffer": (POINTER(Buffer), []),
    "TF_NewBufferFromString": (POINTER(Buffer), [c_void_p, c_size_t]),
    "TF_DeleteBuffer": (None, [POINTER(Buffer)]),
    "TF_NewTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_void_p, c_size_t, Deallocator, c_void_p]),
    "TF_AllocateTensor": (c_void_p, [c_int, POINTER(c_int64), c_int, c_size_t]),
    "TF_DeleteTensor": (None, [c_void_p]),
    "TF_TensorType": (c_int, [c_void_p]),
    "TF_NumDims": (c_int, [c_void_p]),
    "TF_Dim": (c_int64, [c_void_p, c_int]),
    "TF_TensorByteSize": (c_size_t, [c_void_p]),
    "TF_TensorData": (c_void_p, [c_void_p]),
    "TF_NewGraph": (c_void_p, []),
    "TF_DeleteGraph": (None, [c_void_p]),
    "TF_GraphOperationByName": (c_void_p, [c_void_p, c_char_p]),
    "TF_OperationNumOutputs": (c_int, [c_void_p]),
    "TF_NewSessionOptions": (c_void_p, []),
    "TF_DeleteSessionOptions": (None, [c_void_p]),
    "TF_SetConfig": (None, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "TF_LoadSessionFromSavedModel": (
        c_void_p,
        [c_void_p, POINTER(Buffer), c_char_p, POINTER(c_char_p), c_int, c_void_p, POINTER(Buffer), c_void_p],
    ),
    "TF_CloseSession": (None, [c_void_p, c_void_p]),
    "TF_DeleteSession": (None, [c_void_p, c_void_p]),
    "TF_SessionRun": (
        None,
        [
            c_void_p,
            POINTER(Buffer),
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(POINTER(Output), POINTER(c_void_p), c_int),
            *(POINTER(c_void_p), c_int),
            POINTER(Buffer),
            c_void_p,
        ],
    ),
}

# These take their time, so other threads go on meanwhile.
_LONG = {"TF_LoadSessionFromSavedModel", "TF_SessionRun", "TF_CloseSession", "TF_DeleteSession", "TF_DeleteGraph"}
_MAPPING = re.compile(
    r"^(?P<start>[0-9a-f]+)-(?P<end>[0-9a-f]+) (?P<rights>\S{4}) (?P<offset>[0-9a-f]+) \S+ \d+ +(?P<name>/.*)$"
    r"(?:\n[A-Z].*)*?\nAnonymous: +(?P<anonymous>\d+) kB$",
    re.MULTILINE,
)
_MADV_DONTNEED = 4
_M_ARENA_MAX = -8  # malloc.h of glibc
_SWEEP_SECONDS = 0.1  # shorter is smaller, and slower
_NAMES = {
    "darwin": ("libtensorflow_cc.2.dylib", "libtensorflow_framework.2.dylib"),
    "linux": ("libtensorflow_cc.so.2", "libtensorflow_framework.so.2"),
}


def find_library() -> tuple[Path, Path]:
    """The paths of TensorFlow's library and of the framework library that it needs.

    Raises:
        BackendUnavailable: TensorFlow is not installed, or holds no such library.
    """
    spec = find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailable(
            "The embedded server needs TensorFlow's library, and tensorflow is not installed here.",
            "Only clients can do without it.",
            "Install it: pip install 'tfs-helpers[server]'.",
        )
    names = _NAMES["darwin" if sys.platform == "darwin" else "linux"]
    for folder in map(Path, spec.submodule_search_locations):
        paths = [folder / name for name in names]
        if all(path.is_file() for path in paths):
            return paths[0], paths[1]
    raise BackendUnavailable(
        f"The installed tensorflow has no {names[0]}.",
        "Its wheels for Linux and macOS ship it; other builds may not.",
        "Install the wheel: pip install 'tfs-helpers[server]'.",
    )


@cache
def load_library() -> ctypes.CDLL:
    """The library, with its functions typed. Loading takes about half a second.

    Raises:
        BackendUnavailable: as `find_library`.
    """
    # Read by TensorFlow when it is loaded. With oneDNN, a wrong rank into Conv2D aborts the process.
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
    _use_few_arenas()
    whole, framework = find_library()
    loaded = threading.Event()
    sweeper = threading.Thread(target=_drop_pages_until, args=(loaded, [framework, whole]))
    sweeper.start()
    try:
        _open(framework)
        library = _open(whole)
    finally:
        loaded.set()
        sweeper.join()
    # Letting go of the interpreter's lock and taking it again costs more than most of these functions do.
    keeping = ctypes.PyDLL(None, handle=library._handle)
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library if name in _LONG else keeping, name)
        function.restype = result
        function.argtypes = arguments
        setattr(library, name, function)
    quick = keeping.TF_SessionRun
    quick.restype, quick.argtypes = library.TF_SessionRun.restype, library.TF_SessionRun.argtypes
    setattr(library, "quick_run", quick)  # noqa: B010  mypy knows no such attribute
    return library


def _use_few_arenas() -> None:
    """Keep glibc from giving each thread a heap of its own: what versions leave free in one, the next cannot use.

    Without this a server grows from 230 to 370 MB over twenty swaps of a 4 MB model, and is no faster.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if sys.platform.startswith("linux") and mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def _open(path: Path) -> ctypes.CDLL:
    """As `ctypes.CDLL(path)`, but without the interpreter's lock, so that other threads go on meanwhile."""
    program = ctypes.CDLL(None)
    program.dlopen.restype, program.dlopen.argtypes = c_void_p, [c_char_p, c_int]
    program.dlerror.restype = c_char_p
    # Not RTLD_GLOBAL: its symbols clash with those of other libraries.
    handle = program.dlopen(os.fsencode(path), os.RTLD_NOW | os.RTLD_LOCAL)
    if not handle:
        words = program.dlerror() or b"no reason given"
        raise BackendUnavailable(
            f"TensorFlow's library cannot be loaded: {words.decode(errors='replace')}.",
            "The installed wheel may be damaged, or made for another machine.",
            "Install it again: pip install --force-reinstall tensorflow.",
        )
    return ctypes.CDLL(str(path), handle=handle)


def _drop_pages_until(loaded: threading.Event, paths: list[Path]) -> None:
    """Let go of the libraries' pages that only loading them needs, while they are loaded and once after it, on Linux.

    Loading walks through 300 MB, of which a server then uses a fifth. The kernel brings back from the file what is
    used again.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [c_void_p, c_size_t, c_int]
    names = [str(path.resolve()) for path in paths]
    last = False
    while not last:
        last = loaded.wait(_SWEEP_SECONDS)
        for mapping in _unwritten(Path("/proc/self/smaps").read_text(), names, settled=last):
            libc.madvise(mapping.start, len(mapping), _MADV_DONTNEED)


def _unwritten(smaps: str, names: list[str], *, settled: bool) -> list[range]:
    """The mappings of files into which nothing was written, nor will be: their pages are those of the file.

    Args:
        smaps: what the kernel says of the memory of this process.
        names: the files.
        settled: whether they are loaded. Until then only code counts, and the part before it: the loader maps the
            whole file first, then lays code and data over that, and writes into the data.
    """
    found: list[range] = []
    mine = [match for match in _MAPPING.finditer(smaps) if match["name"] in names]
    for mapping, after in zip_longest(mine, mine[1:]):
        code_follows = after is not None and after["rights"] == "r-xp" and after["start"] == mapping["end"]
        is_code = mapping["rights"] == "r-xp" and int(mapping["offset"], 16) > 0
        is_head = mapping["rights"] == "r--p" and int(mapping["offset"], 16) == 0 and code_follows
        is_data = settled and mapping["rights"] == "r--p"
        if mapping["anonymous"] == "0" and (is_code or is_head or is_data):
            found.append(range(int(mapping["start"], 16), int(mapping["end"], 16)))
    return found


class Status:
    """A `TF_Status`, to be used by one call at a time."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self.handle = library.TF_NewStatus()

    def __del__(self) -> None:
        self._library.TF_DeleteStatus(self.handle)

    @property
    def code(self) -> int:
        """The canonical code, 0 for OK."""
        return int(self._library.TF_GetCode(self.handle))

    @property
    def message(self) -> str:
        """TensorFlow's words."""
        words: bytes = self._library.TF_Message(self.handle)
        return words.decode(errors="replace")
