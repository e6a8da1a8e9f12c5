"""A real server, started, used, stopped, and gone whatever happens to who started it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from waiting import exists, until

from tfs_helpers.config import All, Model, Specific
from tfs_helpers.errors import ConfigError, LaunchError, NotReadyInTime, PortInUse, ServerDied, TfsError
from tfs_helpers.flags import Value
from tfs_helpers.launch import ModelServer, RunningServer, backends, ports, ready
from tfs_helpers.launch.command import CONFIG


def free(*models: Model, **options: Value) -> ModelServer:
    return ModelServer(*models, grpc_port=None, rest_port=None, options=options)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where servers keep their temporary folders, for this test alone."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def copy(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base path of a model that may be spoilt."""
    base = tmp_path_factory.mktemp("copy") / "half_plus_two"
    shutil.copytree(models / "half_plus_two", base)
    return base


@pytest.fixture(params=["embedded", "binary"])
def backend(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either native backend; where the real binary is not installed, its place on the PATH is taken by our server."""
    if request.param == "binary" and shutil.which(backends.BINARY) is None:
        program = tmp_path / backends.BINARY
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tfs_helpers.embedded "$@"\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return str(request.param)


def test_it_is_ready_when_it_is_returned_and_gone_when_it_is_left(models: Path, backend: str, scratch: Path) -> None:
    server = free(Model("half_plus_two", models / "half_plus_two"))
    with server.start(backend) as running:
        assert running.alive()
        assert running.backend == backend
        assert running.why == f"{backend}, because the argument asks for it."
        assert bool(running.notes) is (backend == "binary")
        pid = running.pid
        assert pid is not None
        assert running.container is None
        assert exists(pid)
        assert (running.rest_url, running.grpc_address) == tuple(
            f"{scheme}127.0.0.1:{port}" for scheme, port in zip(("http://", ""), reversed(server.ports()), strict=True)
        )
        for client in (running.rest(), running.grpc()):
            outputs = client.predict("half_plus_two", np.array([1.0, 2.0, 5.0], np.float32))
            np.testing.assert_allclose(next(iter(outputs.values())), [3.5, 4.0, 5.5])
        assert running.rest() is running.rest()
        assert running.grpc() is running.grpc()
        assert "Successfully loaded servable version {name: half_plus_two version: 2}" in running.log()
        assert [child.name for child in scratch.glob("tfs-helpers-*")]
    assert not running.alive()
    assert running.pid is None
    assert not exists(pid)
    assert all(ports.is_free("127.0.0.1", port) for port in server.ports())
    assert not list(scratch.glob("tfs-helpers-*"))
    assert "Successfully loaded" in running.log()
    assert "stopped" in repr(running)
    running.stop()
    with pytest.raises(LaunchError, match="is stopped"):
        running.rest()


def test_what_runs_is_the_line_that_is_shown(models: Path, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model.config apart, which `start` writes into a folder of its own."""
    monkeypatch.chdir(models)
    plain = free(Model("half_plus_two", "half_plus_two"), max_num_load_retries=0)
    several = free(Model("half_plus_two", "half_plus_two", labels={"stable": 1}), Model("eye", "eye1_encoder"))
    for server in (plain, several):
        with server.start(backend) as running:
            assert running.command == server.command(backend)
            seen = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(running.pid)], capture_output=True, text=True)
            ran = seen.stdout.split()
            config = next((word.partition("=")[2] for word in ran if word.startswith("--model_config_file=")), None)
            if config is not None:
                assert Path(config).name == CONFIG
                assert Path(config).read_text() == server.config_text(backend)
            done = subprocess.run(["sh", "-c", f"printf '%s\\0' {running.command}"], capture_output=True, text=True)
            typed = done.stdout.replace(f"{models}/{CONFIG}", config or "").rstrip("\0").split("\0")
            flags = len(typed) - next(place for place, word in enumerate(typed) if word.startswith("--"))
            assert ran[-flags:] == typed[-flags:]


def test_every_version_that_is_called_for_is_there(models: Path) -> None:
    server = free(
        Model("by_label", models / "half_plus_two", labels={"stable": 1, "test": 2}),
        Model("all", models / "half_plus_two", versions=All()),
        Model("eye", models / "eye1_encoder", versions=Specific(1)),
    )
    with server.start("embedded") as running:
        available = {
            model.name: {one.version for one in running.grpc().status(model.name) if one.state == "AVAILABLE"}
            for model in server.models
        }
        assert available == {"by_label": {1, 2}, "all": {1, 2}, "eye": {1}}
        outputs = running.rest().predict("by_label", np.array([1.0], np.float32), label="stable")
        np.testing.assert_allclose(next(iter(outputs.values())), [2.5])


def test_without_rest(models: Path) -> None:
    server = ModelServer(Model("half_plus_two", models / "half_plus_two"), grpc_port=None, rest_port=0)
    with server.start("embedded") as running:
        assert running.rest_url == ""
        assert running.grpc().status("half_plus_two")
        with pytest.raises(ConfigError, match="has no REST"):
            running.rest()


def test_a_new_version_is_waited_for(copy: Path) -> None:
    shutil.move(copy / "2", copy / "coming")
    with free(Model("m", copy)).start("embedded") as running:
        assert running.wait_for("m") == 1
        with pytest.raises(NotReadyInTime, match=r"After 0\.2 s: .*; version 2 of m was to become AVAILABLE"):
            running.wait_for("m", version=2, timeout=0.2)
        shutil.move(copy / "coming", copy / "2")
        assert running.wait_for("m", version=2) == 2
        assert running.wait_for("m", version=1, state="END") == 1


def test_a_new_version_that_is_broken_is_not_waited_for(copy: Path) -> None:
    shutil.move(copy / "2", copy / "coming")
    (copy / "coming" / "saved_model.pb").write_bytes(b"junk")
    with free(Model("m", copy), max_num_load_retries=0).start("embedded") as running:
        shutil.move(copy / "coming", copy / "2")
        with pytest.raises(NotReadyInTime, match="Model m, version 2, cannot be loaded"):
            running.wait_for("m", version=2, timeout=60)
        assert running.wait_for("m", version=1, timeout=1) == 1


def test_what_is_waited_for_has_to_exist(models: Path) -> None:
    with free(Model("m", models / "half_plus_two", labels={"stable": 1})).start("embedded") as running:
        assert running.wait_for("m", label="stable") == 1
        for wrong in ({"state": "READY"}, {"label": "test"}, {"label": "stable", "version": 1}):
            with pytest.raises(ConfigError):
                running.wait_for("m", **wrong)
        pid = running.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServerDied, match=r"exit status 137, SIGKILL"):
            running.wait_for("m", version=3)


def left_nothing(server: ModelServer, scratch: Path) -> bool:
    return not list(scratch.glob("tfs-helpers-*")) and all(ports.is_free("127.0.0.1", port) for port in server.ports())


def fails(server: ModelServer, scratch: Path, kind: type[TfsError], timeout: float = 600.0) -> TfsError:
    """Starting the server fails, clearly, long before the timeout of start and of the test, and leaves nothing."""
    with pytest.raises(kind) as caught:
        server.start("embedded", timeout=timeout)
    assert left_nothing(server, scratch)
    assert len(str(caught.value).splitlines()) == 3
    return caught.value


def test_a_corrupt_model_is_an_error_at_once(copy: Path, scratch: Path) -> None:
    (copy / "2" / "saved_model.pb").write_bytes(b"this is no model" * 100)
    error = fails(free(Model("m", copy)), scratch, LaunchError)  # with five retries, a minute between each
    assert error.what.startswith("Model m, version 2, cannot be loaded: ")
    assert "damaged" in error.why
    assert isinstance(error, NotReadyInTime)
    assert "failed: " in error.log
    assert len(error.log.splitlines()) <= 10


def test_a_server_that_ends_is_an_error_with_its_own_words(models: Path, copy: Path, scratch: Path) -> None:
    batching = copy.parent / "batching.config"
    batching.write_text("max_batch_size { value: 8 }")
    model = Model("m", models / "half_plus_two")
    error = fails(free(model, batching_parameters_file=str(batching)), scratch, ServerDied)
    assert "exit status 255" in error.what
    assert "Failed to start server. Error: INVALID_ARGUMENT: server_options.batching_parameters_file" in error.what
    assert "--enable_batching=true" in error.fix
    assert isinstance(error, ServerDied)
    assert error.exit_code == 255
    assert "Failed to start server" in error.log


def test_a_model_that_fails_for_good_is_an_error(copy: Path, scratch: Path) -> None:
    (copy / "2" / "saved_model.pb").write_bytes(b"this is no model" * 100)
    fails(free(Model("m", copy), max_num_load_retries=0), scratch, LaunchError)


def test_time_is_up(models: Path, scratch: Path) -> None:
    error = fails(free(Model("m", models / "half_plus_two")), scratch, NotReadyInTime, timeout=0.05)
    assert "m: no answer yet" in error.what


def test_all_versions_are_waited_for(models: Path) -> None:
    with free(Model("m", models / "half_plus_two")).start("embedded") as running:
        grpc_port, rest_port = running.server.ports()
        more = Model("m", models / "half_plus_two", versions=Specific(1, 2))
        other = Model("n", models / "half_plus_two")
        wanted = ModelServer(more, other, grpc_port=grpc_port, rest_port=rest_port)
        with pytest.raises(NotReadyInTime) as caught:
            ready.wait_until_available(wanted, running._process, time.monotonic() + 0.5, time.monotonic())
        assert (
            "m: version 1 not seen, version 2 AVAILABLE; n: Could not find any versions of model n" in caught.value.what
        )


def test_folders_are_looked_at_before_anything_starts(tmp_path: Path, scratch: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        free(Model("m", tmp_path / "nothing")).start("embedded")
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").touch()
    server = free(Model("m", tmp_path / "m"), monitoring_config_file=str(tmp_path / "nothing.config"))
    with pytest.raises(ConfigError, match=r"There is no file .*nothing\.config"):
        server.start("embedded")
    assert not list(scratch.glob("tfs-helpers-*"))


def test_a_port_that_is_taken(models: Path, server: RunningServer) -> None:
    grpc_port, rest_port = server.server.ports()
    model = Model("m", models / "half_plus_two")
    for mine in (
        ModelServer(model, grpc_port=grpc_port, rest_port=None),
        ModelServer(model, grpc_port=None, rest_port=rest_port),
        ModelServer(model, grpc_port=rest_port, rest_port=None),
    ):
        with pytest.raises(PortInUse, match=r"by a server that this process started: .*half_plus_two"):
            mine.start("embedded")
    with pytest.raises(PortInUse, match=r"by a server of ours: half_plus_two, eye1_encoder \(process \d+\)"):
        ports.check_free("127.0.0.1", grpc_port, "gRPC")
    assert server.alive()


def test_an_equal_description_replaces_the_server_that_runs(models: Path) -> None:
    grpc_port, rest_port = free(Model("m", models / "half_plus_two")).ports()

    def cell() -> RunningServer:
        model = Model("m", models / "half_plus_two")
        return ModelServer(model, grpc_port=grpc_port, rest_port=rest_port).start("embedded")

    first = cell()
    second = cell()
    with second:
        assert not first.alive()
        assert second.alive()
        assert second.wait_for("m") == 2


def test_two_servers_side_by_side_from_threads(models: Path) -> None:
    server = free(Model("m", models / "half_plus_two"))
    other = free(Model("m", models / "eye1_encoder"))
    started: list[RunningServer] = []
    threads = [
        threading.Thread(target=lambda one=one: started.append(one.start("embedded"))) for one in (server, other)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(started) == 2
    for running in started:
        with running:
            assert running.wait_for("m") == 2


# A program, as a notebook's kernel is one: starts a server, says where it is, and then does as it is told.
PROGRAM = """
import sys, tempfile, time
tempfile.tempdir = sys.argv[2]
from tfs_helpers.launch import Model, ModelServer
server = ModelServer(Model("m", sys.argv[3]), grpc_port=None, rest_port=None)
def started(running):
    print(running.pid, *server.ports(), flush=True)
    return running
def wait():
    print("waiting", flush=True)
    while True:  # a signal between two calls would not end one long sleep
        time.sleep(0.05)
exec(sys.argv[1])
"""


@contextlib.contextmanager
def program(what: str, models: Path, scratch: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, what, str(scratch), str(models / "half_plus_two")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "TFS_BACKEND": "embedded"},
    ) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None
    return process.stdout.readline().split()


def nothing_is_left(pid: int, grpc_port: int, rest_port: int, scratch: Path) -> bool:
    closed = all(ports.is_free("127.0.0.1", port) for port in (grpc_port, rest_port))
    return closed and not exists(pid) and not list(scratch.glob("tfs-helpers-*"))


@pytest.mark.parametrize(
    ("what", "end"),
    [
        ("running = started(server.start())", None),
        ("started(server.start())", None),  # nobody keeps it
        ("started(server.start()); raise RuntimeError", None),
        ("with server.start() as running: started(running); sys.exit(3)", None),
        ("running = started(server.start()); wait()", signal.SIGKILL),
        ("running = started(server.start()); wait()", signal.SIGTERM),
        ("running = started(server.start()); wait()", signal.SIGINT),
    ],
)
def test_nothing_is_left_however_the_program_ends(what: str, end: int | None, models: Path, scratch: Path) -> None:
    with program(what, models, scratch) as process:
        pid, grpc_port, rest_port = map(int, said(process))
        if end is not None:
            assert said(process) == ["waiting"]
            assert exists(pid)
            assert ports.answers("127.0.0.1", grpc_port)
            os.kill(process.pid, end)
        process.wait(10)
        until(lambda: nothing_is_left(pid, grpc_port, rest_port, scratch), 5)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_nothing_is_left_when_it_ends_while_the_server_starts(end: int, models: Path, scratch: Path) -> None:
    with program("print('starting', *server.ports(), flush=True); server.start()", models, scratch) as process:
        word, grpc_port, rest_port = said(process)
        assert word == "starting"
        until(lambda: bool(list(scratch.glob("tfs-helpers-*/server.log"))))
        os.kill(process.pid, end)
        process.wait(10)
        until(lambda: nothing_is_left(process.pid, int(grpc_port), int(rest_port), scratch), 5)


def test_a_child_that_was_forked_ends_without_ending_the_server(models: Path, scratch: Path) -> None:
    what = (
        "import os, warnings; warnings.simplefilter('ignore')\n"
        "running = started(server.start())\n"
        "if os.fork() == 0: running.stop(); sys.exit()\n"
        "os.wait(); print(running.alive(), running.rest().predict('m', [1.0])['y'][0], flush=True)"
    )
    with program(what, models, scratch) as process:
        said(process)
        assert said(process) == ["True", "3.5"]


def test_the_server_survives_an_interrupt(models: Path, scratch: Path) -> None:
    what = (
        "running = started(server.start())\n"
        "try: wait()\n"
        "except KeyboardInterrupt: print(running.wait_for('m'), flush=True)\n"
        "running.stop()"
    )
    with program(what, models, scratch) as process:
        pid, grpc_port, rest_port = map(int, said(process))
        assert said(process) == ["waiting"]
        os.killpg(process.pid, signal.SIGINT)  # to the whole group, as a terminal does it, and Jupyter
        assert said(process) == ["2"]
        assert process.wait(10) == 0
        assert nothing_is_left(pid, grpc_port, rest_port, scratch)


def test_the_same_description_on_free_ports_replaces_its_server_and_an_equal_one_does_not(models: Path) -> None:
    def described() -> ModelServer:
        return ModelServer(Model("half_plus_two", models / "half_plus_two"), grpc_port=None, rest_port=None)

    description = described()
    with description.start("embedded") as first, described().start("embedded") as replica:
        assert first.alive()
        with description.start("embedded") as again:
            assert [first.alive(), replica.alive(), again.alive()] == [False, True, True]


def test_of_two_that_start_on_the_same_ports_one_gets_them(models: Path) -> None:
    taken = [ports.find_free("127.0.0.1") for _ in range(2)]
    both = [ModelServer(Model(name, models / "half_plus_two"), grpc_port=taken[0], rest_port=taken[1]) for name in "ab"]
    ended: list[RunningServer | LaunchError] = []

    def start(server: ModelServer) -> None:
        try:
            ended.append(server.start("embedded"))
        except LaunchError as error:
            ended.append(error)

    threads = [threading.Thread(target=start, args=(server,)) for server in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    up = [one for one in ended if isinstance(one, RunningServer)]
    assert len(up) == 1, ended
    name = up[0].server.names
    assert up[0].rest().predict(name, [0.0])["y"].tolist() == [3.0]
    up[0].stop()


def test_a_new_version_that_cannot_be_loaded_is_not_waited_for(copy: Path) -> None:
    shutil.rmtree(copy / "2")
    with free(Model("m", copy)).start("embedded") as running:
        (copy / "3").mkdir()
        (copy / "3" / "saved_model.pb").write_bytes(b"not a model")
        with pytest.raises(NotReadyInTime, match="Model m, version 3, cannot be loaded"):
            running.wait_for("m", version=3, timeout=20)
        assert running.grpc().predict("m", [0.0], version=1)["y"].tolist() == [2.0]
