"""Publishing, and what comes between: other publishers, a kill, an error, a full disk, a closed door."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from saved_models import PARTS, files, names, write

from tfs_helpers.errors import PublishError
from tfs_helpers.export import publish, versions

ROOT = Path(__file__).parent.parent


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "model")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "models" / "mine"


def python(code: str, *arguments: object) -> "subprocess.Popen[str]":
    """Another process that runs `code` and finds the package as we do."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


PUBLISH_MANY = """
import sys
from tfs_helpers.export import publish
from tfs_helpers.errors import PublishError
source, base, version, times = sys.argv[1:]
sys.stdin.readline()
for _ in range(int(times)):
    try:
        print(publish(source, base, int(version) if version else None).name)
    except PublishError as error:
        assert "is already in" in error.what, error
"""


def race(model: Path, base: Path, version: str, times: int) -> list[str]:
    """What four publishers at once get; everything that ever shows as a version must be whole."""
    racers = [python(PUBLISH_MANY, model, base, version, times) for _ in range(4)]
    halves: list[str] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            halves.extend(str(number) for number in versions(base) if files(base / str(number)) != PARTS)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for racer in racers:
            assert racer.stdin is not None
            racer.stdin.write("go\n")
            racer.stdin.flush()
        outcomes = [racer.communicate(timeout=60) for racer in racers]
    finally:
        over.set()
        watcher.join()
    assert [racer.returncode for racer in racers] == [0] * 4, outcomes
    assert halves == []
    return [line for out, _ in outcomes for line in out.split()]


def test_publishers_at_the_same_time_get_a_number_each(model: Path, base: Path) -> None:
    got = race(model, base, "", times=10)
    assert sorted(map(int, got)) == list(range(1, 41))
    assert versions(base) == list(range(1, 41))
    assert len(names(base)) == 40


def test_of_publishers_who_want_the_same_number_one_gets_it(model: Path, base: Path) -> None:
    assert race(model, base, "5", times=3) == ["5"]
    assert names(base) == ["5"]


# --- what ends a publisher half way

HALF_WAY = """
import sys, time
from pathlib import Path
from tfs_helpers.export import publish
def half(folder):
    (folder / "saved_model.pb").write_bytes(b"half")
    print("half way", flush=True)
    time.sleep(60)
publish(half, sys.argv[1])
"""


@pytest.fixture
def half_way(model: Path, base: Path) -> Iterator["subprocess.Popen[str]"]:
    """A publisher that has written half a model into a base path with one version."""
    publish(model, base)
    process = python(HALF_WAY, base)
    assert process.stdout is not None
    assert process.stdout.readline() == "half way\n"
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_publisher_leaves_nothing_that_a_server_loads_and_the_next_one_cleans_up(
    half_way: "subprocess.Popen[str]", model: Path, base: Path, by: signal.Signals
) -> None:
    half_way.send_signal(by)
    assert half_way.wait(timeout=10) == -by
    (left,) = set(names(base)) - {"1"}
    assert files(base / left) == {"saved_model.pb"}
    assert versions(base) == [1]
    assert files(base / "1") == PARTS

    assert publish(model, base) == base / "2"
    assert names(base) == ["1", "2"]


def test_ctrl_c_leaves_nothing(half_way: "subprocess.Popen[str]", base: Path) -> None:
    half_way.send_signal(signal.SIGINT)
    _, errors = half_way.communicate(timeout=10)
    assert "KeyboardInterrupt" in errors
    assert names(base) == ["1"]


def test_a_publisher_at_work_is_not_swept_by_another(
    half_way: "subprocess.Popen[str]", model: Path, base: Path
) -> None:
    assert publish(model, base) == base / "2"
    (left,) = set(names(base)) - {"1", "2"}
    assert files(base / left) == {"saved_model.pb"}
    assert half_way.poll() is None


def test_killed_while_it_copies(tmp_path: Path, model: Path, base: Path) -> None:
    (model / "assets").mkdir()
    for number in range(2000):
        (model / "assets" / f"{number}.txt").write_text("asset")
    base.mkdir(parents=True)
    process = python(PUBLISH_MANY, model, base, "", 1)
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    end = time.monotonic() + 30
    while not list(base.glob(".*/assets/1*")) and time.monotonic() < end:
        time.sleep(0.001)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert versions(base) == []
    assert len(names(base)) == 1
    publish(write(tmp_path / "small"), base)
    assert names(base) == ["1"]


def test_leftovers_of_other_names_are_not_ours_to_sweep(model: Path, base: Path) -> None:
    (base / ".publishing-by-rsync").mkdir(parents=True)
    (base / "notes").mkdir()
    publish(model, base)
    assert names(base) == [".publishing-by-rsync", "1", "notes"]


def test_an_error_in_the_callable_leaves_nothing_and_keeps_its_cause(base: Path) -> None:
    def fails(folder: Path) -> None:
        write(folder / "part")
        raise KeyError("no such layer")

    with pytest.raises(PublishError, match=r"The model could not be written: KeyError: 'no such layer'\.\n") as caught:
        publish(fails, base)
    assert isinstance(caught.value.__cause__, KeyError)
    assert not base.parent.exists()  # it made both, and unmade both


def test_a_failure_unmakes_no_folder_that_was_there(model: Path, base: Path) -> None:
    base.mkdir(parents=True)
    with pytest.raises(PublishError):
        publish(Path.exists, base)  # writes nothing
    assert names(base) == []


FULL = """
import resource, sys
from tfs_helpers.export import publish
from tfs_helpers.errors import PublishError
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    publish(sys.argv[1], sys.argv[2])
except PublishError as error:
    print(error)
"""


def test_no_room_while_copying(model: Path, base: Path) -> None:
    publish(model, base)
    (model / "variables" / "variables.data-00000-of-00001").write_bytes(bytes(1_000_000))
    out, errors = python(FULL, model, base).communicate(timeout=30)
    assert errors == ""
    assert out.splitlines() == [
        f"Publishing into {base} failed: {os.strerror(errno.EFBIG)}.",
        "There is no room for the model.",
        "Make room and try again; nothing was changed.",
    ]
    assert names(base) == ["1"]
    assert files(base / "1") == PARTS


class OutOfSpaceError(Exception):
    """As TensorFlow tells it: an error of its own kind, the system's words in its text."""


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OutOfSpaceError(f"x; {os.strerror(errno.ENOSPC)} [Op:Save]")],
)
def test_no_room_while_the_callable_writes(base: Path, error: Exception) -> None:
    def fails(folder: Path) -> None:
        raise error

    with pytest.raises(PublishError, match=r"No space left on device\.\nThere is no room"):
        publish(fails, base)
    assert not base.exists()


FORBIDDEN = """
import os, sys
from tfs_helpers.export import publish, retire
from tfs_helpers.errors import ExportError
model, base = sys.argv[1:]
publish(model, base)
os.chmod(base, 0o555)
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for call in (lambda: publish(model, base), lambda: retire(base, 1)):
    try:
        call()
    except ExportError as error:
        print(error, end="\\n\\n")
"""


def test_a_base_path_that_may_not_be_written() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        model, base = write(Path(folder, "model")), Path(folder, "base")
        out, errors = python(FORBIDDEN, model, base).communicate(timeout=30)
        assert errors == ""
        messages = out.strip().split("\n\n")
        assert [message.count("\n") for message in messages] == [2, 2]
        assert all("Permission denied" in message for message in messages)
        assert messages[0].startswith(f"Publishing into {base} failed: ")
        assert messages[1].startswith(f"{base / '1'} cannot be retired: ")
        assert all(line.endswith(".") for message in messages for line in message.splitlines())
        assert names(base) == ["1"]
        base.chmod(0o755)
