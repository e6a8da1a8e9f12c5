"""The REST door: URLs and JSON on the outside, `inference` on the inside."""

import functools
import gzip
import re
import time
import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

from aiohttp import web
from google.protobuf import json_format

from tfs_helpers import protos
from tfs_helpers.embedded.answering.examples import input_from_json
from tfs_helpers.embedded.answering.inference import InferenceService
from tfs_helpers.embedded.answering.json_request import PredictBody
from tfs_helpers.embedded.answering.json_text import (
    classify_results,
    column_form,
    error_text,
    regress_results,
    row_form,
)
from tfs_helpers.embedded.doors.http_refusals import page
from tfs_helpers.embedded.doors.lanes import Lanes
from tfs_helpers.embedded.log import log, verbosity
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["RestDoor"]

# As in http_rest_api_util.cc of the real server: matched against path and query string together.
_API = re.compile(r"/v1/.*", re.IGNORECASE)
_POST = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)", re.IGNORECASE | re.ASCII
)
_GET = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?", re.IGNORECASE | re.ASCII
)
_ROUTES = {"GET": _GET, "POST": _POST}
_METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"}  # those that libevent lets through
_MOST_DIGITS = 19
_MOST_UNZIPPED = 100 * 2**20
_HTTP = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}


class _Answer(NamedTuple):
    status: int
    body: str


class RestDoor:
    """Answers HTTP requests.

    Args:
        service: what answers them.
        lanes: where.
        timeout: seconds that one run may take; None for any.
        cors: whether browsers of other origins may call.
        metrics_path: where Prometheus finds the metrics; None for nowhere.
    """

    def __init__(
        self,
        service: InferenceService,
        lanes: Lanes,
        *,
        timeout: float | None = 30.0,
        cors: bool = False,
        metrics_path: str | None = None,
    ) -> None:
        self._service = service
        self._lanes = lanes
        self._timeout = timeout
        self._cors = cors
        self._metrics_path = metrics_path
        self._verbose = verbosity("http_server") > 0
        self._inferences: dict[str, Callable[[Any, bytes], str]] = {
            "predict": self._predict,
            "classify": functools.partial(self._judge, "classify"),
            "regress": functools.partial(self._judge, "regress"),
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if request.method not in _METHODS:
            return page(HTTPStatus.NOT_IMPLEMENTED)
        path = request.raw_path
        if path.partition("?")[0] == self._metrics_path:
            return await self._metrics(path)
        if not _API.fullmatch(path):
            return page(HTTPStatus.NOT_FOUND)
        body = await request.read()
        if "gzip" in request.headers.get("Content-Encoding", ""):
            body = await self._lanes.on_thread(_unzipped, body)
        if self._verbose:
            log.info("Processing HTTP request: %s %s body: %d bytes.", request.method, path, len(body))
        if request.method == "OPTIONS":
            return self._preflight(request)
        return self._respond(await self._answer(request.method, path, body))

    def _respond(self, answer: _Answer, content_type: str = "application/json") -> web.Response:
        headers = {"Content-Type": content_type}
        if self._cors:
            headers |= {
                "Access-Control-Allow-Origin": "*",
                "Access-Control-Allow-Methods": "POST, GET",
                "Access-Control-Allow-Headers": "Content-Type",
            }
        return web.Response(status=answer.status, body=answer.body.encode(errors="surrogateescape"), headers=headers)

    def _preflight(self, request: web.BaseRequest) -> web.Response:
        """What a browser asks before it calls from another origin; answered with or without CORS."""
        origin = request.headers.get("Origin", "")
        asked = "http://" in origin or "https://" in origin
        return self._respond(_Answer(200 if asked else 400, ""), "text/html; charset=ISO-8859-1")

    async def _metrics(self, path: str) -> web.Response:
        """The page for Prometheus, at exactly its path and by any method (http_server.cc)."""
        headers = {"Content-Type": "text/plain"}
        if path == self._metrics_path:
            return web.Response(body=await self._lanes.on_thread(self._service.metrics.page), headers=headers)
        text = f"Unexpected path: {path}. Should be {self._metrics_path}"
        return web.Response(status=400, body=text.encode(errors="surrogateescape"), headers=headers)

    async def _answer(self, method: str, path: str, body: bytes) -> _Answer:
        """Errors as answers: known ones in the server's words, unknown ones logged and told as INTERNAL."""
        started = time.perf_counter()
        pattern = _ROUTES.get(method)
        match = pattern.fullmatch(path) if pattern else None
        code = Code.OK
        try:
            answer = _Answer(200, await self._route(method, path, match, body))
        except ServingError as error:
            code, answer = error.code, _Answer(_HTTP.get(error.code, 500), error_text(error.message))
            if self._verbose:
                log.info("Error Processing HTTP/REST request: %s %s Error: %s", method, path, error)
        except _VersionTooLarge:
            code, answer = Code.INVALID_ARGUMENT, _Answer(400, "")
        except Exception as error:
            log.exception("The request %s broke the server", path)
            code, answer = Code.INTERNAL, _Answer(500, error_text(f"Internal error: {type(error).__name__}"))
        self._count(method, match, code, time.perf_counter() - started)
        return answer

    def _count(self, method: str, match: re.Match[str] | None, code: Code, seconds: float) -> None:
        """A malformed request has no model, and only an inference has an API (http_server.cc)."""
        model = unquote(match[1] or "") if match else ""
        if code == Code.OK and match:
            self._service.metrics.latency(model, match[4] if method == "POST" else "", "REST", seconds)
        self._service.metrics.request(model, code)

    # ---- the routes

    async def _route(self, method: str, path: str, match: re.Match[str] | None, body: bytes) -> str:
        if match is None:
            raise _malformed(method, path)
        name, version, label, action = match.groups()
        spec = _spec(name, version, label)
        if method == "GET":
            return self._metadata(spec) if action == "metadata" else self._status(spec)
        work = self._inferences.get(action)
        if work is None:
            raise _malformed(method, path)
        servable = self._service.core.peek(spec)
        return await self._lanes.answer(servable, len(body), work, spec, body)

    def _status(self, spec: Any) -> str:
        if not spec.name:
            raise ServingError(Code.INVALID_ARGUMENT, "Missing model name in request.")
        return _proto_text(self._service.model_status(spec)) + "\n"

    def _predict(self, spec: Any, body: bytes) -> str:
        request = PredictBody(body)
        outputs = self._service.predict_arrays(spec, request.signature_name, request.arrays, self._timeout)
        return row_form(outputs) if request.is_rows else column_form(outputs)

    def _judge(self, action: str, spec: Any, body: bytes) -> str:
        name, examples = input_from_json(body)
        spec.signature_name = name
        if action == "classify":
            request = protos.ClassificationRequest(model_spec=spec, input=examples)
            return classify_results(self._service.classify(request, self._timeout).result)
        request = protos.RegressionRequest(model_spec=spec, input=examples)
        return regress_results(self._service.regress(request, self._timeout).result)

    def _metadata(self, spec: Any) -> str:
        """The text that the real server glues together, doubled `signature_def` and all."""
        found, signatures = self._service.metadata(spec)
        spec_text, map_text = _proto_text(found), _proto_text(signatures)
        return f'{{\n"model_spec":{spec_text}\n,\n"metadata": {{"signature_def": {map_text}\n}}\n}}\n'


def _malformed(method: str, path: str) -> ServingError:
    return ServingError(Code.INVALID_ARGUMENT, f"Malformed request: {method} {path}")


class _VersionTooLarge(Exception):
    """The version in a URL fits no int64; the real server answers such a URL with 400 and nothing."""


def _spec(name: str | None, version: str | None, label: str | None) -> Any:
    """The ModelSpec of a URL.

    Raises:
        _VersionTooLarge
    """
    spec = protos.ModelSpec(name=unquote(name or ""))
    if version is not None:
        # By its length first: Python converts no number of thousands of digits.
        digits = version.lstrip("0") or "0"
        if len(digits) > _MOST_DIGITS or int(digits) >= 2**63:
            raise _VersionTooLarge
        spec.version.value = int(digits)
    elif label is not None:
        spec.version_label = unquote(label)
    return spec


def _proto_text(message: Any) -> str:
    """A message in the JSON that protobuf's C++ side writes: one space of indent, empty fields too."""
    text: str = json_format.MessageToJson(
        message, indent=1, always_print_fields_with_no_presence=True, preserving_proto_field_name=True
    )
    return text


def _unzipped(body: bytes) -> bytes:
    """An inflated body; empty where it is no gzip, or too much of it."""
    try:
        stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        content = stream.decompress(body, _MOST_UNZIPPED + 1)
    except (zlib.error, gzip.BadGzipFile):
        return b""
    return content if len(content) <= _MOST_UNZIPPED and stream.eof else b""
