"""What a loaded version can do, whether it runs each request by itself or several in one batch."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt

from tfs_helpers.embedded.graphs.graph_signature import GraphSignature

__all__ = ["Array", "Runner"]

Array = npt.NDArray[Any]


class Runner(Protocol):
    """A loaded version: arrays in by tensor name, arrays out; safe to use from several threads at once.

    Attributes:
        signatures: by name.
        is_bounded: whether a run takes as long as its input is large: no loops, no waiting for others.
    """

    signatures: dict[str, GraphSignature]
    is_bounded: bool

    def run(self, feeds: Mapping[str, Array], fetches: Sequence[str], timeout: float | None = None) -> list[Array]:
        """Run it once; the fetched tensors in order. `timeout` in seconds, None for any.

        Raises:
            ServingError: TensorFlow's code and words, or those of the batching.
        """

    def close(self) -> None:
        """Free its memory. Nobody may be inside `run`."""
