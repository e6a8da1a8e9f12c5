"""The one shape of API that both clients have: what is the same on either wire."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar

import numpy.typing as npt

from tfs_helpers.client.answers import MISFITS, SignatureCache, Target, VersionStatus, seconds
from tfs_helpers.signatures import DEFAULT, ModelMetadata, Signature

__all__ = ["ModelClient"]

Array = npt.NDArray[Any]
Client = TypeVar("Client", bound="ModelClient")


class ModelClient(ABC):
    """Calls a server; safe to use from several threads.

    Args:
        timeout: seconds that a call may take unless it says otherwise.
    """

    def __init__(self, *, timeout: float = 10.0) -> None:
        self.timeout = seconds(timeout)
        self._signatures = SignatureCache(self._metadata)

    def __enter__(self: Client) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Close the connections."""

    def predict(
        self,
        model: str,
        inputs: Any,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = DEFAULT,
        timeout: float | None = None,
    ) -> dict[str, Array]:
        """Run a model.

        Args:
            model: its name.
            inputs: `{input name: array-like}`; the array-like alone where the signature has one input.
            version, label: which version; the latest where neither is given.
            signature: which signature to run.
            timeout: seconds; the client's own where None. The first call asks for the signatures too, each in that
                time. By REST it is the time to connect, and then the time without a sign of the server.

        Returns:
            `{output name: array}`, with the dtypes and shapes that the model gives; strings as object arrays of bytes.

        Raises:
            ConfigError: an impossible name, version or timeout; nothing was sent.
            InputError: the inputs do not fit the signature, or the wire cannot carry them; nothing was sent.
            CallError: one of its kinds, with the server's words; `ServerFault` where the answer makes no sense.
        """
        target = Target(model, version, label)
        limit = self._limit(timeout)
        wanted, arrays = self._signatures.checked(target, signature, inputs, limit)
        try:
            return self._predict(target, wanted, arrays, limit)
        except MISFITS:
            self._signatures.forget(target)
            raise

    def status(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> list[VersionStatus]:
        """Where the versions of a model stand, the highest first; versions that ended stay listed.

        A server does not look at the label here: it lists every version.

        Raises:
            CallError: `NotFound` where the server has never seen that model.
        """
        return self._status(Target(model, version, label), self._limit(timeout))

    def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> ModelMetadata:
        """The version that answers, and its signatures.

        Raises:
            CallError: `NotFound` where no version of that model answers.
        """
        return self._metadata(Target(model, version, label), self._limit(timeout))

    def _limit(self, timeout: float | None) -> float:
        return self.timeout if timeout is None else seconds(timeout)

    @abstractmethod
    def _predict(
        self, target: Target, signature: Signature, arrays: Mapping[str, Array], timeout: float
    ) -> dict[str, Array]: ...

    @abstractmethod
    def _status(self, target: Target, timeout: float) -> list[VersionStatus]: ...

    @abstractmethod
    def _metadata(self, target: Target, timeout: float) -> ModelMetadata: ...
