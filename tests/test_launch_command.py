"""The description of a server, and the line that one would type for it."""

import csv
import dataclasses
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tfs_helpers.config import Latest, Model, Specific, parse_model_config
from tfs_helpers.errors import ConfigError
from tfs_helpers.launch import ModelServer, command, ports
from tfs_helpers.versions import IMAGE


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TFS_IMAGE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(line: str) -> list[str]:
    """The line as a shell understands it."""
    done = subprocess.run(["sh", "-c", f"printf '%s\\0' {line}"], capture_output=True, check=True, text=True)
    return done.stdout.rstrip("\0").split("\0")


def test_a_plain_model_in_docker() -> None:
    assert ModelServer(Model("half_plus_two", "models/half_plus_two")).command("docker") == (
        "docker run --rm --init --name tfs-8500 \\\n"
        "  -p 127.0.0.1:8500:8500 -p 127.0.0.1:8501:8501 \\\n"
        '  --mount type=bind,source="$PWD"/models/half_plus_two,target=/models/half_plus_two,readonly \\\n'
        "  -e MODEL_NAME=half_plus_two \\\n"
        f"  {IMAGE}"
    )


def test_a_plain_model_as_a_process() -> None:
    server = ModelServer(Model("eye", "/models/eye"), grpc_port=9000, rest_port=0, options={"enable_batching": True})
    flags = (
        " \\\n  --port=9000 \\\n  --rest_api_port=0 \\\n  --model_name=eye \\\n  --model_base_path=/models/eye"
        " \\\n  --enable_batching=true"
    )
    assert server.command("binary") == "tensorflow_model_server" + flags
    assert server.command("embedded") == "python -m tfs_helpers.embedded" + flags


def test_several_models_in_docker() -> None:
    server = ModelServer(
        Model("eye", "models/eye", labels={"stable": 1, "test": 2}),
        Model("far", "gs://bucket/far", versions=Latest(2)),
        options={"enable_batching": True},
    )
    assert server.command("docker") == (
        "docker run --rm --init --name tfs-8500 \\\n"
        "  -p 127.0.0.1:8500:8500 -p 127.0.0.1:8501:8501 \\\n"
        '  --mount type=bind,source="$PWD"/models/eye,target=/models/eye,readonly \\\n'
        '  --mount type=bind,source="$PWD"/model.config,target=/config/model.config,readonly \\\n'
        f"  {IMAGE} \\\n"
        "  --model_config_file=/config/model.config \\\n"
        "  --enable_batching=true \\\n"
        "  --allow_version_labels_for_unavailable_models=true"
    )
    assert [model.path for model in parse_model_config(server.config_text("docker"))] == [
        "/models/eye",
        "gs://bucket/far",
    ]


def test_the_config_of_a_process_holds_the_paths_of_this_machine(here: Path) -> None:
    server = ModelServer(Model("eye", "models/eye", versions=Specific(1, 2)))
    assert parse_model_config(server.config_text("embedded")) == server.models
    assert server.models[0].path == str(here / "models/eye")
    assert '--model_config_file="$PWD"/model.config' in server.command("embedded")


@pytest.mark.parametrize(
    "folder", ["plain", "two words", "a,b", 'quo"te', "apo'strophe", "$HOME", "é", "-p", "`id`", "a;b"]
)
@pytest.mark.parametrize("below", [True, False])
def test_the_line_survives_the_shell(here: Path, monkeypatch: pytest.MonkeyPatch, folder: str, below: bool) -> None:
    home = here / folder
    home.mkdir()
    monkeypatch.chdir(home if below else "/")
    server = ModelServer(Model("m", home / folder), grpc_port=1234)
    for backend in ("binary", "embedded"):
        assert words(server.command(backend))[-4:] == command.arguments(server, "")
        assert ('"$PWD"' in server.command(backend)) is below
    mount = words(server.command("docker"))[words(server.command("docker")).index("--mount") + 1]
    parts = next(csv.reader([mount]))
    assert parts == ["type=bind", f"source={home / folder}", "target=/models/m", "readonly"]


def test_a_file_that_an_option_names_goes_into_the_container(here: Path) -> None:
    server = ModelServer(Model("eye", "models/eye"), options={"monitoring_config_file": "monitoring.config"})
    inside = "/config/monitoring_config_file"
    assert f'source="$PWD"/monitoring.config,target={inside},readonly' in server.command("docker")
    assert server.command("docker").endswith(f"--monitoring_config_file={inside}")
    assert words(server.command("binary"))[-1] == f"--monitoring_config_file={here}/monitoring.config"


def test_addresses() -> None:
    far = ModelServer(Model("eye", "/eye"), host="0.0.0.0")
    assert "-p 0.0.0.0:8500:8500" in far.command("docker")
    assert "--host=0.0.0.0" in words(far.command("embedded"))
    assert "--host" not in far.command("binary")
    assert "--host" not in ModelServer(Model("eye", "/eye")).command("embedded")
    assert "-p '[::1]:8500:8500'" in ModelServer(Model("eye", "/eye"), host="::1").command("docker")


def test_without_rest() -> None:
    line = ModelServer(Model("eye", "/eye"), rest_port=0).command("docker")
    assert "8501" not in line
    assert line.endswith("--rest_api_port=0")


def test_a_model_in_the_cloud_is_not_mounted() -> None:
    line = ModelServer(Model("eye", "gs://bucket/eye")).command("docker")
    assert "--mount" not in line
    assert line.endswith("--model_base_path=gs://bucket/eye")


def test_the_image_can_be_another(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("eye", "/eye")
    monkeypatch.setenv("TFS_IMAGE", "mine:1")
    assert ModelServer(model).command("docker").split()[-1] == "mine:1"
    assert ModelServer(model, image="yours:2").command("docker").split()[-1] == "yours:2"


def test_a_flag_that_the_labels_need_is_given_once() -> None:
    flag = "allow_version_labels_for_unavailable_models"
    model = Model("eye", "/eye", labels={"stable": 1})
    assert ModelServer(model).command("binary").count(f"--{flag}=true") == 1
    assert ModelServer(model, options={flag: True}).command("binary").count(flag) == 1
    assert f"--{flag}=false" in ModelServer(model, options={flag: False}).command("binary")


def test_free_ports_are_chosen_once_and_again_when_taken() -> None:
    server = ModelServer(Model("eye", "/eye"), grpc_port=None, rest_port=None)
    grpc_port, rest_port = server.ports()
    assert grpc_port != rest_port
    assert server.ports() == (grpc_port, rest_port)
    assert server.settled().ports() == (grpc_port, rest_port)
    with socket.create_server(("127.0.0.1", grpc_port)):
        settled = server.settled()
        assert settled.grpc_port not in {grpc_port, rest_port}
        assert settled.rest_port == rest_port
        assert server.ports() == settled.ports()


def test_equal_descriptions_are_equal() -> None:
    first = ModelServer(Model("eye", "/eye", labels={"a": 1}), options={"enable_batching": True})
    assert first == ModelServer(Model("eye", "/eye", labels={"a": 1}), options={"enable_batching": True})
    assert first != ModelServer(Model("eye", "/eye", labels={"a": 2}), options={"enable_batching": True})
    assert first != ModelServer(Model("eye", "/eye", labels={"a": 1}))
    assert hash(first) == hash(first.settled())
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.grpc_port = 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"options": {"enable_batchin": True}}, "Did you mean enable_batching"),
        ({"options": {"enable_batching": "perhaps"}}, "enable_batching cannot be"),
        ({"options": {"port": 9000}}, "grpc_port=8500"),
        ({"options": {"model_config_file": "/m"}}, "versions=..., labels=..."),
        ({"options": {"version": True}}, "tfs_helpers.versions"),
        ({"host": "localhost"}, "is no address"),
        ({"host": "127.0.0.1:8500"}, "is no address"),
        ({"host": None}, "is no address"),
        ({"grpc_port": 0}, "from 1 to 65535"),
        ({"grpc_port": 65536}, "is no port"),
        ({"grpc_port": "8500"}, "is no port"),
        ({"rest_port": -1}, "0 means no REST"),
        ({"rest_port": True}, "is no port"),
        ({"grpc_port": 8501}, "both to be on port 8501"),
    ],
)
def test_what_cannot_be_is_refused(arguments: Mapping[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelServer(Model("eye", "/eye"), **arguments)
    assert words in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_server_serves_models() -> None:
    with pytest.raises(ConfigError, match="without a model"):
        ModelServer()
    with pytest.raises(ConfigError, match="'eye' is no Model"):
        ModelServer("eye")
    with pytest.raises(ConfigError, match="Two models are called eye"):
        ModelServer(Model("eye", "/a"), Model("eye", "/b"))


@pytest.mark.parametrize("method", ["command", "config_text", "start"])
def test_there_are_three_backends(method: str, here: Path) -> None:
    (here / "eye" / "1").mkdir(parents=True)
    (here / "eye" / "1" / "saved_model.pb").touch()
    with pytest.raises(ConfigError, match="There is no backend 'podman'"):
        getattr(ModelServer(Model("eye", "eye")), method)("podman")


def test_an_address_to_listen_on_is_called_by_another() -> None:
    assert [ports.to_call(host) for host in ("127.0.0.1", "0.0.0.0", "::", "::1")] == [
        "127.0.0.1",
        "127.0.0.1",
        "::1",
        "::1",
    ]
