"""From a version's folder to a loaded version: the graph, batching around it, and its warm-up requests."""

import time
from dataclasses import dataclass
from pathlib import Path

from tfs_helpers import protos
from tfs_helpers.embedded.batching.options import BatchingOptions, batching_options
from tfs_helpers.embedded.batching.scheduler import BatchScheduler
from tfs_helpers.embedded.batching.session import BatchingSession
from tfs_helpers.embedded.graphs.runner import Runner
from tfs_helpers.embedded.graphs.session import Session
from tfs_helpers.embedded.loading.warmup import warm_up
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.metrics import Metrics
from tfs_helpers.embedded.status import Code, ServingError
from tfs_helpers.embedded.text_proto import read_text_proto

__all__ = ["LoadOptions", "Loader"]

_PER_MODEL = "batching_params.pbtxt"


@dataclass(frozen=True)
class LoadOptions:
    """How versions are loaded: TensorFlow Serving's SessionBundleConfig, as far as it can be obeyed here.

    Attributes:
        tags: the graph to load.
        session_config: a serialized `tensorflow.ConfigProto`.
        batching: how requests are gathered into batches; None where each runs by itself.
        batching_per_model: whether a version is batched only if it has a file that says how.
        warm_up: whether warm-up requests are replayed.
        warm_up_iterations: how often each is.
        check_method_names: whether they may only use signatures that were made for their method.
    """

    tags: tuple[str, ...] = ("serve",)
    session_config: bytes = b""
    batching: BatchingOptions | None = None
    batching_per_model: bool = False
    warm_up: bool = True
    warm_up_iterations: int = 1
    check_method_names: bool = False


class Loader:
    """Loads versions, all with the same options; those that are batched share its threads.

    Args:
        options: those.
        metrics: what counts loads, warm-ups and batches.

    Raises:
        ServingError: the options for batching are of no use; in the real server's words.
    """

    def __init__(self, options: LoadOptions, metrics: Metrics | None = None) -> None:
        self._options = options
        self._metrics = metrics or Metrics()
        self._scheduler = None if options.batching is None else BatchScheduler(options.batching)

    def __call__(self, name: str, version: int, folder: str) -> Runner:
        """Load a version, once.

        Raises:
            ServingError: it cannot be loaded, or fails at its warm-up; in the words of the real server and of
                TensorFlow.
        """
        if not any((Path(folder) / file).exists() for file in ("saved_model.pb", "saved_model.pbtxt")):
            raise ServingError(
                Code.NOT_FOUND,
                "Specified file path does not appear to contain a SavedModel bundle "
                f"(should have a file called `saved_model.pb`)\nSpecified file path: {folder}",
            )
        runner = self._batched(folder, self._session(folder))
        if self._options.warm_up:
            how = self._options
            try:
                warm_up(
                    *(name, version, folder, runner, self._metrics),
                    iterations=how.warm_up_iterations,
                    check_method_names=how.check_method_names,
                )
            except BaseException:
                runner.close()
                raise
        return runner

    def _session(self, folder: str) -> Session:
        started = time.monotonic()
        session = None
        try:
            session = Session(folder, self._options.tags, self._options.session_config)
        finally:
            self._metrics.loaded(folder, time.monotonic() - started, success=session is not None)
        return session

    def _batched(self, folder: str, session: Runner) -> Runner:
        """The session, or what gathers its requests into batches where they are to be."""
        options, scheduler = self._options.batching, self._scheduler
        if options is None or scheduler is None:
            return session
        if self._options.batching_per_model:
            file = Path(folder) / _PER_MODEL
            if not file.exists():
                return session
            try:
                options = batching_options(read_text_proto(str(file), protos.BatchingParameters()))
            except ServingError:
                session.close()
                raise
        log.info("Wrapping session to perform batch processing")
        return BatchingSession(session, scheduler, options, self._metrics.batching)
