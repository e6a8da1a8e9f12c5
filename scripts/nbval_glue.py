"""What nbval 0.11 lacks to make a green run mean something.

nbval reads the notebooks, runs the cells and compares text. Three of its
classes have children here, which notebooks/conftest.py puts in their place:

    CheckedKernel     the environment of scripts/notebook_kernel.py; a dead kernel is noticed at once
    CheckedNotebook   nothing is left behind by its kernel; one broken cell ends the notebook
    CheckedCell       the rules of scripts/notebook_rules.py; errors and images compared; says what was compared
"""

import re
import subprocess
import time
from collections.abc import Iterator
from queue import Empty
from typing import Any

import nbval.kernel
import nbval.plugin
import notebook_rules as rules
import pytest
from notebook_kernel import GONE_SECONDS, Surroundings, docker_answers

__all__ = ["CheckedCell", "CheckedKernel", "CheckedNotebook", "KernelDiedError", "replace_nbval_files"]

_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*m")


class KernelDiedError(Exception):
    """The kernel ended while a cell ran, or before it."""


class CellDiffersError(Exception):
    """A cell ran, but it is not what is committed."""


class CheckedKernel(nbval.kernel.RunningKernel):
    """A kernel whose death is noticed within a second, and whose child processes are watched."""

    def __init__(self, kernel_name: str, cwd: str | None = None, startup_timeout: float = 60) -> None:
        self.surroundings = Surroundings()
        try:
            self.km, self.kc = nbval.kernel.start_new_kernel(
                startup_timeout=startup_timeout,
                kernel_name=kernel_name,
                cwd=cwd,
                env=self.surroundings.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._ensure_iopub_up()
        except BaseException:
            self.surroundings.left_behind(0)
            raise

    def get_message(self, stream: str, timeout: float | None = None) -> Any:
        """The next message, or `queue.Empty` after `timeout` seconds, or `KernelDiedError`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = 0.5 if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                return super().get_message(stream, timeout=min(0.5, left))
            except Empty:
                if not self.is_alive():
                    status = self.km.provisioner.process.returncode
                    raise KernelDiedError(f"the kernel died while this cell ran (exit status {status})") from None
                if left == 0:
                    raise

    def execute_cell_input(self, cell_input: str, allow_stdin: bool | None = None) -> Any:
        """Send code as JupyterLab does: with history, without which `plt.plot(x);` would print its result."""
        return self.kc.execute(cell_input, store_history=True, allow_stdin=allow_stdin, stop_on_error=False)

    def stop(self) -> None:
        """Leave it to `end`: nbval stops a kernel that cannot be interrupted, and then forgets its process."""

    def end(self) -> list[str]:
        """Kill the kernel, as a crash would; the child processes that outlive it are returned, then ended too."""
        self.surroundings.note_children(self.km.provisioner.pid)
        self.kc.stop_channels()
        self.km.shutdown_kernel(now=True)
        return self.surroundings.left_behind()


class CheckedNotebook(nbval.plugin.IPyNbFile):
    """A notebook, all of whose outputs are compared; `broken` names the cell that ended it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.skip_compare += ("stderr",)
        self.broken = ""
        self.ran: set[int] = set()
        self.kernel: CheckedKernel | None = None

    def collect(self) -> Iterator[nbval.plugin.IPyNbCell]:
        items = [item for item in super().collect() if item.cell.source.strip()]
        if not items:
            raise self.CollectError(f"{self.path.name} has no code cell, so there is nothing to check")
        for number, item in enumerate(items, 1):
            # A colon pair would part the name where pytest parts a path from a name.
            name = f"cell {number}: {rules.first_line(item.cell)}".replace("::", ":")
            yield CheckedCell.from_parent(self, name=name, cell_num=number, cell=item.cell, options=item.options)

    def setup(self) -> None:
        self.kernel = CheckedKernel(
            self.config.option.nbval_kernel_name or nbval.kernel.CURRENT_ENV_KERNEL_NAME,
            cwd=str(self.path.parent),
            startup_timeout=self.config.option.nbval_kernel_startup_timeout,
        )
        self.setup_sanitize_files()

    def teardown(self) -> None:
        if self.kernel is None:
            return
        kernel, self.kernel = self.kernel, None
        died, left = not kernel.is_alive(), kernel.end()
        complaints = [f"still alive {GONE_SECONDS:g} s after the end of its kernel: {line}" for line in left]
        if died and not self.broken:
            complaints.append("its kernel had died before the end")
        if complaints:
            raise pytest.fail.Exception("\n".join(f"{self.path.name}: {c}" for c in complaints), pytrace=False)


class CheckedCell(nbval.plugin.IPyNbCell):
    """A code cell: runs without error (or with the committed one), and gives the committed outputs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.colors = nbval.plugin.nocolors
        self.options.update(check=False, skip=False, check_exception=rules.RAISES_TAG in rules.tags(self.cell))

    def setup(self) -> None:
        if self.parent.broken:
            raise pytest.skip.Exception(f"{self.parent.path.name} is broken from {self.parent.broken} on")

    def runtest(self) -> None:
        complaints = rules.cell_problems(self.cell)
        if self.cell_num == 1 and not any(cell.outputs for cell in rules.code_cells(self.parent.nb)):
            complaints.append("the whole notebook has no outputs")
        try:
            self._run_cells_before()
            self.parent.ran.add(self.cell_num)
            super().runtest()
        except Exception:
            self.parent.broken = self.name
            raise
        complaints += self._compare()
        if complaints:
            raise CellDiffersError("\n".join(complaints))

    def _run_cells_before(self) -> None:
        """Where only some cells were selected, the earlier ones still run; they are not compared."""
        kernel = self.parent.kernel
        if not kernel.is_alive():
            raise KernelDiedError("the kernel had died before this cell")
        for number, cell in enumerate(rules.code_cells(self.parent.nb)[: self.cell_num - 1], 1):
            if number not in self.parent.ran:
                self.parent.ran.add(number)
                message = kernel.execute_cell_input(cell.source, allow_stdin=False)
                kernel.await_reply(message, timeout=self.config.option.nbval_cell_timeout)

    def _compare(self) -> list[str]:
        if rules.is_ignored(self.cell):
            self._count("ignored", rules.ignore_reason(self.cell) or "no reason given")
            return self._compare_errors(("ename",))
        if rules.DOCKER_TAG in rules.tags(self.cell) and not docker_answers():
            self._count("needs Docker", "no Docker daemon answers")
            return self._compare_errors(())
        self._count("compared", "")
        committed = nbval.plugin.coalesce_streams(self.cell.outputs)
        computed = self.test_outputs
        was, now = rules.kinds(committed), rules.kinds(computed)
        complaints = [f"missing output: {kind}" for kind in (was - now).elements()]
        complaints += [f"extra output: {kind}" for kind in (now - was).elements()]
        complaints += self._compare_errors(("ename", "evalue"))
        complaints += rules.image_problems(committed, computed)
        if not self.compare_outputs(computed, committed):
            complaints += ["the outputs differ:", *self.comparison_traceback]
        return complaints

    def _compare_errors(self, fields: tuple[str, ...]) -> list[str]:
        """A cell that is tagged to raise must raise, and the committed error, as far as `fields` say."""
        if not self.options["check_exception"]:
            return []
        raised = [output for output in self.test_outputs if output.output_type == "error"]
        if not raised:
            return [f"is tagged {rules.RAISES_TAG}, but raised nothing"]
        expected = [output for output in self.cell.outputs if output.output_type == "error"]
        differing = [f for f in fields if expected and self.sanitize(raised[0][f]) != self.sanitize(expected[0][f])]
        return [f"raised {raised[0].ename}: {raised[0].evalue}, not the committed error"] if differing else []

    def _count(self, outcome: str, reason: str) -> None:
        """Leave word for the summary; properties travel with the report, also between processes."""
        self.user_properties += [
            ("notebook", self.parent.path.name),
            ("cell", str(self.cell_num)),
            ("outcome", outcome),
            ("reason", reason),
        ]

    def reportinfo(self) -> tuple[Any, int, str]:
        return self.path, 0, f"{self.parent.path.name}, {self.name}"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        error = excinfo.value
        if not isinstance(error, CellDiffersError | KernelDiedError | nbval.plugin.NbCellError):
            return pytest.Item.repr_failure(self, excinfo)
        parts = [f"{self.parent.path.name}, {self.name}", str(error), "", "Cell:", self.cell.source]
        if traceback := getattr(error, "inner_traceback", None):
            parts += ["", "Traceback:", str(traceback).strip("\n")]
        return _TERMINAL_CODES.sub("", "\n".join(parts))


def replace_nbval_files(collected: list[Any], parent: pytest.Collector) -> list[Any]:
    """Of what pytest collects in a path: our notebooks where nbval's were, the rest as it is."""
    return [
        CheckedNotebook.from_parent(parent, path=node.path) if isinstance(node, nbval.plugin.IPyNbFile) else node
        for node in collected
    ]
