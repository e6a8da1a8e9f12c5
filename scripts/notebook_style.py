"""What every notebook of the tutorial looks like: the rules that a machine can check.

Each rule takes a `Notebook` and returns what it finds wrong, one line each.
`RULES` names them all; `tests/test_notebook_style.py` runs them.

Alternative text of figures: an output with an image carries it in its metadata,
`{"image/png": {"alt": "..."}}`, which `display(figure, metadata=...)` and
`tfs_helpers.display` can set; for a figure shown by plain matplotlib it stands in the
cell's metadata, `"alt": "..."`. nbconvert honours both. JupyterLab 4.6 shows neither,
so the text beside the figure must say what there is to see.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import notebook_rules as rules
from nbformat import NotebookNode

__all__ = ["RULES", "Notebook"]

MAX_LINES = 16

_FENCE = re.compile(r"^ {0,3}(```|~~~).*?^ {0,3}\1[`~]*\s*$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)[ \t#]*$", re.MULTILINE)
_CODE_SPAN = re.compile(r"(`+)(?!`).+?(?<!`)\1(?!`)")
_IMAGE = re.compile(r"!\[([^\]]*)\]")
_IMG = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_ALT = re.compile(r"""\balt\s*=\s*(?:"\s*[^"\s][^"]*"|'\s*[^'\s][^']*')""", re.IGNORECASE)
_SVG = re.compile(r"<svg\b.*?</svg>", re.IGNORECASE | re.DOTALL)
_SVG_ALT = re.compile(r"<title>\s*\S|\baria-label\s*=\s*[\"']\s*[^\"'\s]", re.IGNORECASE)
_LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?(?:\s+[\"'][^)]*)?\)|<(?:a|img)\b[^>]*?(?:href|src)\s*=\s*[\"']([^\"']+)", re.I
)
_TABLE_RULE = re.compile(r"^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$")
_HTML_TABLE = re.compile(r"<table\b.*?</table>", re.IGNORECASE | re.DOTALL)
_ALERT = re.compile(r"^\s*>\s*\[!\w+\]", re.MULTILINE)
_MACHINE_PATH = re.compile(r"(?<![\w.~$}-])/(?:tmp|home|root|work|Users|private|var/folders)/[\w.-]*")
_OPEN_TO_ALL = re.compile(r"\b0\.0\.0\.0\b|\[::\]|(?:-p|--publish)[ =]\d+:\d+")
_VARYING = {
    "a port that the system chose": re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\]):(?:3[3-9]\d{3}|[4-6]\d{4})\b"),
    "an address in memory": re.compile(r"\b0x[0-9a-f]{8,}\b"),
    "a date and time": re.compile(r"\b20\d\d-\d\d-\d\d[ T]\d\d:\d\d"),
    "a process id": re.compile(r"\bpid[ =:]+\d+", re.IGNORECASE),
}
_REDRAW = re.compile(r"\bclear_output\b|\bupdate_display\b|\.update\(.*display_id")
_NEEDED_AT_THE_TOP = ("build", "need", "minutes")


@dataclass(frozen=True)
class Notebook:
    """A notebook and where it lies; its neighbours are the notebooks beside it, in order of name."""

    path: Path

    @cached_property
    def node(self) -> NotebookNode:
        return rules.read(self.path)

    @cached_property
    def next(self) -> Path | None:
        """The notebook after this one; None for the last."""
        following = sorted(path for path in self.path.parent.glob("*.ipynb") if path.name > self.path.name)
        return following[0] if following else None

    @property
    def markdown(self) -> list[str]:
        """The source of every markdown cell."""
        return [cell.source for cell in self.node.cells if cell.cell_type == "markdown"]

    @property
    def prose(self) -> str:
        """All markdown, without fenced blocks and code spans, in which nothing is rendered."""
        return "\n\n".join(_CODE_SPAN.sub("", _FENCE.sub("", source)) for source in self.markdown)

    @property
    def headings(self) -> list[tuple[int, str]]:
        """Level and text of every markdown heading."""
        found = _HEADING.findall("\n\n".join(_FENCE.sub("", source) for source in self.markdown))
        return [(len(marks), text) for marks, text in found]

    def code(self) -> Iterator[tuple[str, NotebookNode]]:
        """Every code cell that holds code, with the words that name it."""
        for number, cell in enumerate(rules.code_cells(self.node), 1):
            yield f"cell {number}, `{rules.first_line(cell)}`", cell


def is_fit_to_be_compared(notebook: Notebook) -> list[str]:
    """Executed, with outputs, markers and tags that nbval knows, errors only where they are taught."""
    return rules.problems(notebook.node)


def is_executed_in_order(notebook: Notebook) -> list[str]:
    """Restart and Run All: the code cells are numbered 1, 2, 3; none is empty."""
    found = [
        f"{name} has the number {cell.execution_count}: run `make notebooks`"
        for number, (name, cell) in enumerate(notebook.code(), 1)
        if cell.execution_count != number
    ]
    empty = sum(cell.cell_type == "code" and not cell.source.strip() for cell in notebook.node.cells)
    return [*found, *(["there is an empty code cell"] * bool(empty))]


def is_as_written_by_make_notebooks(notebook: Notebook) -> list[str]:
    """Metadata and format are the same in every file and on every machine; stderr is not kept."""
    tidied = rules.read(notebook.path)
    rules.tidy(tidied, notebook.path.resolve().parent.parent)
    same = notebook.path.read_text(encoding="utf-8") == rules.to_text(tidied)
    return [] if same else ["metadata or format differ from what `make notebooks` writes"]


def opens_with_one_title(notebook: Notebook) -> list[str]:
    """Exactly one H1, and nothing before it."""
    count = sum(level == 1 for level, _ in notebook.headings)
    found = [] if count == 1 else [f"there are {count} headings of level 1, not one"]
    first = notebook.node.cells[0] if notebook.node.cells else None
    if first is None or first.cell_type != "markdown" or not first.source.lstrip().startswith("# "):
        found.append("the first cell does not open with the title")
    return found


def skips_no_heading_level(notebook: Notebook) -> list[str]:
    """A heading is at most one level below the one before it."""
    levels = [0] + [level for level, _ in notebook.headings]
    return [
        f"heading {text!r} of level {level} follows one of level {before}"
        for before, (level, text) in zip(levels, notebook.headings, strict=False)
        if level > before + 1
    ]


def opens_with_a_table(notebook: Notebook) -> list[str]:
    """What you will build, what you need, how many minutes: a table in one of the first two cells."""
    top = notebook.node.cells[:2]
    table = "\n".join(
        line for cell in top if cell.cell_type == "markdown" for line in _table_lines(cell.source)
    ).lower()
    missing = [word for word in _NEEDED_AT_THE_TOP if word not in table]
    return [f"no table at the top that says {', '.join(missing)}"] if missing else []


def has_alternative_text(notebook: Notebook) -> list[str]:
    """Every image in text and every figure in an output can be read out."""
    found = [f"image without alternative text: {m[0]}" for m in _IMAGE.finditer(notebook.prose) if not m[1].strip()]
    pages = [("text", notebook.prose)]
    for name, cell in notebook.code():
        for output in cell.outputs:
            data = output.get("data", {})
            pages.append((name, data.get("text/html", "")))
            for mime in (mime for mime in data if mime.startswith("image/")):
                own = output.metadata.get(mime, {})
                alt = own.get("alt") or output.metadata.get("alt") or cell.metadata.get("alt")
                if not (isinstance(alt, str) and alt.strip()):
                    found.append(f"{name}: its {mime} has no alternative text")
    for where, page in pages:
        found += [f"{where}: {tag[:60]} has no alt" for tag in _IMG.findall(page) if not _ALT.search(tag)]
        found += [
            f"{where}: <svg> has neither <title> nor aria-label"
            for svg in _SVG.findall(page)
            if not _SVG_ALT.search(svg)
        ]
    return found


def has_table_headers(notebook: Notebook) -> list[str]:
    """A markdown table has a header row with words in it, an HTML table has `<th>`."""
    found = []
    for source in notebook.markdown:
        block: list[str] = []
        for line in [*_FENCE.sub("", source).splitlines(), ""]:
            if line.lstrip().startswith("|"):
                block.append(line)
                continue
            if block and (len(block) < 2 or not _TABLE_RULE.match(block[1]) or not block[0].strip("| \t")):
                found.append(f"table without a header: {block[0].strip()[:60]}")
            block = []
    pages = [*notebook.markdown]
    pages += [o.get("data", {}).get("text/html", "") for _, cell in notebook.code() for o in cell.outputs]
    found += ["HTML table without <th>" for page in pages for t in _HTML_TABLE.findall(page) if "<th" not in t.lower()]
    return found


def has_no_github_alerts(notebook: Notebook) -> list[str]:
    """`> [!NOTE]` is plain text in JupyterLab; `> **Note.**` reads everywhere."""
    return [f"GitHub alert: {alert.strip()}" for alert in _ALERT.findall(notebook.prose)]


def has_short_cells(notebook: Notebook) -> list[str]:
    """A code cell holds one idea."""
    lengths = [(name, len(cell.source.splitlines())) for name, cell in notebook.code()]
    return [f"{name} has {length} lines, more than {MAX_LINES}" for name, length in lengths if length > MAX_LINES]


def names_no_machine_path(notebook: Notebook) -> list[str]:
    """No path of the machine that it was written on, neither in what one types nor in what comes out."""
    texts = [("text", source) for source in notebook.markdown]
    for name, cell in notebook.code():
        texts.append((name, cell.source))
        texts += [(f"output of {name}", text) for text in _output_texts(cell)]
    return [f"{where}: {path}" for where, text in texts for path in _MACHINE_PATH.findall(text)]


def listens_on_this_machine_only(notebook: Notebook) -> list[str]:
    """What one types opens nothing to the network: no 0.0.0.0, no `-p 8501:8501` without 127.0.0.1.

    In text, in comments and in what comes out it may be shown.
    """
    return [
        f"{name}: {slip}"
        for name, cell in notebook.code()
        for line in cell.source.splitlines()
        for slip in _OPEN_TO_ALL.findall(line.split("# ")[0])
    ]


def shows_nothing_that_varies(notebook: Notebook) -> list[str]:
    """Outputs that are compared hold no chosen ports, addresses, times or process ids."""
    return [
        f"output of {name}: {what}: {hit}"
        for name, cell in notebook.code()
        if not rules.is_ignored(cell)
        for text in _output_texts(cell)
        for what, pattern in _VARYING.items()
        for hit in pattern.findall(text)
    ]


def redraws_nothing(notebook: Notebook) -> list[str]:
    """`clear_output` and updated displays cannot be compared; progress belongs on stderr."""
    return [f"{name}: {hit}" for name, cell in notebook.code() for hit in _REDRAW.findall(cell.source)]


def has_links_that_lead_somewhere(notebook: Notebook) -> list[str]:
    """A relative link names a file that exists."""
    targets = [a or b for a, b in _LINK.findall(notebook.prose)]
    files = [
        unquote(target.split("#")[0]) for target in targets if not re.match(r"[a-z][a-z0-9+.-]*:|#|//", target, re.I)
    ]
    return [f"no such file: {file}" for file in files if not (notebook.path.parent / file).exists()]


def links_to_the_next(notebook: Notebook) -> list[str]:
    """The last text of every notebook but the last one says "Next" and links there."""
    if notebook.next is None:
        return []
    last = notebook.markdown[-1] if notebook.markdown else ""
    linked = any((a or b).split("#")[0].removeprefix("./") == notebook.next.name for a, b in _LINK.findall(last))
    return (
        []
        if linked and re.search(r"\bnext\b", last, re.IGNORECASE)
        else [f'its last text has no "Next" with a link to {notebook.next.name}']
    )


def has_solved_exercises(notebook: Notebook) -> list[str]:
    """Under a heading that says Exercise, and before the next heading, there is a hidden solution that runs."""
    found = []
    waiting = ""
    for cell in notebook.node.cells:
        if cell.cell_type == "markdown":
            for _, text in _HEADING.findall(_FENCE.sub("", cell.source)):
                found += [waiting] * bool(waiting)
                waiting = text if re.match(r"exercise\b", text, re.IGNORECASE) else ""
        elif cell.metadata.get("jupyter", {}).get("source_hidden") is True and cell.execution_count:
            waiting = ""
    found += [waiting] * bool(waiting)
    return [f"{text!r} has no solution: a code cell with jupyter.source_hidden, executed" for text in found]


def ends_by_stopping(notebook: Notebook) -> list[str]:
    """The last code cell stops what was started, and shows that nothing is left."""
    cells = rules.code_cells(notebook.node)
    return [] if cells and "stop" in cells[-1].source.lower() else ["the last code cell says nothing about stopping"]


def _table_lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.lstrip().startswith("|")]


def _output_texts(cell: NotebookNode) -> Iterator[str]:
    """All text in the outputs of a cell, without the terminal's colour codes."""
    for output in cell.outputs:
        texts = [output.get("text", ""), output.get("evalue", ""), *output.get("traceback", [])]
        texts += [value for mime, value in output.get("data", {}).items() if not mime.startswith("image/png")]
        yield from (re.sub(r"\x1b\[[0-9;]*m", "", text) for text in texts if isinstance(text, str) and text)


RULES: list[Callable[[Notebook], list[str]]] = [
    is_fit_to_be_compared,
    is_executed_in_order,
    is_as_written_by_make_notebooks,
    opens_with_one_title,
    skips_no_heading_level,
    opens_with_a_table,
    has_alternative_text,
    has_table_headers,
    has_no_github_alerts,
    has_short_cells,
    names_no_machine_path,
    listens_on_this_machine_only,
    shows_nothing_that_varies,
    redraws_nothing,
    has_links_that_lead_somewhere,
    links_to_the_next,
    has_solved_exercises,
    ends_by_stopping,
]
