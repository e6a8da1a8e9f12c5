"""How a notebook's kernel is started, and what must be gone when it has ended.

`run_notebooks.py` writes the outputs and `nbval_glue.py` compares them. Both
start their kernels from here, so that what is written is what is compared.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

__all__ = ["CELL_SECONDS", "GONE_SECONDS", "Surroundings", "docker_answers"]

CELL_SECONDS = 60
GONE_SECONDS = 5.0
_MARK = "TFS_NOTEBOOK_KERNEL"
# Under PYTEST_CURRENT_TEST ipykernel does not show what C code and child processes write;
# with MPLBACKEND from outside, figures are not shown inline.
_DROPPED = ("PYTEST", "MPLBACKEND")


class Surroundings:
    """The environment of one kernel, and the watch over every process that comes from it.

    Attributes:
        env: the environment to start the kernel in. It holds a mark, which all
            processes inherit that are started from the kernel, however detached.
    """

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex
        self._folder = tempfile.mkdtemp(prefix="notebook-kernel-")
        self._known: set[psutil.Process] = set()
        self.env = {name: value for name, value in os.environ.items() if not name.startswith(_DROPPED)}
        self.env[_MARK] = self._mark
        # The reader's own start-up files and history stay out of it.
        self.env["IPYTHONDIR"] = self._folder
        # A kernel that is killed clears nothing away; what it leaves in the temporary folder goes with this one.
        self.env["TMPDIR"] = self._folder
        # `!python` and `!saved_model_cli` in a cell mean the ones beside this Python.
        self.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), self.env.get("PATH", os.defpath)])

    def note_children(self, kernel_pid: int | None) -> None:
        """Remember the kernel's descendants; once it is dead they can no longer be told from others.

        Args:
            kernel_pid: process id of the kernel; nothing happens where it is None or gone.
        """
        if kernel_pid is not None and psutil.pid_exists(kernel_pid):
            with suppress(psutil.NoSuchProcess):
                self._known.update(psutil.Process(kernel_pid).children(recursive=True))

    def left_behind(self, seconds: float = GONE_SECONDS) -> list[str]:
        """Wait for every process of the ended kernel to be gone; end those that are not.

        Args:
            seconds: how long they may take.

        Returns:
            One line per process that was still alive then: its id and command line.
        """
        deadline = time.monotonic() + seconds
        while (alive := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.1)
        lines = [_describe(process) for process in alive]
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
        return lines

    def _alive(self) -> list[psutil.Process]:
        self._known.update(process for process in psutil.process_iter() if self._is_marked(process))
        self._known = {process for process in self._known if _runs(process)}
        return sorted(self._known, key=lambda process: process.pid)

    def _is_marked(self, process: psutil.Process) -> bool:
        try:
            return bool(process.environ().get(_MARK) == self._mark)
        except (psutil.Error, OSError):
            return False  # another user's, or gone


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _describe(process: psutil.Process) -> str:
    try:
        return f"process {process.pid}: {' '.join(process.cmdline())[:200]}"
    except psutil.Error:
        return f"process {process.pid}"


@cache
def docker_answers() -> bool:
    """Whether a Docker daemon answers here within ten seconds."""
    docker = shutil.which("docker")
    if docker is None:
        return False
    question = [docker, "version", "--format", "{{.Server.Version}}"]
    try:
        return subprocess.run(question, capture_output=True, timeout=10, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False
