"""Every notebook keeps every rule of `scripts/notebook_style.py`, and every rule is seen to bite.

A small notebook that keeps them all is spoilt in one way after another.
"""

import base64
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode, v4

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

import notebook_rules as rules
import notebook_style as style
from notebook_style import RULES, Notebook

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
Spoil = Callable[[NotebookNode], None]

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
TOP = """# Serve a model

| you will build | you need | minutes |
|---|---|---|
| a server | [nothing](01_next.ipynb) | 5 |"""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_notebook_keeps_every_rule(rule: Callable[[Notebook], list[str]], path: Path) -> None:
    assert rule(Notebook(path)) == []


def good() -> NotebookNode:
    """A notebook that keeps every rule."""
    figure = v4.new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"})
    figure.metadata["image/png"] = {"alt": "a line that rises"}
    error = v4.new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
    html = v4.new_output("display_data", {"text/html": '<svg aria-label="the way"></svg><table><th>a</th></table>'})
    cells = [
        v4.new_markdown_cell(TOP),
        v4.new_code_cell("import tfs_helpers", id="first"),
        v4.new_markdown_cell(
            "## Look\n\n![an eye](eye.png) <img src='eye.png' alt='an eye'> `![](x)`\n\n```\n# not a title\n```"
        ),
        v4.new_code_cell("print('127.0.0.1:8501')  # not 0.0.0.0", id="out"),
        v4.new_code_cell("show()", id="figure", outputs=[figure, html]),
        v4.new_code_cell("fail()", id="error", outputs=[error], metadata={"tags": ["raises-exception"]}),
        v4.new_markdown_cell("## Exercise: stop it\n\nTry. Not `0.0.0.0`.", id="exercise"),
        v4.new_code_cell("# Write your code here.", id="yours"),
        v4.new_code_cell("solve()", id="solution", metadata={"jupyter": {"source_hidden": True}}),
        v4.new_markdown_cell(
            "## Recap\n\nNext: [call it](01_next.ipynb#first). See [the docs](https://example.org/home/x).", id="recap"
        ),
        v4.new_code_cell("server.stop()", id="last"),
    ]
    made = v4.new_notebook(cells=cells)
    by_id(made, "out").outputs = [v4.new_output("stream", name="stdout", text="127.0.0.1:8501\n")]
    for number, cell in enumerate(rules.code_cells(made), 1):
        cell.execution_count = number
    rules.tidy(made, ROOT)
    return made


def by_id(notebook: NotebookNode, name: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if cell.id == name)


def saved(folder: Path, notebook: NotebookNode) -> Notebook:
    """The notebook as `00_this.ipynb`, with another one after it, in a folder `notebooks`."""
    place = folder / "notebooks"
    place.mkdir()
    (place / "eye.png").touch()
    (place / "01_next.ipynb").touch()
    (place / "00_this.ipynb").write_text(rules.to_text(notebook), encoding="utf-8")
    return Notebook(place / "00_this.ipynb")


def source(cell: str, old: str, new: str) -> Spoil:
    """Spoil by a change in the source of a cell; the change must be one."""

    def spoil(notebook: NotebookNode) -> None:
        assert old in by_id(notebook, cell).source
        by_id(notebook, cell).source = by_id(notebook, cell).source.replace(old, new)

    return spoil


def top(old: str, new: str) -> Spoil:
    def spoil(notebook: NotebookNode) -> None:
        assert old in notebook.cells[0].source
        notebook.cells[0].source = notebook.cells[0].source.replace(old, new)

    return spoil


def text(words: str) -> Spoil:
    """Spoil by more text, before the recap."""
    return source("exercise", "Try.", f"Try.\n\n{words}\n\n")


def printed(words: str) -> Spoil:
    """Spoil by more output."""

    def spoil(notebook: NotebookNode) -> None:
        by_id(notebook, "out").outputs[0].text = words

    return spoil


def cell(name: str, **values: object) -> Spoil:
    """Spoil by other values in a cell."""

    def spoil(notebook: NotebookNode) -> None:
        by_id(notebook, name).update(values)

    return spoil


def figure_without_alt(notebook: NotebookNode) -> None:
    by_id(notebook, "figure").outputs[0].metadata = {}


def html(page: str) -> Spoil:
    def spoil(notebook: NotebookNode) -> None:
        by_id(notebook, "figure").outputs[1].data["text/html"] = page

    return spoil


def noise_kept(notebook: NotebookNode) -> None:
    by_id(notebook, "out").outputs.append(v4.new_output("stream", name="stderr", text="noise"))


def other_python(notebook: NotebookNode) -> None:
    notebook.metadata.language_info.version = "3.12.1"


def empty_cell(notebook: NotebookNode) -> None:
    notebook.cells.append(v4.new_code_cell(""))


def no_cells(notebook: NotebookNode) -> None:
    notebook.cells = []


def text_first(notebook: NotebookNode) -> None:
    notebook.cells.insert(0, v4.new_markdown_cell("Before the title."))


def unsolved(notebook: NotebookNode) -> None:
    notebook.cells.remove(by_id(notebook, "solution"))


BAD: list[tuple[Callable[[Notebook], list[str]], Spoil]] = [
    (style.is_fit_to_be_compared, cell("error", metadata={})),
    (style.is_fit_to_be_compared, cell("first", execution_count=None)),
    (style.is_fit_to_be_compared, source("out", "print", "# NBVAL_IGNORE\nprint")),
    (style.is_fit_to_be_compared, cell("out", metadata={"tags": ["nbval-ignore-output"]})),
    (style.is_executed_in_order, cell("figure", execution_count=7)),
    (style.is_executed_in_order, empty_cell),
    (style.is_as_written_by_make_notebooks, other_python),
    (style.is_as_written_by_make_notebooks, noise_kept),
    (style.is_as_written_by_make_notebooks, cell("first", metadata={"execution": {"iopub.status.busy": "now"}})),
    (style.opens_with_one_title, top("# Serve", "## Serve")),
    (style.opens_with_one_title, source("recap", "## Recap", "# Recap")),
    (style.opens_with_one_title, text_first),
    (style.opens_with_one_title, no_cells),
    (style.skips_no_heading_level, source("recap", "## Recap", "#### Recap")),
    (style.skips_no_heading_level, source("recap", "## Recap", "## Recap\n\n#### Deep")),
    (style.opens_with_a_table, top("minutes", "time")),
    (style.opens_with_a_table, top("|", " ")),
    (style.has_alternative_text, figure_without_alt),
    (style.has_alternative_text, text("![](eye.png)")),
    (style.has_alternative_text, text("<img src='eye.png'>")),
    (style.has_alternative_text, text("<img alt='' src='eye.png'>")),
    (style.has_alternative_text, html("<img src='data:'>")),
    (style.has_alternative_text, html("<svg><path/></svg>")),
    (style.has_table_headers, text("| a | b |\n| c | d |")),
    (style.has_table_headers, text("| | |\n|---|---|\n| c | d |")),
    (style.has_table_headers, text("<table><tr><td>a</td></tr></table>")),
    (style.has_table_headers, html("<table><tr><td>a</td></tr></table>")),
    (style.has_no_github_alerts, text("> [!NOTE]\n> words")),
    (style.has_short_cells, source("out", "print", "x = 1\n" * 16 + "print")),
    (style.names_no_machine_path, printed("/tmp/abc/model")),
    (style.names_no_machine_path, printed("in /home/ann/models")),
    (style.names_no_machine_path, printed("'/root/.cache'")),
    (style.names_no_machine_path, source("out", "print", "open('/Users/ann/x'); print")),
    (style.names_no_machine_path, text("Look in `/var/folders/ab`.")),
    (style.listens_on_this_machine_only, source("first", "import", "host = '0.0.0.0'; import")),
    (style.listens_on_this_machine_only, source("first", "import", "!docker run -p 8501:8501 x\nimport")),
    (style.shows_nothing_that_varies, printed("http://127.0.0.1:43217/v1")),
    (style.shows_nothing_that_varies, printed("<object at 0x7f12ab34cd56>")),
    (style.shows_nothing_that_varies, printed("2026-01-02 12:13:14.5 I server")),
    (style.shows_nothing_that_varies, printed("pid 4711")),
    (style.redraws_nothing, source("out", "print", "clear_output(); print")),
    (style.has_links_that_lead_somewhere, text("[gone](02_gone.ipynb)")),
    (style.has_links_that_lead_somewhere, text("![an eye](gone.png)")),
    (style.has_links_that_lead_somewhere, text("<img src='gone.png' alt='an eye'>")),
    (style.links_to_the_next, source("recap", "Next", "Then")),
    (style.links_to_the_next, source("recap", "01_next.ipynb", "eye.png")),
    (style.has_solved_exercises, unsolved),
    (style.has_solved_exercises, cell("solution", metadata={})),
    (style.has_solved_exercises, cell("solution", execution_count=None)),
    (style.has_solved_exercises, text("### Exercise 2")),
    (style.ends_by_stopping, source("last", "server.stop()", "server")),
    (style.ends_by_stopping, no_cells),
]


@pytest.mark.parametrize(("rule", "spoil"), BAD, ids=[f"{n}-{rule.__name__}" for n, (rule, _) in enumerate(BAD)])
def test_every_rule_bites(rule: Callable[[Notebook], list[str]], spoil: Spoil, tmp_path: Path) -> None:
    notebook = good()
    spoil(notebook)
    assert rule(saved(tmp_path, notebook)) != []


def test_no_rule_is_left_out() -> None:
    assert {rule for rule, _ in BAD} == set(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_notebook_keeps_every_rule(rule: Callable[[Notebook], list[str]], tmp_path: Path) -> None:
    assert rule(saved(tmp_path, good())) == []


def test_the_last_notebook_needs_no_next(tmp_path: Path) -> None:
    notebook = saved(tmp_path, good())
    shutil.copy(notebook.path, notebook.path.with_name("02_last.ipynb"))
    assert style.links_to_the_next(Notebook(notebook.path.with_name("02_last.ipynb"))) == []


@pytest.mark.parametrize("where", ["output", "cell"])
def test_alternative_text_may_stand_in_the_metadata_of_output_or_cell(where: str, tmp_path: Path) -> None:
    notebook = good()
    figure_without_alt(notebook)
    figure = by_id(notebook, "figure")
    (figure.outputs[0] if where == "output" else figure).metadata["alt"] = "a line"
    assert style.has_alternative_text(saved(tmp_path, notebook)) == []


def test_the_good_notebook_is_valid() -> None:
    nbformat.validate(good())
