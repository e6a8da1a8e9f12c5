"""What a server is to be: models, ports, options. How it is run is decided elsewhere, and later."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

from tfs_helpers import flags
from tfs_helpers.config import Model, unique
from tfs_helpers.errors import ConfigError
from tfs_helpers.launch import ports
from tfs_helpers.versions import IMAGE

__all__ = ["BACKENDS", "ServerDescription"]

Description = TypeVar("Description", bound="ServerDescription")

BACKENDS = ("docker", "binary", "embedded")
"""The ways to run a server, in the order in which they are preferred."""

# What the description says in its own words, or what would start no server.
_OURS = {
    "port": "ModelServer(..., grpc_port=8500)",
    "rest_api_port": "ModelServer(..., rest_port=8501)",
    "model_name": "Model(name, base_path)",
    "model_base_path": "Model(name, base_path)",
    "model_config_file": "Model(name, base_path, versions=..., labels=...)",
    "version": "tfs_helpers.versions.TENSORFLOW",
}


@dataclass(frozen=True, init=False)
class ServerDescription:
    """What a server is to be. `ModelServer` adds how it is run, and says what the arguments mean.

    Raises:
        ConfigError: no server could be like this.
    """

    models: tuple[Model, ...]
    host: str
    grpc_port: int | None
    rest_port: int | None
    options: Mapping[str, flags.Value] = field(hash=False)
    image: str

    def __init__(
        self,
        *models: Model,
        host: str = "127.0.0.1",
        grpc_port: int | None = 8500,
        rest_port: int | None = 8501,
        options: Mapping[str, flags.Value] | None = None,
        image: str | None = None,
    ) -> None:
        given: tuple[object, ...] = models
        strangers = [f"{model!r} is no Model." for model in given if not isinstance(model, Model)]
        if strangers or not models:
            raise ConfigError(
                f"ModelServer: {strangers[0]}" if strangers else "ModelServer without a model.",
                "A server is described by the models that it serves.",
                'Write ModelServer(Model("half_plus_two", "models/half_plus_two")).',
            )
        options = dict(options or {})
        for name, value in options.items():
            flags.option(name, value)
            if name in _OURS:
                raise ConfigError(
                    f"The flag {name} is not given among the options.", "It follows from the description.", _OURS[name]
                )
        _check_host(host)
        _check_port("grpc_port", grpc_port, lowest=1)
        _check_port("rest_port", rest_port, lowest=0)
        if grpc_port is not None and grpc_port == rest_port:
            raise ConfigError(
                f"gRPC and REST are both to be on port {grpc_port}.",
                "The server would start without REST, and say so in its log only.",
                "Give each its own, 8500 and 8501 by custom.",
            )
        values: dict[str, Any] = {
            "models": unique(models),
            "host": host,
            "grpc_port": grpc_port,
            "rest_port": rest_port,
            "options": MappingProxyType(options),
            "image": image or os.environ.get("TFS_IMAGE") or IMAGE,
            "_chosen": {},
        }
        for name, content in values.items():
            object.__setattr__(self, name, content)

    def ports(self) -> tuple[int, int]:
        """The gRPC and the REST port. Where a free one is wanted, it is chosen when first asked for, and kept."""
        return self._choose("grpc", self.grpc_port), self._choose("rest", self.rest_port)

    def settled(self: Description) -> Description:
        """The same server with its ports as numbers: what `ports` says, chosen again where one has been taken since."""
        grpc_port, rest_port = self.ports()
        for name, told, port in (("grpc", self.grpc_port, grpc_port), ("rest", self.rest_port, rest_port)):
            if told is None and not ports.is_free(self.host, port):
                del self._free[name]
        grpc_port, rest_port = self.ports()
        return type(self)(
            *self.models,
            host=self.host,
            grpc_port=grpc_port,
            rest_port=rest_port,
            options=self.options,
            image=self.image,
        )

    def _choose(self, name: str, told: int | None) -> int:
        if told is not None:
            return told
        while name not in self._free:
            port = ports.find_free(self.host)
            if port not in {self.grpc_port, self.rest_port, *self._free.values()}:
                self._free[name] = port
        return self._free[name]

    @property
    def _free(self) -> dict[str, int]:
        chosen: dict[str, int] = self.__dict__["_chosen"]
        return chosen

    @property
    def is_plain(self) -> bool:
        """Whether two flags say what to serve; otherwise it takes a model.config."""
        return len(self.models) == 1 and self.models[0].is_plain

    @property
    def names(self) -> str:
        """The names of the models, to be read by people."""
        return ", ".join(model.name for model in self.models)


def _check_host(host: object) -> None:
    try:
        ipaddress.ip_address(host if isinstance(host, str) else "")
    except ValueError:
        raise ConfigError(
            f"{host!r} is no address to listen on.",
            "It takes the number of an address of this machine, without a port.",
            'Write host="127.0.0.1" for this machine alone, or host="0.0.0.0" for every address.',
        ) from None


def _check_port(name: str, port: object, lowest: int) -> None:
    if port is not None and not (isinstance(port, int) and not isinstance(port, bool) and lowest <= port < 2**16):
        raise ConfigError(
            f"{name}={port!r} is no port.",
            f"Ports are whole numbers from {lowest or 1} to 65535" + ("." if lowest else ", and 0 means no REST."),
            f"Write {name}={'8500' if name == 'grpc_port' else '8501'}, or {name}=None for a free one.",
        )
