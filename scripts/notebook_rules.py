"""What a committed notebook must be, so that comparing it with a run means something.

These rules need no kernel. nbval alone passes over every one of them in
silence: a cell that was never executed, a marker with a typing error, an
expected error that no longer comes.
"""

import base64
import re
import struct
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbformat import NotebookNode

__all__ = [
    "DOCKER_TAG",
    "IGNORE_MARKER",
    "IGNORE_TAG",
    "RAISES_TAG",
    "TAGS",
    "cell_problems",
    "code_cells",
    "first_line",
    "ignore_reason",
    "image_problems",
    "is_ignored",
    "kinds",
    "number_of",
    "problems",
    "read",
    "tags",
    "tidy",
    "to_text",
]

RAISES_TAG = "raises-exception"
IGNORE_TAG = "nbval-ignore-output"
DOCKER_TAG = "needs-docker"
TAGS = frozenset({RAISES_TAG, IGNORE_TAG, DOCKER_TAG, "exercise", "solution"})
IGNORE_MARKER = "# NBVAL_IGNORE_OUTPUT"

_parse: Callable[..., NotebookNode] = nbformat.reads  # nbformat has no types
_to_json: Callable[..., str] = nbformat.writes
_MARKER_LIKE = re.compile(r"#.*nbval", re.IGNORECASE)
_CELL_METADATA = ("alt", "jupyter", "reason", "slideshow", "tags")
_LIBRARY_PATH = re.compile(r"[~/][^:\x1b\"'\n]*/(site-packages|lib/python3\.\d+)/")
# A tight bounding box follows how a version of matplotlib sets its text.
_PIXELS_OF_TOLERANCE = 5


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells that hold code, in order. Their place here, from 1, is the number that the reader sees."""
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def number_of(notebook: NotebookNode, cell: NotebookNode) -> int:
    """The number that the reader sees in front of a code cell after Run All; 0 for an empty cell."""
    return next((n for n, other in enumerate(code_cells(notebook), 1) if other is cell), 0)


def first_line(cell: NotebookNode) -> str:
    """The first line of a cell that is not blank, at most 60 characters of it."""
    line = next((line.strip() for line in cell.source.splitlines() if line.strip()), "")
    return line if len(line) <= 60 else line[:57] + "..."


def tags(cell: NotebookNode) -> list[str]:
    """The tags of a cell."""
    return list(cell.metadata.get("tags", []))


def is_ignored(cell: NotebookNode) -> bool:
    """Whether a cell's output is not to be compared: by tag, or by a marker comment alone on its line."""
    return IGNORE_TAG in tags(cell) or any(line.strip() == IGNORE_MARKER for line in cell.source.splitlines())


def ignore_reason(cell: NotebookNode) -> str:
    """Why a cell's output is not compared: the cell's metadata `reason`, empty where there is none."""
    reason = cell.metadata.get("reason", "")
    return reason.strip() if isinstance(reason, str) else ""


def cell_problems(cell: NotebookNode) -> list[str]:
    """What is wrong with one code cell as it is committed; empty if nothing."""
    found = []
    if cell.execution_count is None:
        found.append("was never executed: run `make notebooks`, and commit its outputs")
    found += [
        f"nbval does not know the marker {line.strip()!r}: write {IGNORE_MARKER!r} alone on its line"
        for line in cell.source.splitlines()
        if _MARKER_LIKE.search(line) and line.strip() != IGNORE_MARKER
    ]
    found += [
        f"unknown tag {tag!r}: the known ones are {', '.join(sorted(TAGS))}" for tag in tags(cell) if tag not in TAGS
    ]
    if is_ignored(cell) and not ignore_reason(cell):
        found.append('its output is ignored without a reason: put "reason": "..." into the cell\'s metadata')
    raised = [output.ename for output in cell.outputs if output.output_type == "error"]
    if raised and RAISES_TAG not in tags(cell):
        found.append(f"its committed output is a {raised[0]}: mend it, or tag the cell {RAISES_TAG}")
    if RAISES_TAG in tags(cell) and not raised:
        found.append(f"is tagged {RAISES_TAG}, but its committed output holds no error")
    return found


def problems(notebook: NotebookNode) -> list[str]:
    """What is wrong with a whole notebook as it is committed, each with the cell it is about; empty if nothing."""
    cells = code_cells(notebook)
    if not cells:
        return ["has no code cell"]
    found = [] if any(cell.outputs for cell in cells) else ["has no outputs: run `make notebooks`, and commit them"]
    for number, cell in enumerate(cells, 1):
        found += [f"cell {number}, `{first_line(cell)}`: {problem}" for problem in cell_problems(cell)]
    return found


def kinds(outputs: list[NotebookNode]) -> Counter[str]:
    """How many outputs of each kind there are. What goes to stderr is not counted: it is not compared."""
    found: Counter[str] = Counter()
    for output in outputs:
        if output.output_type in ("display_data", "execute_result"):
            found[f"{output.output_type} of {', '.join(sorted(output.data))}"] += 1
        elif output.output_type != "stream":
            found[output.output_type] += 1
        elif output.name != "stderr":
            found[output.name] = 1
    return found


def image_problems(committed: list[NotebookNode], computed: list[NotebookNode]) -> list[str]:
    """Where the sizes of the PNG images differ; their pixels are not compared.

    Args:
        committed: the outputs in the file.
        computed: the outputs of the run, of the same kinds.
    """
    found = []
    for was, now in zip(_png_sizes(committed), _png_sizes(computed), strict=False):
        if any(abs(a - b) > _PIXELS_OF_TOLERANCE for a, b in zip(was, now, strict=True)):
            found.append(f"an image of {was[0]} x {was[1]} pixels is now one of {now[0]} x {now[1]}")
    return found


def _png_sizes(outputs: list[NotebookNode]) -> list[tuple[int, int]]:
    """Width and height of every PNG image; 0 x 0 for one that is none."""
    sizes = []
    for output in outputs:
        if "image/png" in output.get("data", {}):
            header = base64.b64decode(output.data["image/png"])[:24]
            is_png = len(header) == 24 and header.startswith(b"\x89PNG\r\n\x1a\n")
            sizes.append(struct.unpack(">II", header[16:24]) if is_png else (0, 0))
    return sizes


def read(path: Path) -> NotebookNode:
    """The notebook in a file, in today's format; a cell without an id gets one."""
    notebook = _parse(path.read_text(encoding="utf-8"), as_version=4)
    for cell in notebook.cells:
        cell.setdefault("id", uuid.uuid4().hex[:8])
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def tidy(notebook: NotebookNode, root: Path) -> None:
    """Take out, in place, all that varies with the machine, the time or the program that saved the notebook.

    Args:
        notebook: the notebook to clean.
        root: the project's folder; paths in tracebacks are shown relative to it.
    """
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        cell.metadata = {key: cell.metadata[key] for key in _CELL_METADATA if key in cell.metadata}
        if cell.cell_type != "code":
            continue
        if not cell.source.strip():
            cell.outputs, cell.execution_count = [], None
        # Logs and progress go to stderr. It is not compared, so it is not kept either.
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            if output.output_type == "error":
                output.traceback = [_without_machine_paths(line, root) for line in output.traceback]


def _without_machine_paths(line: str, root: Path) -> str:
    line = _LIBRARY_PATH.sub(lambda match: f".../{match[1].removeprefix('lib/').split('.')[0]}/", line)
    for folder in (str(root), str(root).replace(str(Path.home()), "~", 1)):
        line = line.replace(folder + "/", "")
    return line


def to_text(notebook: NotebookNode) -> str:
    """A notebook as its file holds it: JSON with sorted keys, one space of indent, a newline at the end."""
    return _to_json(notebook).rstrip("\n") + "\n"
