"""The command of a server: as a list to start it with, and as the line that one would type."""

import csv
import io
import shlex
from collections.abc import Callable
from pathlib import Path

from tfs_helpers import flags
from tfs_helpers.config import Model, is_uri, model_config_text
from tfs_helpers.errors import ConfigError
from tfs_helpers.launch.description import BACKENDS, ServerDescription

__all__ = [
    "CONFIG",
    "arguments",
    "check_backend",
    "config_text",
    "container_arguments",
    "container_name",
    "mounts",
    "option_files",
    "shell_line",
]

CONFIG = "model.config"
"""What the file is called that names several models, policies or labels."""

_PROGRAM = {"binary": "tensorflow_model_server", "embedded": "python -m tfs_helpers.embedded"}
_LABELS = "allow_version_labels_for_unavailable_models"
_INSIDE = "/config"  # where a container finds the files that options name


def check_backend(backend: str) -> None:
    """Make sure that there is such a backend.

    Raises:
        ConfigError: there is not.
    """
    if backend not in BACKENDS:
        raise ConfigError(
            f"There is no backend {backend!r}.",
            "A server runs in Docker, as the real binary, or as the embedded server.",
            f"Choose one of: {', '.join(BACKENDS)}.",
        )


def config_text(server: ServerDescription, backend: str) -> str:
    """The model.config of a server, with the paths as that backend sees them."""
    check_backend(backend)
    return model_config_text(server.models, _inside if backend == "docker" else lambda model: model.path)


def arguments(server: ServerDescription, config: str, backend: str = "binary") -> list[str]:
    """The flags of a native server.

    Args:
        server: the description.
        config: the path of its model.config, if it needs one.
        backend: `binary` or `embedded`; only the embedded server can be told the address to listen on.
    """
    grpc_port, rest_port = server.ports()
    told = [f"--port={grpc_port}", f"--rest_api_port={rest_port}"]
    if backend == "embedded" and server.host != "127.0.0.1":
        told.append(f"--host={server.host}")
    if server.is_plain:
        told += [f"--model_name={server.models[0].name}", f"--model_base_path={server.models[0].path}"]
    else:
        told.append(f"--model_config_file={config}")
    return told + _further(server, lambda _, path: str(path))


def container_arguments(server: ServerDescription) -> list[str]:
    """The flags that follow the image's name: what its entry point does not say already."""
    told = [] if server.is_plain else [f"--model_config_file={_INSIDE}/{CONFIG}"]
    if server.is_plain and is_uri(server.models[0].path):
        told.append(f"--model_base_path={server.models[0].path}")
    if server.ports()[1] == 0:
        told.append("--rest_api_port=0")
    return told + _further(server, lambda name, _: f"{_INSIDE}/{name}")


def mounts(server: ServerDescription, config: str) -> list[tuple[str, str]]:
    """What a container must see: pairs of the path outside and the path inside."""
    pairs = [(model.path, _inside(model)) for model in server.models if not is_uri(model.path)]
    if not server.is_plain:
        pairs.append((config, f"{_INSIDE}/{CONFIG}"))
    return pairs + [(str(path), f"{_INSIDE}/{name}") for name, path in option_files(server).items()]


def option_files(server: ServerDescription) -> dict[str, Path]:
    """The files that options name, absolute, by option."""
    return {
        name: Path(str(value)).expanduser().absolute()
        for name, value in server.options.items()
        if name.endswith("_file") and value
    }


def container_name(server: ServerDescription) -> str:
    """The name of the server's container. No two servers share a port, so the port tells them apart."""
    return f"tfs-{server.ports()[0]}"


def shell_line(server: ServerDescription, backend: str) -> str:
    """The line to type, on several lines for the eye. See `ModelServer.command`."""
    check_backend(backend)
    if backend == "docker":
        words = _docker_words(server)
    else:
        words = [_PROGRAM[backend], *map(_typed_flag, arguments(server, str(Path.cwd() / CONFIG), backend))]
    return " \\\n  ".join(words)


def _docker_words(server: ServerDescription) -> list[str]:
    grpc_port, rest_port = server.ports()
    host = f"[{server.host}]" if ":" in server.host else server.host
    published = [f"{host}:{grpc_port}:8500"] + ([f"{host}:{rest_port}:8501"] if rest_port else [])
    words = [
        f"docker run --rm --init --name {container_name(server)}",
        " ".join(f"-p {shlex.quote(port)}" for port in published),
    ]
    words += [
        "--mount " + _typed(_csv("type=bind", f"source={outside}", f"target={inside}", "readonly"), outside)
        for outside, inside in mounts(server, str(Path.cwd() / CONFIG))
    ]
    if server.is_plain:
        words.append(f"-e {shlex.quote('MODEL_NAME=' + server.models[0].name)}")
    return [*words, shlex.quote(server.image), *map(_typed_flag, container_arguments(server))]


def _further(server: ServerDescription, file: Callable[[str, Path], str]) -> list[str]:
    """The flags that the options ask for, and the one that labels in a first config need."""
    options = dict(server.options)
    for name, path in option_files(server).items():
        options[name] = file(name, path)
    if any(model.labels for model in server.models):
        options.setdefault(_LABELS, True)
    return [flags.option(name, value) for name, value in options.items()]


def _inside(model: Model) -> str:
    """Where a container sees the model."""
    return model.path if is_uri(model.path) else f"/models/{model.name}"


def _csv(*parts: str) -> str:
    """The parts as Docker reads them: separated by commas, a part with a comma in it in quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(parts)
    return line.getvalue()


def _typed_flag(flag: str) -> str:
    return _typed(flag, flag.partition("=")[2])


def _typed(word: str, path: str) -> str:
    """A word as it is typed; a path in it that lies below the current folder begins with `"$PWD"`."""
    here = str(Path.cwd())
    if not path.startswith(here + "/") or here not in word:
        return shlex.quote(word)
    before, _, after = word.partition(here)
    return _quoted(before) + '"$PWD"' + _quoted(after)


def _quoted(text: str) -> str:
    return shlex.quote(text) if text else ""
