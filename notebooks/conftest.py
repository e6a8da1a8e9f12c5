"""`pytest --nbval --nbval-current-env notebooks`: every notebook runs, and every output is compared.

The rules are in `scripts/notebook_rules.py`, the repairs to nbval in
`scripts/nbval_glue.py`. For the authors of notebooks, in short:

    tag raises-exception      the cell must raise, and the committed error
    tag nbval-ignore-output   runs, is not compared; metadata "reason" says why
    tag needs-docker          runs everywhere, is compared where Docker answers

`# NBVAL_IGNORE_OUTPUT`, alone on its line, does the same as the tag. stderr is never compared.
"""

import sys
from collections import defaultdict
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))

from notebook_kernel import CELL_SECONDS

HERE = Path(__file__).resolve().parent
NBVAL = "0.11."
NBVAL_DEFAULT_SECONDS = 2000


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("nbval_lax", False):
        raise pytest.UsageError("--nbval-lax compares next to nothing: use --nbval")
    if not config.getoption("nbval", False):
        return
    if not version("nbval").startswith(NBVAL):
        raise pytest.UsageError(
            f"nbval {version('nbval')} is installed, and scripts/nbval_glue.py was written for {NBVAL}*: "
            f"pip install 'nbval=={NBVAL}*', or see that tests/test_nbval_bites.py passes and change NBVAL here"
        )
    # nbval takes this path relative to the current folder.
    config.option.nbval_sanitize_with = config.option.nbval_sanitize_with or str(HERE / "sanitize.cfg")
    if config.option.nbval_cell_timeout == NBVAL_DEFAULT_SECONDS:
        config.option.nbval_cell_timeout = CELL_SECONDS


def pytest_report_header(config: pytest.Config) -> str | None:
    if not config.getoption("nbval", False):
        return None
    return f"notebooks: nbval {version('nbval')}, at most {config.option.nbval_cell_timeout:g} s a cell"


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Generator[None, list[Any], list[Any]]:
    collected = yield
    if file_path.suffix != ".ipynb" or not collected:
        return collected
    import nbval_glue

    return nbval_glue.replace_nbval_files(collected, parent)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    notebooks = set()
    cells: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        said = dict(getattr(report, "user_properties", []))
        if "notebook" in said and report.when == "call":
            notebooks.add(said["notebook"])
            cells[said["outcome"], said["notebook"], said["reason"]].append(int(said["cell"]))
    if not notebooks:
        return
    count = {o: sum(len(n) for key, n in cells.items() if key[0] == o) for o in ("compared", "ignored", "needs Docker")}
    terminalreporter.section("notebooks")
    terminalreporter.line(
        f"{len(notebooks)} notebooks, {sum(count.values())} code cells executed, {count['compared']} compared, "
        f"{count['ignored']} ignored, {count['needs Docker']} needing Docker and not compared"
    )
    for (outcome, notebook, reason), numbers in sorted(cells.items(), key=lambda item: (item[0][:2], item[1])):
        if outcome != "compared":
            which = ", ".join(str(number) for number in sorted(numbers))
            terminalreporter.line(f"  {outcome}: {notebook}, cell {which}: {reason}")
