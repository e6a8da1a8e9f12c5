"""The set-up script, run for real on a tiny project: nothing is downloaded.

PATH holds only what a test puts there, so the machine's own Pythons do not matter.
"""

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import flit_core
import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
PROJECT = """\
[build-system]
requires = []
build-backend = "flit_core.buildapi"
backend-path = ["backend"]

[project]
name = "tiny"
version = "1"
description = "A tiny project."
"""
# A Python that answers as another one would: {pretend} runs before the script's question.
WRAPPER = """\
#!/bin/sh
if [ "$1" = -c ]; then
    exec "{python}" -c 'import sys; asked = sys.argv.pop(1)
{pretend}
exec(asked)' "$2"
fi
exec "{python}" "$@"
"""
TOO_OLD = "sys.version_info = (3, 8, 18)"
NO_VENV = """\
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name: None if name == "ensurepip" else find(name)
"""
PIN = f"six==1.17.0 --hash=sha256:{'0' * 64}\n"


class Checkout:
    """A folder with our set-up script, a project that installs in no time, and a PATH."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.root = folder
        self.bin = home / "bin"
        self.home = home
        self.started: list[subprocess.Popen[str]] = []
        self.bin.mkdir(parents=True)
        dirname = shutil.which("dirname")
        assert dirname
        (self.bin / "dirname").symlink_to(dirname)
        (folder / "scripts").mkdir(parents=True)
        for name in ("setup.sh", "setup.py"):
            shutil.copy(SCRIPTS / name, folder / "scripts")
        shutil.copytree(Path(flit_core.__file__).parent, folder / "backend" / "flit_core")
        (folder / "pyproject.toml").write_text(PROJECT)
        (folder / "requirements.txt").write_text("# nothing\n")
        (folder / "tiny.py").write_text("ANSWER = 42\n")

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    def python(self, name: str = "python3", pretend: str = "") -> None:
        """Put a Python on PATH."""
        program = self.bin / name
        program.write_text(WRAPPER.format(python=sys.executable, pretend=pretend))
        program.chmod(0o755)

    def start(self, **variables: str) -> subprocess.Popen[str]:
        env = {"PATH": str(self.bin), "HOME": str(self.home), "TFS_SETUP_GB": "0.05", "PIP_RETRIES": "0"}
        process = subprocess.Popen(
            ["/bin/sh", "scripts/setup.sh"],
            cwd=self.root,
            env=env | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def stop(self) -> None:
        """End all that was started, and what it started."""
        for process in self.started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdout
            process.stdout.close()

    def setup(self, **variables: str) -> tuple[int, str]:
        """Run the script: its exit status, and all that it said."""
        process = self.start(**variables)
        said, _ = process.communicate()
        return process.returncode, said

    def answers(self) -> bool:
        """Whether the environment works and has the project."""
        command = [self.venv / "bin" / "python", "-c", "import tiny; print(tiny.ANSWER)"]
        done = subprocess.run(command, cwd=self.home, capture_output=True, text=True, check=False)
        return done.stdout == "42\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path / "a checkout", tmp_path / "home")
    yield made
    made.stop()


class SilentIndex:
    """A package index that takes connections and never answers."""

    def __init__(self) -> None:
        self.taken: list[socket.socket] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}/simple"
        self.thread = threading.Thread(target=self.take, daemon=True)
        self.thread.start()

    def take(self) -> None:
        while True:
            try:
                self.taken.append(self.server.accept()[0])
            except OSError:  # closed
                return

    def close(self) -> None:
        """Break all connections; a second call does nothing."""
        if self.server.fileno() == -1:
            return
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()
        for connection in self.taken:
            connection.close()


@pytest.fixture
def silent_index() -> Iterator[SilentIndex]:
    index = SilentIndex()
    yield index
    index.close()


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.05)


def test_sets_up_once_and_again_only_for_what_changed(checkout: Checkout, tmp_path: Path) -> None:
    checkout.python()
    poison = tmp_path / "poison"
    poison.mkdir()
    (poison / "json.py").write_text("raise SystemExit('the wrong json')\n")
    settings = checkout.home / ".pip" / "pip.conf"
    settings.parent.mkdir()
    settings.write_text("[global]\nuser = true\nrequire-virtualenv = true\n")
    status, said = checkout.setup(
        PYTHONPATH=str(poison),
        PYTHONHOME="/nonexistent",
        VIRTUAL_ENV="/nonexistent",
        CONDA_PREFIX="/nonexistent",
        PIP_REQUIRE_VIRTUALENV="1",
        PIP_USER="1",
        PIP_TARGET=str(tmp_path / "elsewhere"),
    )
    assert status == 0, said
    assert "Set up in" in said
    assert checkout.answers()
    assert not (tmp_path / "elsewhere").exists()
    assert not (checkout.venv / "tmp").exists()

    assert checkout.setup() == (0, "")  # instant: nothing to say

    stays = checkout.venv / "stays"
    stays.touch()
    (checkout.root / "pyproject.toml").write_text(PROJECT + "# changed\n")
    status, said = checkout.setup()
    assert status == 0, said
    assert stays.exists()  # only the project was installed anew
    assert checkout.setup() == (0, "")


def whole(checkout: Checkout) -> None:
    """Give the checkout an environment that the script takes for up to date, without making one."""
    (checkout.venv / "bin").mkdir(parents=True)
    (checkout.venv / "bin" / "python").symlink_to(sys.executable)
    pins, project = ((checkout.root / name).read_bytes() for name in ("requirements.txt", "pyproject.toml"))
    marker = {
        "place": str(checkout.root.resolve()),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "pins": hashlib.sha256(pins).hexdigest(),
        "project": hashlib.sha256(project).hexdigest(),
    }
    (checkout.venv / "made-from.json").write_text(json.dumps(marker))


def change_pins(checkout: Checkout) -> None:
    (checkout.root / "requirements.txt").write_text("# other pins\n")


def move(checkout: Checkout) -> None:
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))


def lose_python(checkout: Checkout) -> None:
    (checkout.venv / "bin" / "python").unlink()


def lose_marker(checkout: Checkout) -> None:
    (checkout.venv / "made-from.json").unlink()


def cut_marker(checkout: Checkout) -> None:
    (checkout.venv / "made-from.json").write_text('{"place": ')


@pytest.mark.parametrize("breaks", [change_pins, move, lose_python, lose_marker, cut_marker])
def test_made_anew_where_it_cannot_be_right(checkout: Checkout, breaks: Callable[[Checkout], None]) -> None:
    checkout.python("python3.12", NO_VENV)  # will not do: the next one is taken
    checkout.python("python3")
    whole(checkout)
    assert checkout.setup() == (0, "")
    breaks(checkout)
    status, said = checkout.setup(TFS_SETUP_GB="1000000000")  # it would, if there were room
    assert status == 1
    assert "Not enough disk space" in said
    assert not checkout.venv.exists()


@pytest.mark.parametrize("broken", ["a folder", "a file", "a link"])
def test_what_is_in_the_way_goes_before_anything_is_made(checkout: Checkout, tmp_path: Path, broken: str) -> None:
    checkout.python()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    if broken == "a file":
        checkout.venv.touch()
    elif broken == "a link":
        checkout.venv.symlink_to(kept)
    else:
        shutil.copytree(kept, checkout.venv / "bin")
    status, _ = checkout.setup(TFS_SETUP_GB="1000000000")
    assert status == 1
    assert not os.path.lexists(checkout.venv)
    assert (kept / "file").exists()


def test_no_suitable_python(checkout: Checkout) -> None:
    checkout.python("python3", TOO_OLD)
    shim = checkout.bin / "python3.12"
    shim.write_text("#!/bin/sh\nexit 127\n")
    shim.chmod(0o755)
    status, said = checkout.setup()
    assert status == 1
    assert "needs Python 3.10 to 3.13" in said
    assert f"{checkout.bin}/python3: 3.8.18, too old" in said
    assert f"{checkout.bin}/python3.12: does not run" in said
    assert "brew install" in said
    assert "make setup PYTHON=" in said
    assert not checkout.venv.exists()


def test_no_python_at_all(checkout: Checkout) -> None:
    status, said = checkout.setup()
    assert status == 1
    assert "Found: none" in said


def test_no_venv_module(checkout: Checkout) -> None:
    checkout.python("python3.11", NO_VENV)
    status, said = checkout.setup()
    assert status == 1
    assert "without its venv module" in said
    assert "apt install python3-venv" in said
    assert not checkout.venv.exists()


def test_the_python_that_the_caller_names_and_no_other(checkout: Checkout) -> None:
    checkout.python("python3")
    checkout.python("old", TOO_OLD)
    status, said = checkout.setup(PYTHON=str(checkout.bin / "old"))
    assert status == 1
    assert "too old" in said
    status, said = checkout.setup(PYTHON="/no/such/python")
    assert status == 1
    assert "/no/such/python: no such program" in said


def test_not_enough_disk_space(checkout: Checkout) -> None:
    checkout.python()
    status, said = checkout.setup(TFS_SETUP_GB="1000000000")
    assert status == 1
    assert "Not enough disk space" in said
    assert "1000000000.0 GB are needed" in said
    assert "Traceback" not in said
    assert not checkout.venv.exists()


def test_no_network(checkout: Checkout) -> None:
    checkout.python()
    (checkout.root / "requirements.txt").write_text(PIN)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    status, said = checkout.setup(PIP_INDEX_URL=f"http://127.0.0.1:{port}/simple")
    assert status == 1
    assert "The package index cannot be reached" in said
    assert "HTTPS_PROXY" in said
    assert "Traceback" not in said
    assert not checkout.venv.exists()


def test_a_package_that_is_not_the_pinned_one(checkout: Checkout, tmp_path: Path) -> None:
    checkout.python()
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    (wheels / "six-1.17.0-py3-none-any.whl").write_bytes(b"something else")
    (checkout.root / "requirements.txt").write_text(PIN)
    status, said = checkout.setup(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(wheels))
    assert status == 1
    assert "not the one that requirements.txt names" in said
    assert not checkout.venv.exists()


def test_killed_half_way(checkout: Checkout, silent_index: SilentIndex) -> None:
    checkout.python()
    (checkout.root / "requirements.txt").write_text(PIN)
    first = checkout.start(PIP_INDEX_URL=silent_index.url)
    until(lambda: bool(silent_index.taken))
    first.kill()  # only the script: its pip lives on, and holds the lock
    first.wait()
    assert checkout.venv.exists()

    (checkout.root / "requirements.txt").write_text("# nothing\n")
    second = checkout.start()
    assert second.stdout
    assert "Another set-up" in second.stdout.readline()
    silent_index.close()
    said = second.communicate()[0]
    assert second.returncode == 0, said
    assert checkout.answers()


def test_interrupted(checkout: Checkout, silent_index: SilentIndex) -> None:
    checkout.python()
    (checkout.root / "requirements.txt").write_text(PIN)
    process = checkout.start(PIP_INDEX_URL=silent_index.url)
    until(lambda: bool(silent_index.taken))
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == 1
    assert said.splitlines()[-1] == "Interrupted: the next run begins anew."
    assert "Traceback" not in said
    assert not checkout.venv.exists()
