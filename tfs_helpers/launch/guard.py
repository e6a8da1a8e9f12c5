"""The guard: a small program between us and a server, which outlives neither of them for long.

Run as `python -I -S guard.py`, in a session of its own. It reads one line of
JSON from its standard input, makes the scratch folder, starts the server, and
answers with one line of JSON. Then it waits. When its input ends, or its parent
is gone, it stops the server, cleans up and ends. The write end of its input is
held by the parent alone, so the input ends when the parent does, however that
happens; a process that the parent forked may hold it open, though, so the
parent's process id is looked at as well, once a second.

    in    {"parent": 17, "scratch": "/tmp/tfs-...", "files": {"model.config": "..."}, "argv": [...],
           "environment": {}, "grace": 3.0, "cleanup": []}
    out   {"pid": 18}                    started; without "argv" the guard itself is meant
          {"failed": "..."}              not started; the guard ends at once
          {"exit": 255}                  the server has ended; the guard waits on, so that the log can be read
    in    done                           the parent has cleaned up: leave "cleanup" out

It knows the standard library only, and nothing of this package.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["main"]

_TICK = 1.0


class Guard:
    """What one guard watches: its parent, its input, and the server that it started."""

    def __init__(self, task: dict[str, Any]) -> None:
        self.parent: int = task["parent"]
        self.grace: float = task["grace"]
        self.scratch = Path(task["scratch"])
        self.cleanup: list[str] = task["cleanup"]
        self.argv: list[str] = task["argv"]
        self.files: dict[str, str] = task["files"]
        self.environment: dict[str, str] = {**os.environ, **task["environment"]}
        self.server: subprocess.Popen[bytes] | None = None
        self.told_to_end = False
        self.wake, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only so that it wakes us

    def _end(self, *_: object) -> None:
        self.told_to_end = True

    def start(self) -> int:
        """Fill the scratch folder and start the server; its process id, or ours where there is none to start."""
        for name, text in self.files.items():
            (self.scratch / name).write_text(text, encoding="utf-8")
        if not self.argv:
            return os.getpid()
        with (self.scratch / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,  # a process group of its own, so that all of it can be ended
                preexec_fn=_die_with_parent() if sys.platform == "linux" else None,
            )
        return self.server.pid

    def watch(self) -> None:
        """Return when there is nobody left to guard the server for."""
        told = False
        while not self.told_to_end and os.getppid() == self.parent:
            if self.server is not None and self.server.poll() is not None and not told:
                told = True
                _say({"exit": _status(self.server.returncode)})
            readable, _, _ = select.select([0, self.wake], [], [], _TICK)
            if self.wake in readable:
                os.read(self.wake, 512)
            if 0 in readable:
                words = os.read(0, 512)
                if b"done" in words:
                    self.cleanup = []
                if not words:
                    return

    def stop(self) -> int:
        """End the server, politely first, and take everything away."""
        status = 0
        if self.server is not None:
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + self.grace
            while self.server.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            self._signal(signal.SIGKILL)  # also whatever the server started and left
            status = _status(self.server.wait())
        if self.cleanup:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(self.cleanup, stdin=subprocess.DEVNULL, env=self.environment, timeout=60, check=False)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return status

    def _signal(self, number: int) -> None:
        assert self.server is not None
        # Nobody there any more is what we want; macOS says "not permitted" of a group that has ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.server.pid, number)


def _status(code: int) -> int:
    """As a shell has it: 128 and the signal's number for a process that a signal ended."""
    return code if code >= 0 else 128 - code


def _die_with_parent() -> Any:
    """For a child on Linux, between fork and exec: have the kernel kill it when the guard dies, by `kill -9` even."""
    try:
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (ImportError, OSError, AttributeError):  # a Python without ctypes: the guard's own watch has to do
        return None
    guard = os.getpid()

    def ask() -> None:
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != guard:
            os._exit(1)

    return ask


def _say(words: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, json.dumps(words).encode() + b"\n")


def main() -> int:
    """Guard one server from start to end; the server's exit status."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    with open(0, "rb", buffering=0, closefd=False) as words:  # unbuffered: what follows the line stays in the pipe
        line = words.readline()
    if not line.endswith(b"\n"):
        return 1  # the parent died while it spoke
    guard = Guard(json.loads(line))
    try:
        guard.scratch.mkdir(mode=0o700)
    except OSError as error:
        _say({"failed": str(error)})
        return 1
    try:
        _say({"pid": guard.start()})
        guard.watch()
    except OSError as error:
        _say({"failed": str(error)})
    finally:
        status = guard.stop()
    return status


if __name__ == "__main__":
    sys.exit(main())
