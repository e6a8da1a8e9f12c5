"""Execute notebooks in place and refresh their outputs.

    python scripts/run_notebooks.py                  all of notebooks/
    python scripts/run_notebooks.py a.ipynb ...      some
    python scripts/run_notebooks.py --check          execute nothing; exit 1 if the files are not as written here

A notebook is written only if all its cells ran as they should: no error but
in cells tagged `raises-exception`, and an error in each of those. Where no
Docker daemon answers, the cells tagged `needs-docker` keep their outputs.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import notebook_rules as rules
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from notebook_kernel import CELL_SECONDS, GONE_SECONDS, Surroundings, docker_answers

ROOT = Path(__file__).resolve().parent.parent


class NotRunError(Exception):
    """A notebook did not run as it should; its file is unchanged."""


def execute(path: Path, seconds: int) -> NotebookNode:
    """Run all cells in a new kernel, whose folder is the notebook's.

    Args:
        path: the notebook.
        seconds: what one cell may take.

    Returns:
        The notebook with its new outputs, tidied.

    Raises:
        NotRunError: a cell failed, or the kernel left processes behind.
    """
    notebook = rules.read(path)
    before = {cell.id: cell.outputs for cell in rules.code_cells(notebook)}
    surroundings = Surroundings()
    manager = AsyncKernelManager(kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager())
    current: list[NotebookNode] = []

    def begins(cell: NotebookNode, **_: object) -> None:
        current[:] = [cell]

    def ends(**_: object) -> None:
        surroundings.note_children(getattr(manager.provisioner, "pid", None))

    client = NotebookClient(
        notebook,
        km=manager,
        timeout=seconds,
        record_timing=False,
        coalesce_streams=True,
        shutdown_kernel="immediate",
        on_cell_start=begins,
        on_cell_executed=ends,
    )
    error = ""
    try:
        client.execute(
            cleanup_kc=True,
            cwd=str(path.resolve().parent),
            env=surroundings.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except CellExecutionError as raised:
        error = f"{raised.ename}: {raised.evalue}"
    except CellTimeoutError:
        error = f"took more than {seconds} s"
    except DeadKernelError:
        error = "the kernel died"
    finally:
        left = surroundings.left_behind()
    if error:
        cell = current[0]
        raise NotRunError(f"{path.name}, cell {rules.number_of(notebook, cell)}, `{rules.first_line(cell)}`: {error}")
    if left:
        raise NotRunError(f"{path.name}: still alive {GONE_SECONDS:g} s after the end of its kernel: {'; '.join(left)}")
    rules.tidy(notebook, ROOT)
    if not docker_answers():
        keep_docker_outputs(notebook, before)
    if found := rules.problems(notebook):
        raise NotRunError("\n".join(f"{path.name}: {problem}" for problem in found))
    return notebook


def keep_docker_outputs(notebook: NotebookNode, before: dict[str, list[NotebookNode]]) -> None:
    """Give the cells that need Docker their old outputs back.

    Args:
        notebook: the executed notebook.
        before: the outputs that its cells had, by cell id.
    """
    for cell in rules.code_cells(notebook):
        if rules.DOCKER_TAG in rules.tags(cell):
            cell.outputs = before[cell.id]


def write(path: Path, text: str) -> None:
    """Replace a file at once: who reads it sees the old text or the new, never a half."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def check(path: Path) -> list[str]:
    """What is wrong with a committed notebook, without running it.

    Args:
        path: the notebook.

    Returns:
        One line per problem; empty if outputs are all there and the file is as `make notebooks` writes it.
    """
    text = path.read_text(encoding="utf-8")
    notebook = rules.read(path)
    found = rules.problems(notebook)
    rules.tidy(notebook, ROOT)
    if not found and text != rules.to_text(notebook):
        found.append("is not as `make notebooks` writes it: metadata or format differ")
    return [f"{path.name}: {problem}" for problem in found]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="notebooks; all of notebooks/ where none is named")
    parser.add_argument("--check", action="store_true", help="execute and write nothing")
    parser.add_argument("--timeout", type=int, default=CELL_SECONDS, metavar="S", help="seconds that a cell may take")
    options = parser.parse_args()
    paths: list[Path] = options.paths or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if missing := [str(path) for path in paths if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(missing)}")
    failed = 0
    for path in paths:
        started = time.monotonic()
        if options.check:
            complaints = check(path)
        else:
            try:
                text = rules.to_text(execute(path, options.timeout))
                write(path, text)
                complaints = []
            except NotRunError as error:
                complaints = [str(error), f"{path.name}: not written"]
        failed += bool(complaints)
        print("\n".join(complaints) or f"{path.name}: {time.monotonic() - started:.1f} s", flush=True)
    print(f"{len(paths)} notebooks, {failed} failed")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
