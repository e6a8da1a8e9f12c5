"""The REST client: arrays in, arrays out, JSON in between."""

from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import orjson
import requests
from google.protobuf import json_format
from requests.adapters import HTTPAdapter

from tfs_helpers import protos
from tfs_helpers.client.answers import Target, VersionStatus, call_error
from tfs_helpers.client.base import Array, ModelClient
from tfs_helpers.errors import CallError, ConfigError
from tfs_helpers.json_tensors import decode_outputs, encode_inputs
from tfs_helpers.signatures import DEFAULT, ModelMetadata, Signature, signatures_from

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
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
# What a proxy in between may say as well, in words of its own; other answers that are no JSON come from a stranger.
_OF_PROXIES = {401, 403, 413, 429, 502, 503, 504}
_CONNECTIONS = 16


class RestClient(ModelClient):
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
        if not _is_url(url):
            raise ConfigError(
                f"{url!r} is no URL of a server.",
                "REST takes a URL with its scheme and port.",
                'The server\'s default is "http://127.0.0.1:8501".',
            )
        self.url = url.rstrip("/")
        super().__init__(timeout=timeout)
        self._session = requests.Session()
        # Settings of proxies are for the world outside, not for a model server beside us.
        self._session.trust_env = False
        adapter = HTTPAdapter(pool_maxsize=_CONNECTIONS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _predict(
        self, target: Target, signature: Signature, arrays: Mapping[str, Array], timeout: float
    ) -> dict[str, Array]:
        body = encode_inputs(arrays, "" if signature.name == DEFAULT else signature.name)
        answer = self._call("POST", f"{_path(target)}:predict", target, timeout, body, signature=signature.name)
        try:
            return decode_outputs(answer, signature)
        except ValueError as error:
            words = (
                f"the answer does not fit signature {signature.name!r} ({error}); was the model replaced? Call again"
            )
            raise call_error("UNKNOWN", words, target, {"wire": "REST", "address": self.url}) from None

    def _status(self, target: Target, timeout: float) -> list[VersionStatus]:
        body = self._call("GET", _path(target), target, timeout)
        try:
            return [
                VersionStatus(
                    int(row["version"]), row["state"], row["status"]["error_code"], row["status"]["error_message"]
                )
                for row in orjson.loads(body)["model_version_status"]
            ]
        except (ValueError, KeyError, TypeError):
            raise self._stranger(target, 200, body) from None

    def _metadata(self, target: Target, timeout: float) -> ModelMetadata:
        body = self._call("GET", f"{_path(target)}/metadata", target, timeout)
        signatures = protos.SignatureDefMap()
        try:
            document = orjson.loads(body)
            json_format.ParseDict(
                document["metadata"]["signature_def"],
                signatures,
                ignore_unknown_fields=True,
                descriptor_pool=protos.pool(),
            )
            spec = document["model_spec"]
            return ModelMetadata(spec["name"], int(spec["version"]), signatures_from(signatures.signature_def))
        except (ValueError, KeyError, TypeError, json_format.ParseError):
            raise self._stranger(target, 200, body) from None

    def _call(
        self, method: str, path: str, target: Target, timeout: float, body: bytes | None = None, **more: object
    ) -> bytes:
        url = self.url + path
        where = {"wire": "REST", "address": self.url, "method": f"{method} {path}", **more}
        headers = {"Content-Type": "application/json"} if body is not None else None
        try:
            response = self._session.request(method, url, data=body, headers=headers, timeout=timeout)
        except requests.Timeout:
            raise call_error("DEADLINE_EXCEEDED", f"no answer within {timeout:g} s", target, where) from None
        except requests.RequestException as error:
            if isinstance(_innermost(error), TimeoutError):
                raise call_error("DEADLINE_EXCEEDED", f"no answer within {timeout:g} s", target, where) from None
            words = f"cannot reach {self.url}: {_cause(error)}"
            raise call_error("UNREACHABLE", words, target, where) from None
        if response.status_code == 200:
            return response.content
        try:
            words = str(orjson.loads(response.content)["error"])
        except (ValueError, KeyError, TypeError):
            raise self._stranger(target, response.status_code, response.content) from None
        raise call_error(_CODES.get(response.status_code, "UNKNOWN"), words, target, where)

    def _stranger(self, target: Target, status: int, body: bytes) -> CallError:
        """The error for an answer that TensorFlow Serving does not give."""
        code = _CODES[status] if status in _OF_PROXIES else "UNREACHABLE"
        shown = " ".join(body[:200].decode(errors="replace").split())
        words = f"HTTP {status} from {self.url}, not an answer of TensorFlow Serving: {shown}"
        return call_error(code, words, target, {"wire": "REST", "address": self.url})


def _is_url(url: object) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:  # no port, or no IPv6 address
        return False


def _path(target: Target) -> str:
    path = f"/v1/models/{quote(target.model, safe='')}"
    if target.version is not None:
        return f"{path}/versions/{target.version}"
    return path if target.label is None else f"{path}/labels/{quote(target.label, safe='')}"


def _cause(error: BaseException) -> str:
    """The operating system's words, out of the layers of exceptions around them."""
    inner = _innermost(error)
    words = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return words if words.isprintable() else "what answers there does not speak HTTP; is it the gRPC port?"


def _innermost(error: BaseException) -> BaseException:
    while True:
        inner = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if inner is None and error.args and isinstance(error.args[0], BaseException):
            inner = error.args[0]
        if not isinstance(inner, BaseException):
            return error
        error = inner
