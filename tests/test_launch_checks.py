"""What is looked at before anything starts: folders, ports, and what could run a server here."""

import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tfs_helpers.config import All, Latest, Model, Specific
from tfs_helpers.errors import BackendUnavailable, ConfigError, PortInUse
from tfs_helpers.launch import backends, ports
from tfs_helpers.launch.folders import check_folders, versions_to_wait_for
from tfs_helpers.version_folders import read_versions
from tfs_helpers.versions import IMAGE


def publish(base: Path, *names: str, graph: str = "saved_model.pb") -> Path:
    for name in names:
        (base / name).mkdir(parents=True)
        (base / name / graph).touch()
    return base


def refused(model: Model) -> str:
    with pytest.raises(ConfigError) as caught:
        check_folders([model])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"Model {model.name}: ")
    assert len(lines) <= 3
    return str(caught.value)


def test_versions_are_whole_numbers(tmp_path: Path) -> None:
    base = publish(tmp_path, "1", "000012", "-3", "v1", "1.0", "2.tmp", ".3", "9" * 19, "models")
    assert list(read_versions(base)) == [-3, 1, 12]


def test_the_policy_says_which_to_wait_for(tmp_path: Path) -> None:
    publish(tmp_path, "1", "2", "10")
    assert versions_to_wait_for(Model("m", tmp_path)) == {10}
    assert versions_to_wait_for(Model("m", tmp_path, Latest(2))) == {2, 10}
    assert versions_to_wait_for(Model("m", tmp_path, Latest(9))) == {1, 2, 10}
    assert versions_to_wait_for(Model("m", tmp_path, All())) == {1, 2, 10}
    assert versions_to_wait_for(Model("m", tmp_path, Specific(2))) == {2}
    assert versions_to_wait_for(Model("m", "gs://bucket/m")) == set()


def test_what_is_in_order_passes(tmp_path: Path) -> None:
    publish(tmp_path, "1", "2")
    (tmp_path / "3").mkdir()  # not asked for
    publish(tmp_path / "text", "1", graph="saved_model.pbtxt")
    check_folders(
        [
            Model("a", tmp_path, Specific(1, 2), {"stable": 1}),
            Model("b", tmp_path / "text"),
            Model("c", "gs://bucket/m"),
        ]
    )


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "half_plus_two").mkdir()
    said = refused(Model("m", tmp_path / "half_plus_tow"))
    assert f"there is no folder {tmp_path / 'half_plus_tow'}" in said
    assert "wait for it for ever" in said
    assert f"Did you mean {tmp_path / 'half_plus_two'}?" in said
    assert "mkdir -p" in refused(Model("m", tmp_path / "other"))
    assert f"Did you mean {tmp_path / 'half_plus_two' / 'x'}?" in refused(Model("m", tmp_path / "half_plus_too" / "x"))


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "m").touch()
    assert "is a file" in refused(Model("m", tmp_path / "m"))
    assert "is a file" in refused(Model("m", tmp_path / "m" / "below"))


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    assert f"{tmp_path}/1/saved_model.pb" in refused(Model("m", tmp_path))


def test_a_folder_of_text_named_folders(tmp_path: Path) -> None:
    said = refused(Model("m", publish(tmp_path, "v1", "latest")))
    assert "holds no version, only latest, v1" in said
    assert f"mv {tmp_path / 'latest'} {tmp_path / '1'}" in said


def test_a_version_folder_in_place_of_its_parent(tmp_path: Path) -> None:
    assert f"Give its parent, {tmp_path}." in refused(Model("m", publish(tmp_path, "1") / "1"))
    assert f"into {tmp_path / 'm' / '1'}" in refused(Model("m", publish(tmp_path, "m") / "m"))


def test_a_version_without_a_graph(tmp_path: Path) -> None:
    publish(tmp_path, "1", "2", graph="model.keras")
    assert "version 2 has no saved_model.pb" in refused(Model("m", tmp_path))
    assert "version 1 has no saved_model.pb" in refused(Model("m", tmp_path, Specific(1)))
    check_folders([Model("m", tmp_path)], graphs=["model.keras"])


def test_a_version_that_is_not_there(tmp_path: Path) -> None:
    said = refused(Model("m", publish(tmp_path, "1", "2"), Specific(1, 7)))
    assert "version 7 is to be served, and is not there" in said
    assert "holds 1, 2." in said


def test_a_label_on_a_version_that_will_not_be_served(tmp_path: Path) -> None:
    publish(tmp_path, "1", "2")
    assert "only 2 will be served" in refused(Model("m", tmp_path, Latest(1), {"stable": 1}))
    assert "only 1, 2 will be served" in refused(Model("m", tmp_path, All(), {"stable": 3}))
    check_folders([Model("m", tmp_path, Latest(1), {"stable": 2})])


def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    base = publish(tmp_path / "m", "1")
    base.chmod(0)
    try:
        if os.access(base, os.R_OK):  # root reads everything
            check_folders([Model("m", base)])
        else:
            assert "chmod" in refused(Model("m", base))
    finally:
        base.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_a_port_of_a_stranger(address: str) -> None:
    with socket.create_server((address, 0)) as stranger:
        port = stranger.getsockname()[1]
        assert not ports.is_free("127.0.0.1", port)
        assert not ports.is_free("0.0.0.0", port)
        with pytest.raises(PortInUse, match=f"Port {port}, wanted for gRPC, is taken") as caught:
            ports.check_free("127.0.0.1", port, "gRPC")
        assert "grpc_port=None" in caught.value.fix
        if sys.platform == "linux":
            assert f"process {os.getpid()}" in caught.value.what
    assert ports.is_free("127.0.0.1", port)
    ports.check_free("127.0.0.1", port, "REST")


def test_a_port_that_is_shared_is_taken_all_the_same() -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # as gRPC does
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        assert not ports.is_free("127.0.0.1", stranger.getsockname()[1])


def test_a_port_of_a_server_of_ours_is_known_by_its_models() -> None:
    port = ports.find_free("127.0.0.1")
    program = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], env={**os.environ, ports.MARK: "eye, half"}) as process:
        try:
            while not ports.answers("127.0.0.1", port):
                time.sleep(0.02)
            with pytest.raises(PortInUse) as caught:
                ports.check_free("127.0.0.1", port, "REST")
        finally:
            process.kill()
    if sys.platform == "linux":
        assert f"by a server of ours: eye, half (process {process.pid})" in caught.value.what


def test_an_address_of_another_machine() -> None:
    with pytest.raises(ConfigError, match=r"Nothing can listen at 192\.0\.2\.1"):
        ports.is_free("192.0.2.1", 8500)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without Docker and without the binary; its PATH is the folder given."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TFS_BACKEND", raising=False)
    return tmp_path


def put_binary(folder: Path) -> None:
    program = folder / backends.BINARY
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)


def test_the_embedded_server_is_the_last_resort(bare: Path) -> None:
    choice = backends.choose(None, IMAGE)
    assert choice.backend == "embedded"
    assert choice.why == (
        f"embedded, because no Docker daemon answers at unix://{bare}/none.sock; "
        "tensorflow_model_server is not on the PATH; the embedded server is always here."
    )


def test_the_binary_comes_before_it(bare: Path) -> None:
    put_binary(bare)
    assert backends.choose(None, IMAGE).backend == "binary"


def test_the_variable_decides_and_the_argument_decides_over_it(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_binary(bare)
    monkeypatch.setenv("TFS_BACKEND", "embedded")
    assert backends.choose(None, IMAGE) == backends.Choice("embedded", "embedded, because TFS_BACKEND asks for it.")
    assert backends.choose("binary", IMAGE) == backends.Choice("binary", "binary, because the argument asks for it.")
    monkeypatch.setenv("TFS_BACKEND", "podman")
    with pytest.raises(ConfigError, match="There is no backend 'podman'"):
        backends.choose(None, IMAGE)


@pytest.mark.parametrize(("backend", "word"), [("docker", "docker info"), ("binary", "PATH")])
@pytest.mark.usefixtures("bare")
def test_one_that_was_asked_for_and_is_not_here(backend: str, word: str) -> None:
    with pytest.raises(BackendUnavailable) as caught:
        backends.choose(backend, IMAGE)
    assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.timeout(30)
@pytest.mark.parametrize("drips", [False, True])
def test_a_daemon_that_never_answers_is_given_up(bare: Path, monkeypatch: pytest.MonkeyPatch, drips: bool) -> None:
    ended = threading.Event()

    def drip() -> None:
        connection, _ = dead.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            while not ended.wait(0.3):
                connection.sendall(b"x: y\r\n")

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(bare / "dead.sock"))
        dead.listen()
        thread = threading.Thread(target=drip)
        if drips:
            thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{bare}/dead.sock")
        try:
            with pytest.raises(BackendUnavailable, match=r"does not answer|No Docker daemon answers"):
                backends.choose("docker", IMAGE)
        finally:
            ended.set()
        if drips:
            thread.join()


@pytest.mark.parametrize(
    "host", ["tcp://127.0.0.1:1", "nonsense", "ssh://nobody@127.0.0.1:1", "tcp://no.such.host.invalid:2375"]
)
@pytest.mark.usefixtures("bare")
def test_a_docker_host_that_leads_nowhere(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(BackendUnavailable, match="Docker"):
        backends.choose("docker", IMAGE)


def test_a_folder_is_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not backends._installed("only_a_folder")
    assert not backends._installed("not_even_that")
    assert backends._installed("pytest")
