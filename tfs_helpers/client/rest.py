"""The REST client: arrays in, arrays out, JSON in between."""

from types import TracebackType
from typing import Any
from urllib.parse import quote, urlsplit

import numpy.typing as npt
import orjson
import requests
from requests.adapters import HTTPAdapter

from tfs_helpers import protos
from tfs_helpers.client.answers import SignatureCache, Target, VersionStatus, call_error
from tfs_helpers.errors import CallError, ConfigError, InputError, InvalidArgument
from tfs_helpers.json_tensors import decode_outputs, encode_inputs
from tfs_helpers.signatures import DEFAULT, ModelMetadata, signatures_from

__all__ = ["RestClient"]

_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    413: "RESOURCE_EXHAUSTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_CONNECTIONS = 16


class RestClient:
    """Calls a server by REST over connections that it keeps; safe to use from several threads.

        with RestClient("http://127.0.0.1:8501") as client:
            client.predict("half_plus_two", {"x": [1.0, 2.0, 5.0]})["y"]

    Args:
        url: where the server's REST port is, without a path unless a proxy adds one.
        timeout: seconds that a call may take unless it says otherwise.

    Raises:
        ConfigError: the URL is none.
    """

    def __init__(self, url: str = "http://127.0.0.1:8501", *, timeout: float = 10.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(
                f"{url!r} is no URL of a server.",
                "REST takes a URL with its scheme and port.",
                'The server\'s default is "http://127.0.0.1:8501".',
            )
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._session = requests.Session()
        # Settings of proxies are for the world outside, not for a model server beside us.
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_maxsize=_CONNECTIONS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)
        self._signatures = SignatureCache(self._fetch_metadata)

    def __enter__(self) -> "RestClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def predict(
        self,
        model: str,
        inputs: Any,
        *,
        version: int | None = None,
        label: str | None = None,
        signature: str = DEFAULT,
        timeout: float | None = None,
    ) -> dict[str, npt.NDArray[Any]]:
        """Run a model.

        Args:
            model: its name.
            inputs: `{input name: array-like}`; the array-like alone where the signature has one input.
            version, label: which version; the latest where neither is given.
            signature: which signature to run.
            timeout: seconds.

        Returns:
            `{output name: array}`, with the dtypes that the signature says; strings as object arrays of bytes.

        Raises:
            InputError: the inputs do not fit the signature, or JSON cannot carry them; nothing was sent.
            CallError: one of its kinds, with the server's words.
        """
        target = Target(model, version, label)
        seconds = self.timeout if timeout is None else timeout
        wanted, arrays = self._signatures.checked(target, signature, inputs, seconds)
        body = encode_inputs(arrays, "" if signature == DEFAULT else signature)
        try:
            return decode_outputs(self._call("POST", f"{_path(target)}:predict", target, seconds, body), wanted)
        except (InvalidArgument, InputError):
            # The model may have changed since its signature was read: look again at the next call.
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
        target = Target(model, version, label)
        document = self._document(_path(target), target, timeout)
        return [
            VersionStatus(
                int(row["version"]), row["state"], row["status"]["error_code"], row["status"]["error_message"]
            )
            for row in document["model_version_status"]
        ]

    def metadata(
        self, model: str, *, version: int | None = None, label: str | None = None, timeout: float | None = None
    ) -> ModelMetadata:
        """The version that answers, and its signatures.

        Raises:
            CallError: `NotFound` where no version of that model answers.
        """
        seconds = self.timeout if timeout is None else timeout
        return self._fetch_metadata(Target(model, version, label), seconds)

    def _fetch_metadata(self, target: Target, timeout: float) -> ModelMetadata:
        document = self._document(f"{_path(target)}/metadata", target, timeout)
        from google.protobuf import json_format

        signatures = protos.SignatureDefMap()
        json_format.ParseDict(
            document["metadata"]["signature_def"], signatures, ignore_unknown_fields=True, descriptor_pool=protos.pool()
        )
        spec = document["model_spec"]
        return ModelMetadata(spec["name"], int(spec["version"]), signatures_from(signatures.signature_def))

    def _document(self, path: str, target: Target, timeout: float | None) -> Any:
        body = self._call("GET", path, target, self.timeout if timeout is None else timeout)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise self._not_a_server(target, body) from None

    def _call(self, method: str, path: str, target: Target, timeout: float, body: bytes | None = None) -> bytes:
        url = self.url + path
        where = {"wire": "REST", "address": self.url, "method": f"{method} {path}", "target": str(target)}
        headers = {"Content-Type": "application/json"} if body is not None else None
        try:
            response = self._session.request(method, url, data=body, headers=headers, timeout=timeout)
        except requests.Timeout:
            raise call_error("DEADLINE_EXCEEDED", f"no answer within {timeout:g} s", where) from None
        except requests.RequestException as error:
            raise call_error("UNREACHABLE", f"cannot connect to {self.url}: {_cause(error)}", where) from None
        if response.status_code == 200:
            return response.content
        try:
            words = str(orjson.loads(response.content)["error"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            words = f"HTTP {response.status_code}, not an answer of TensorFlow Serving: {response.text[:200]}"
        raise call_error(_CODES.get(response.status_code, "UNKNOWN"), words, where)

    def _not_a_server(self, target: Target, body: bytes) -> CallError:
        where = {"wire": "REST", "address": self.url, "target": str(target)}
        return call_error("UNKNOWN", f"not an answer of TensorFlow Serving: {body[:200]!r}", where)


def _path(target: Target) -> str:
    path = f"/v1/models/{quote(target.model, safe='')}"
    if target.version is not None:
        return f"{path}/versions/{target.version}"
    return path if target.label is None else f"{path}/labels/{quote(target.label, safe='')}"


def _cause(error: BaseException) -> str:
    """The operating system's words, out of the layers of exceptions around them."""
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if inner is None and error.args and isinstance(error.args[0], BaseException):
            inner = error.args[0]
        if not isinstance(inner, BaseException):
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return words if words.isprintable() else "what answers there does not speak HTTP; is it the gRPC port?"
        error = inner
