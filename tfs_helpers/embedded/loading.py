"""From a version's folder to a loaded version."""

import time
from dataclasses import dataclass
from pathlib import Path

from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.runner import Runner
from tfs_helpers.embedded.session import Session
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["LoadOptions", "load"]


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded.

    Attributes:
        tags: the graph to load.
        session_config: a serialized `tensorflow.ConfigProto`.
        retries: how often a failed load is tried again.
        pause: seconds between two tries.
    """

    tags: tuple[str, ...] = ("serve",)
    session_config: bytes = b""
    retries: int = 5
    pause: float = 60.0


def load(folder: str, options: LoadOptions) -> Runner:
    """Load a version, once.

    Raises:
        ServingError: it cannot be loaded; in the words of the real server and of TensorFlow.
    """
    if not any((Path(folder) / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise ServingError(
            Code.NOT_FOUND,
            "Specified file path does not appear to contain a SavedModel bundle "
            f"(should have a file called `saved_model.pb`)\nSpecified file path: {folder}",
        )
    started = time.monotonic()
    session = Session(folder, options.tags, options.session_config)
    log.info("Loaded %s in %.0f ms", folder, (time.monotonic() - started) * 1000)
    return session
