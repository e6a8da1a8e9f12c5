"""A program under guard ends with whoever started it, however that ends, and leaves nothing behind.

The programs here are small: a socket that listens, and what is needed to make ending it hard. What holds for them holds
for a server; `test_launch.py` does the same with a real one.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import exists, until

from tfs_helpers.errors import LaunchError
from tfs_helpers.launch import ports
from tfs_helpers.launch.process import GRACE, GuardedProcess

LISTENER = """
import signal, socket, subprocess, sys, time
port, how = int(sys.argv[1]), sys.argv[2:]
if "stubborn" in how:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "child" in how:
    deaf = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print('deaf', flush=True); time.sleep(100)"
    print("child", subprocess.Popen([sys.executable, "-c", deaf]).pid, flush=True)
with socket.create_server(("127.0.0.1", port)) as server:
    print("listening", flush=True)
    time.sleep(100)
"""

# A parent: starts a listener, says where everything is, and then does as it is told.
PARENT = f"""
import os, signal, sys, time
from tfs_helpers.launch.process import GuardedProcess
process = GuardedProcess([sys.executable, "-c", {LISTENER!r}, *sys.argv[2:]])
while "listening" not in process.log():
    time.sleep(0.01)
print(process.pid, process._guard.pid, process.scratch, flush=True)
def wait():
    print("waiting", flush=True)
    while True:  # a signal between two calls would not end one long sleep
        time.sleep(0.05)
exec(sys.argv[1])
"""


def listener(*how: str) -> tuple[GuardedProcess, int]:
    port = ports.find_free("127.0.0.1")
    process = GuardedProcess([sys.executable, "-c", LISTENER, str(port), *how])
    until(lambda: "listening" in process.log())
    return process, port


class Parent:
    """A process of its own that starts a guarded listener."""

    def __init__(self, program: str, *how: str) -> None:
        self.port = ports.find_free("127.0.0.1")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, program, str(self.port), *how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        assert self.process.stdout is not None
        pid, guard, scratch = self.process.stdout.readline().split()
        self.pid, self.guard, self.scratch = int(pid), int(guard), Path(scratch)

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def has_left_nothing(self) -> bool:
        gone = not exists(self.pid) and not exists(self.guard)
        return gone and not self.scratch.exists() and ports.is_free("127.0.0.1", self.port)

    def is_up(self) -> bool:
        return exists(self.pid) and self.scratch.exists() and ports.answers("127.0.0.1", self.port)


@contextlib.contextmanager
def parent(program: str, *how: str) -> Iterator[Parent]:
    started = Parent(program, *how)
    try:
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.process.pid, signal.SIGKILL)
        started.process.communicate()


def test_it_runs_and_is_stopped() -> None:
    process, port = listener()
    assert process.poll() is None
    assert exists(process.pid)
    assert ports.answers("127.0.0.1", port)
    process.stop()
    assert process.poll() == 128 + signal.SIGTERM
    assert not exists(process.pid)
    assert not process.scratch.exists()
    assert ports.is_free("127.0.0.1", port)
    assert "listening" in process.log()
    process.stop()


def test_what_does_not_heed_sigterm_is_killed_after_a_while() -> None:
    process, port = listener("stubborn")
    begin = time.monotonic()
    process.stop()
    assert time.monotonic() - begin >= GRACE
    assert process.poll() == 128 + signal.SIGKILL
    assert not exists(process.pid)
    assert ports.is_free("127.0.0.1", port)


def test_what_the_program_started_ends_with_it() -> None:
    process, _ = listener("child")
    until(lambda: "deaf" in process.log())
    child = int(re.findall(r"child (\d+)", process.log())[0])
    assert exists(child)
    process.stop()
    until(lambda: not exists(child))


def test_an_end_is_noticed_and_its_log_is_kept() -> None:
    process = GuardedProcess(
        [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(255)"]
    )
    until(lambda: process.poll() is not None)
    assert process.poll() == 255
    assert sorted(process.log().split()) == ["err", "out"]
    assert process.scratch.exists()
    process.stop()
    assert not process.scratch.exists()
    assert sorted(process.log().split()) == ["err", "out"]
    assert process.poll() == 255


def test_a_kill_is_noticed() -> None:
    process, _ = listener()
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.poll() is not None)
    assert process.poll() == 128 + signal.SIGKILL
    process.stop()


def test_files_arguments_and_variables_arrive() -> None:
    look = "import os, pathlib, sys; print(os.environ['MARK'], pathlib.Path(sys.argv[1]).read_text())"
    process = GuardedProcess(
        [sys.executable, "-c", look, "{scratch}/a.config"], files={"a.config": "é €"}, environment={"MARK": "here"}
    )
    until(lambda: process.poll() is not None)
    assert process.log().split() == ["here", "é", "€"]
    assert process.scratch.stat().st_mode & 0o777 == 0o700
    process.stop()


def test_a_program_that_is_not_there_is_an_error_and_leaves_nothing() -> None:
    before = set(threading.enumerate())
    with pytest.raises(LaunchError, match=r"/no/such/program cannot be started: .*No such file") as caught:
        GuardedProcess(["/no/such/program"])
    scratch = caught.value.why.split()[5].rstrip(",")
    assert Path(scratch).name.startswith("tfs-helpers-")
    assert not Path(scratch).exists()
    assert set(threading.enumerate()) == before


def test_a_temporary_folder_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/proc")
    with pytest.raises(LaunchError, match="cannot be started") as caught:
        GuardedProcess([sys.executable, "-c", ""])
    assert "TMPDIR" in caught.value.fix


@pytest.mark.parametrize(
    ("program", "code"),
    [("pass", 0), ("raise RuntimeError", 1), ("sys.exit(3)", 3), ("del process; time.sleep(0.1)", 0)],
)
def test_nothing_is_left_when_the_parent_ends(program: str, code: int) -> None:
    with parent(program) as started:
        assert started.process.wait(10) == code
        assert started.has_left_nothing()


@pytest.mark.parametrize(
    ("number", "how"),
    [(signal.SIGKILL, ()), (signal.SIGTERM, ()), (signal.SIGHUP, ()), (signal.SIGKILL, ("stubborn",))],
)
def test_nothing_is_left_when_the_parent_is_killed(number: int, how: tuple[str, ...]) -> None:
    with parent("wait()", *how) as started:
        assert started.says() == "waiting"
        assert started.is_up()
        os.kill(started.process.pid, number)
        until(started.has_left_nothing, 5)


def test_nothing_is_left_when_the_parent_aborts() -> None:
    with parent("os.abort()") as started:
        assert started.process.wait(10) == -signal.SIGABRT
        until(started.has_left_nothing, 5)


def test_a_child_that_the_parent_forked_does_not_keep_the_program_alive() -> None:
    with parent("pid = os.fork()\nprint(pid, flush=True) if pid else None\ntime.sleep(100)") as started:
        forked = int(started.says())
        os.kill(started.process.pid, signal.SIGKILL)
        until(started.has_left_nothing, 5)
        assert exists(forked)
        os.kill(forked, signal.SIGKILL)


def test_a_child_that_the_parent_forked_ends_without_ending_the_program() -> None:
    with parent(
        "if os.fork() == 0: process.stop(); sys.exit()\nos.wait(); print('waited', flush=True); time.sleep(100)"
    ) as started:
        assert started.says() == "waited"
        assert started.is_up()


def test_ctrl_c_is_for_the_parent_alone() -> None:
    catch = "try: wait()\nexcept KeyboardInterrupt: print('caught', flush=True)\n"
    with parent(catch + "time.sleep(100)") as started:
        assert started.says() == "waiting"
        os.killpg(started.process.pid, signal.SIGINT)  # as a terminal does it, and Jupyter
        assert started.says() == "caught"
        assert started.is_up()


def test_a_thread_that_started_it_may_end() -> None:
    started: list[tuple[GuardedProcess, int]] = []
    thread = threading.Thread(target=lambda: started.append(listener()))
    thread.start()
    thread.join()
    process, port = started[0]
    time.sleep(0.2)
    assert process.poll() is None
    assert ports.answers("127.0.0.1", port)
    process.stop()


def test_a_killed_guard_takes_the_program_with_it() -> None:
    process, port = listener("stubborn")
    os.kill(process._guard.pid, signal.SIGKILL)
    if sys.platform == "linux":  # elsewhere it is only ended by `stop`
        until(lambda: not exists(process.pid))
    until(lambda: process.poll() is not None)
    process.stop()
    assert not exists(process.pid)
    assert ports.is_free("127.0.0.1", port)
    assert not process.scratch.exists()


def test_a_guard_that_is_told_to_end_cleans_up() -> None:
    process, port = listener()
    os.kill(process._guard.pid, signal.SIGTERM)
    until(lambda: not process.scratch.exists())
    assert ports.is_free("127.0.0.1", port)
    process.stop()


def test_a_guard_without_a_program_runs_the_clean_up(tmp_path: Path) -> None:
    mark = tmp_path / "cleaned"
    for cleaned in (True, False):
        process = GuardedProcess([], cleanup=[sys.executable, "-c", f"open({str(mark)!r}, 'w')"])
        assert process.poll() is None
        process.stop(cleaned=cleaned)
        assert mark.exists() is not cleaned


def test_guards_do_not_hold_each_other() -> None:
    first, _ = listener()
    second, port = listener()
    first.stop()
    assert second.poll() is None
    assert ports.answers("127.0.0.1", port)
    second.stop()


def test_no_descriptor_is_leaked() -> None:
    def count() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    listener()[0].stop()
    before = count()
    for _ in range(3):
        listener()[0].stop()
    assert count() == before


def test_a_busy_port_is_told_apart_from_one_that_was_just_used() -> None:
    port = ports.find_free("127.0.0.1")
    with socket.create_server(("127.0.0.1", port)) as server:
        assert not ports.is_free("127.0.0.1", port)
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()  # the side that closes first keeps the port in TIME_WAIT
    assert ports.is_free("127.0.0.1", port)
