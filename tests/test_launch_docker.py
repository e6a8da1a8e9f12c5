"""A container of ours: started, looked at, and gone whatever happens to who started it.

No image can be fetched for a test, so a tiny one is made here of this machine's own shell. It has the entry point and
the variables of the official image, and no server; what serves in containers is tested elsewhere.
"""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from tfs_helpers.config import Model
from tfs_helpers.errors import BackendUnavailable, LaunchError, NotReadyInTime, PortInUse, ServerDied
from tfs_helpers.launch import ModelServer, backends, docker_backend, ports
from tfs_helpers.launch.docker_backend import LABEL, Container

pytestmark = pytest.mark.docker

IMAGE = f"tfs-helpers-test-shell:{os.getpid()}"
ENTRY_POINT = """#!/bin/sh
echo "model $MODEL_NAME, arguments $*"
for file in /models/*/*/saved_model.pb /config/*; do echo "sees $file"; done
echo changed > "/models/${MODEL_NAME:-a}/try" || echo "cannot write"
case "$MODEL_NAME" in
  broken) echo "Failed to start server. Error: UNKNOWN: Op type not registered 'Foo'"; exit 255;;
  stubborn) trap '' TERM; while :; do sleep 1; done;;
esac
sleep 1000
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    from docker.client import DockerClient

    with contextlib.closing(DockerClient(base_url=docker_backend.address())) as client:
        yield client


@pytest.fixture(scope="module")
def image(engine: Any) -> Iterator[str]:
    """A shell, `sleep`, the libraries of both, and the entry point."""
    programs = {f"bin/{name}": shutil.which(name) for name in ("sh", "sleep")}
    files = {place: Path(str(found)).resolve().read_bytes() for place, found in programs.items()}
    for found in programs.values():
        listed = subprocess.run(["ldd", str(found)], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            files[library.lstrip("/")] = Path(library).resolve().read_bytes()
    files["usr/bin/tf_serving_entrypoint.sh"] = ENTRY_POINT.encode()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    name, tag = IMAGE.split(":")
    engine.api.import_image_from_data(
        content.getvalue(), repository=name, tag=tag, changes=['ENTRYPOINT ["/usr/bin/tf_serving_entrypoint.sh"]']
    )
    yield IMAGE
    engine.images.remove(IMAGE, force=True)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "saved_model.pb").touch()
    return tmp_path / "m"


@pytest.fixture
def describe(image: str, base: Path) -> Callable[..., ModelServer]:
    def described(*models: Model, **how: Any) -> ModelServer:
        return ModelServer(
            *(models or [Model("m", base)]), **{"image": image, "grpc_port": None, "rest_port": None, **how}
        )

    return described


def ours(engine: Any, parent: int | None = None) -> list[str]:
    """The containers that this process has started, or another one."""
    label = f"{LABEL}.parent={parent or os.getpid()}"
    return [found.name for found in engine.containers.list(all=True, ignore_removed=True, filters={"label": label})]


@contextlib.contextmanager
def started(server: ModelServer) -> Iterator[Container]:
    container = Container(server.settled())
    try:
        until(lambda: "cannot write" in container.log() or container.poll() is not None)
        yield container
    finally:
        container.stop()


Describe = Callable[..., ModelServer]


def test_it_runs_as_described_and_is_gone_when_stopped(describe: Describe, engine: Any) -> None:
    server = describe(options={"enable_batching": True})
    with started(server) as container:
        assert container.poll() is None
        assert container.name == f"tfs-{server.ports()[0]}"
        assert container.pid
        assert "model m, arguments --enable_batching=true" in container.log().splitlines()
        assert "sees /models/m/1/saved_model.pb" in container.log()
        assert "cannot write" in container.log()
        found = engine.containers.get(container.name)
        assert found.labels[f"{LABEL}.parent"] == str(os.getpid())
        assert found.labels[f"{LABEL}.models"] == "m"
        published = found.attrs["NetworkSettings"]["Ports"]
        assert {key: [(one["HostIp"], int(one["HostPort"])) for one in value] for key, value in published.items()} == {
            "8500/tcp": [("127.0.0.1", server.ports()[0])],
            "8501/tcp": [("127.0.0.1", server.ports()[1])],
        }
    assert ours(engine) == []
    assert all(ports.is_free("127.0.0.1", port) for port in server.ports())
    assert "cannot write" in container.log()
    assert container.poll() is not None
    container.stop()


def test_several_models_come_with_their_config(describe: Describe, base: Path) -> None:
    server = describe(Model("a", base, labels={"stable": 1}), Model("b", base))
    with started(server) as container:
        log = container.log()
        assert "--model_config_file=/config/model.config --allow_version_labels_for_unavailable_models=true" in log
        for path in ("/models/a/1/saved_model.pb", "/models/b/1/saved_model.pb", "/config/model.config"):
            assert f"sees {path}" in log


def test_what_does_not_heed_sigterm_is_killed(describe: Describe, base: Path, engine: Any) -> None:
    with started(describe(Model("stubborn", base))):
        pass
    assert ours(engine) == []


def test_what_is_not_ready_in_time_is_removed(describe: Describe, engine: Any) -> None:
    with pytest.raises(NotReadyInTime) as caught:
        describe().start("docker", timeout=1.5)
    assert "m: " in caught.value.what
    assert "cannot write" in caught.value.log
    assert ours(engine) == []


def test_what_ends_is_an_error_with_its_own_words(describe: Describe, base: Path, engine: Any) -> None:
    with pytest.raises(ServerDied) as caught:
        describe(Model("broken", base)).start("docker")
    assert "(exit status 255): Failed to start server. Error: UNKNOWN: Op type not registered" in caught.value.what
    assert "operation" in caught.value.why
    assert ours(engine) == []


def test_an_image_that_is_not_here_is_not_fetched(describe: Describe) -> None:
    with pytest.raises(BackendUnavailable, match="Docker has no image no/such:image") as caught:
        describe(image="no/such:image").start("docker")
    assert caught.value.fix == "Fetch it once: docker pull no/such:image"


def test_docker_comes_first_where_it_has_the_image(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TFS_BACKEND", raising=False)
    choice = backends.choose(None, image)
    assert choice == backends.Choice("docker", f"docker, because the daemon answers and has the image {image}.")


def test_a_port_of_a_container_is_told_by_its_name(describe: Describe, engine: Any) -> None:
    server = describe()
    with started(server) as container:
        same = describe(grpc_port=server.ports()[0])
        with pytest.raises(PortInUse) as caught:
            same.start("docker")
        assert f"taken by the container {container.name}, a server of ours: m." in caught.value.what
        assert f"docker rm -f {container.name}" in caught.value.fix
        assert container.poll() is None


def test_a_port_that_is_taken_at_the_last_moment(describe: Describe, engine: Any) -> None:
    first, second = describe(), describe()
    with started(first):
        late = describe(grpc_port=second.ports()[0], rest_port=first.ports()[1])
        with pytest.raises(PortInUse, match=r"Docker did not start the container .*already allocated"):
            Container(late)
        assert ours(engine) == [f"tfs-{first.ports()[0]}"]


def test_a_container_that_was_left_makes_room(describe: Describe, engine: Any, image: str) -> None:
    server = describe()
    left = engine.containers.create(image, name=f"tfs-{server.ports()[0]}", labels={LABEL: "1"})
    with started(server) as container:
        assert engine.containers.get(container.name).id != left.id


def test_a_container_of_a_stranger_keeps_its_name(describe: Describe, engine: Any, image: str) -> None:
    server = describe()
    stranger = engine.containers.create(image, name=f"tfs-{server.ports()[0]}")
    try:
        with pytest.raises(LaunchError, match="already in use") as caught:
            Container(server)
        assert "docker rm -f" in caught.value.fix
        assert engine.containers.get(stranger.id)
    finally:
        stranger.remove()


def test_a_container_that_somebody_removes_is_noticed(describe: Describe, engine: Any) -> None:
    with started(describe()) as container:
        engine.containers.get(container.name).remove(force=True)
        assert container.poll() == 137


PROGRAM = """
import sys, time
from tfs_helpers.launch import Model, ModelServer
from tfs_helpers.launch.docker_backend import Container
server = ModelServer(Model("m", sys.argv[2]), image=sys.argv[3], grpc_port=None, rest_port=None).settled()
print(*server.ports(), flush=True)
exec(sys.argv[1])
"""


@pytest.mark.parametrize(
    ("what", "end"),
    [
        ("server.start('docker')", signal.SIGKILL),
        ("container = Container(server); print('up', flush=True); time.sleep(100)", signal.SIGKILL),
        ("container = Container(server); print('up', flush=True)", None),
        ("container = Container(server); print('up', flush=True); raise RuntimeError", None),
    ],
)
def test_nothing_is_left_however_the_program_ends(
    what: str, end: int | None, image: str, base: Path, engine: Any
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, what, str(base), image],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    ) as process:
        assert process.stdout is not None
        used = [int(port) for port in process.stdout.readline().split()]
        if end is not None:
            until(lambda: ours(engine, process.pid) != [])
            os.kill(process.pid, end)
        process.wait(20)
        until(lambda: ours(engine, process.pid) == [] and all(ports.is_free("127.0.0.1", port) for port in used), 5)
