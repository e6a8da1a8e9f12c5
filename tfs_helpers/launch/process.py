"""A program that runs under guard: it ends when we do, however we end."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfs_helpers.errors import LaunchError

__all__ = ["GRACE", "GuardedProcess"]

GRACE = 3.0
"""Seconds that a server gets to end after SIGTERM, before SIGKILL."""

_START = 10.0  # seconds in which the guard must answer; it takes some 50 ms
_PATIENCE = 3.0  # seconds beyond the grace in which it must have cleaned up
_GUARD = Path(__file__).with_name("guard.py")


class GuardedProcess:
    """A program, its log and its scratch folder, watched by `guard.py`.

    Args:
        argv: the program and its arguments; empty for a guard that only cleans up. `{scratch}` in an argument stands
            for the scratch folder.
        files: what to write into the scratch folder before: name to text.
        environment: variables on top of ours.
        cleanup: a command that the guard runs when it ends, unless `stop` is told that it is not needed.

    Raises:
        LaunchError: the program, or its guard, cannot be started.

    Attributes:
        pid: the program's process id; the guard's own where there is no program.
        scratch: the folder that goes away with the program.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        files: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
        cleanup: Sequence[str] = (),
    ) -> None:
        # Named here and made by the guard, so that there is never a folder without a guard.
        self.scratch = Path(tempfile.gettempdir()) / f"tfs-helpers-{uuid.uuid4().hex[:12]}"
        self._exit: int | None = None
        self._log = ""
        self._rest = b""
        self._lock = threading.Lock()
        task = {
            "parent": os.getpid(),
            "scratch": str(self.scratch),
            "files": dict(files or {}),
            "argv": [part.replace("{scratch}", str(self.scratch)) for part in argv],
            "environment": dict(environment or {}),
            "grace": GRACE,
            "cleanup": list(cleanup),
        }
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal or the notebook is not for the server
        )
        self._server: list[int] = []
        self._owner = os.getpid()
        # Runs when the interpreter ends, too.
        self._end = weakref.finalize(self, _end, self._guard, self._server, self.scratch, self._owner)
        try:
            self.pid = self._introduce(task)
            self._server.append(self.pid)
        except BaseException:
            self.stop()
            raise

    def _introduce(self, task: Mapping[str, Any]) -> int:
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then it answers nothing, and that is told below
            self._guard.stdin.write(json.dumps(task).encode() + b"\n")
        answer = self._hear(_START)
        if "pid" in answer:
            return int(answer["pid"])
        raise LaunchError(
            f"{task['argv'][0] if task['argv'] else 'The guard'} cannot be started: "
            f"{answer.get('failed', 'its guard gave no answer')}",
            f"The server's scratch folder is {self.scratch}, its guard runs in {sys.executable}.",
            "Check that there is space in the temporary folder (TMPDIR names another), and memory.",
        )

    def _hear(self, seconds: float) -> dict[str, Any]:
        """The guard's next line, or nothing when none comes in time."""
        assert self._guard.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._rest:
            readable, _, _ = select.select([self._guard.stdout], [], [], max(0.0, deadline - time.monotonic()))
            piece = os.read(self._guard.stdout.fileno(), 65536) if readable else b""
            if not piece:
                return {}
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def poll(self) -> int | None:
        """The program's exit status, 128 and the signal's number for one that was killed; None while it runs."""
        with self._lock:
            if self._exit is None and self._guard.stdout is not None and not self._guard.stdout.closed:
                answer = self._hear(0.0)
                if "exit" in answer:
                    self._exit = int(answer["exit"])
                elif self._guard.poll() is not None:  # the guard is dead, and so the server is
                    self._exit = _status(self._guard.returncode)
            return self._exit

    def log(self) -> str:
        """All that the program has written to stdout and stderr; what was known last, once it is stopped."""
        with contextlib.suppress(FileNotFoundError):
            self._log = (self.scratch / "server.log").read_text(encoding="utf-8", errors="replace")
        return self._log

    def stop(self, *, cleaned: bool = False) -> None:
        """End the program: SIGTERM, after `GRACE` seconds SIGKILL. Nothing of it is left afterwards.

        Args:
            cleaned: the guard's clean-up command has nothing left to do.
        """
        if os.getpid() != self._owner:
            return
        self.log()
        if cleaned and self._guard.stdin is not None and not self._guard.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self._guard.stdin.write(b"done\n")
        self.poll()
        self._end()
        with self._lock:
            if self._exit is None:
                self._exit = _status(self._guard.returncode)


def _end(guard: subprocess.Popen[bytes], server: list[int], scratch: Path, owner: int) -> None:
    """Let the guard end, and do its work where it could not. Not in a process that was forked from ours."""
    if os.getpid() != owner:
        return
    assert guard.stdin is not None
    assert guard.stdout is not None
    guard.stdin.close()
    try:
        guard.wait(GRACE + _PATIENCE)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()
    guard.stdout.close()
    if guard.returncode < 0 and server and server[0] != guard.pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server[0], signal.SIGKILL)
    shutil.rmtree(scratch, ignore_errors=True)


def _status(code: int) -> int:
    """As a shell has it: 128 and the signal's number for a process that a signal ended."""
    return code if code >= 0 else 128 - code
