"""One description of a server, every way to run it."""

from tfs_helpers.launch import command, starting
from tfs_helpers.launch.description import ServerDescription
from tfs_helpers.launch.running import RunningServer

__all__ = ["ModelServer"]


class ModelServer(ServerDescription):
    """One server, described; every way to run it follows.

        server = ModelServer(Model("eye", "models/eye"))
        print(server.command("docker"))         # the line to type
        with server.start() as running:         # docker, the real binary, or the embedded server
            running.rest().predict("eye", eyes)

    Args:
        models: what to serve, one or many.
        host: the address to listen on, by default this machine only; `"0.0.0.0"` for every address. The real binary
            cannot be told and always listens on every address.
        grpc_port: where gRPC is to be found; None for a free port.
        rest_port: likewise for REST; 0 for no REST.
        options: further flags of the real server by name, such as `{"enable_batching": True}`; a value has the flag's
            type, or is its text.
        image: the image for Docker. Not given: the environment variable `TFS_IMAGE`, else the official one.

    Raises:
        ConfigError: no server could be like this.
    """

    def command(self, backend: str = "docker") -> str:
        """The line to type for the same server: copy it into a shell that stands in the current folder.

        Paths below the current folder are written with `$PWD`. A server that needs a model.config reads it from the
        current folder; `config_text` is what belongs into it.

        Args:
            backend: `docker`, `binary` or `embedded`.

        Raises:
            ConfigError: there is no such backend.
        """
        return command.shell_line(self, backend)

    def config_text(self, backend: str = "docker") -> str:
        """The model.config that belongs to `command(backend)`: in a container, the models are elsewhere.

        Raises:
            ConfigError: there is no such backend.
        """
        return command.config_text(self, backend)

    def start(self, backend: str | None = None, timeout: float = 60.0) -> RunningServer:
        """Start the server, and return when every model is AVAILABLE.

        It ends with `stop()`, with the `with` block, or with this process, however that ends. Starting the
        same description again in this process replaces the server that runs, so that a notebook cell can be run twice;
        so does starting an equal one, if its ports are fixed.

        Args:
            backend: `docker`, `binary` or `embedded`. Not given: the environment variable `TFS_BACKEND`, else the
                first of the three that this machine has.
            timeout: seconds to wait at most.

        Raises:
            ConfigError: a folder is not as a server needs it; nothing was started.
            BackendUnavailable: what should run it is not here.
            PortInUse: somebody listens on one of the ports.
            ServerDied: it ended while we waited.
            NotReadyInTime: a model cannot be loaded, or not in time; the server has been stopped.
            LaunchError: it could not be started.
        """
        return starting.start(self, backend, timeout)
