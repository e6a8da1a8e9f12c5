"""Serve TensorFlow models, and call them: the helpers of the TensorFlow Serving tutorial.

    from tfs_helpers import Model, ModelServer

    with ModelServer(Model("half_plus_two", "models/half_plus_two")).start() as running:
        running.grpc().predict("half_plus_two", {"x": [1.0, 2.0, 5.0]})["y"]

The public names, and nothing else: each is imported from its module when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfs_helpers.client import GrpcClient, ModelMetadata, RestClient, VersionStatus
    from tfs_helpers.errors import TfsError
    from tfs_helpers.export import publish
    from tfs_helpers.launch import All, Latest, Model, ModelServer, RunningServer, Specific
    from tfs_helpers.pictures import eyes, load_picture
    from tfs_helpers.signatures import Signature, TensorSpec, read_signatures

__version__ = "0.1.0"

__all__ = [
    "All",
    "GrpcClient",
    "Latest",
    "Model",
    "ModelMetadata",
    "ModelServer",
    "RestClient",
    "RunningServer",
    "Signature",
    "Specific",
    "TensorSpec",
    "TfsError",
    "VersionStatus",
    "eyes",
    "load_picture",
    "publish",
    "read_signatures",
]

_HOMES = {
    "client": ("GrpcClient", "ModelMetadata", "RestClient", "VersionStatus"),
    "errors": ("TfsError",),
    "export": ("publish",),
    "launch": ("All", "Latest", "Model", "ModelServer", "RunningServer", "Specific"),
    "pictures": ("eyes", "load_picture"),
    "signatures": ("Signature", "TensorSpec", "read_signatures"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"tfs_helpers.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
