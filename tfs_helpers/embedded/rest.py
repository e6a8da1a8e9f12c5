"""The REST door: URLs and JSON on the outside, `inference` on the inside."""

import asyncio
import gzip
import re
import zlib
from concurrent.futures import Executor
from typing import Any, NamedTuple
from urllib.parse import unquote

from aiohttp import web
from google.protobuf import json_format

from tfs_helpers import protos
from tfs_helpers.embedded.examples import input_from_json
from tfs_helpers.embedded.inference import InferenceService
from tfs_helpers.embedded.json_request import PredictBody
from tfs_helpers.embedded.json_text import classify_results, column_form, error_text, regress_results, row_form
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["RestDoor"]

# As in http_rest_api_util.cc of the real server: matched against path and query string together.
_POST = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:(classify|regress|predict)", re.IGNORECASE | re.ASCII
)
_GET = re.compile(
    r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?", re.IGNORECASE | re.ASCII
)
_ROUTES = {"GET": _GET, "POST": _POST}
_NOT_FOUND = "<HTML><HEAD>\n<TITLE>404 Not Found</TITLE>\n</HEAD><BODY>\n<H1>Not Found</H1>\n</BODY></HTML>\n"
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
        executor: the threads that inference runs on.
        timeout: seconds that one run may take; None for any.
        cors: whether browsers of other origins may call.
    """

    def __init__(
        self, service: InferenceService, executor: Executor, *, timeout: float | None = 30.0, cors: bool = False
    ) -> None:
        self._service = service
        self._executor = executor
        self._timeout = timeout
        self._cors = cors

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.raw_path
        if not re.fullmatch(r"(?i)/v1/.*", path):
            response = web.Response(status=404, text=_NOT_FOUND, content_type="text/html", charset=None)
            response.headers["Content-Type"] = "text/html"
            response.force_close()
            return response
        body = await request.read()
        if "gzip" in request.headers.get("Content-Encoding", ""):
            body = _unzipped(body)
        if request.method == "OPTIONS":
            return self._preflight(request)
        if request.method == "POST":
            # Parsing and writing large JSON takes as long as the run itself: all of it off the event loop.
            loop = asyncio.get_running_loop()
            answer = await loop.run_in_executor(self._executor, self._answer, request.method, path, body)
        else:
            answer = self._answer(request.method, path, body)
        return self._respond(answer)

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

    def _answer(self, method: str, path: str, body: bytes) -> _Answer:
        """Errors as answers: known ones in the server's words, unknown ones logged and told as INTERNAL."""
        try:
            return self._route(method, path, body)
        except ServingError as error:
            return _Answer(_HTTP.get(error.code, 500), error_text(error.message))
        except Exception as error:
            log.exception("The request %s broke the server", path)
            return _Answer(500, error_text(f"Internal error: {type(error).__name__}"))

    # ---- the routes

    def _route(self, method: str, path: str, body: bytes) -> _Answer:
        pattern = _ROUTES.get(method)
        match = pattern.fullmatch(path) if pattern else None
        if match is None:
            raise _malformed(method, path)
        name, version, label, action = match.groups()
        spec = _spec(name, version, label)
        if spec is None:
            return _Answer(400, "")
        if method == "GET":
            return _Answer(200, self._metadata(spec) if action == "metadata" else self._status(spec))
        if action == "predict":
            return _Answer(200, self._predict(spec, body))
        if action in ("classify", "regress"):
            return _Answer(200, self._judge(spec, action, body))
        raise _malformed(method, path)

    def _status(self, spec: Any) -> str:
        if not spec.name:
            raise ServingError(Code.INVALID_ARGUMENT, "Missing model name in request.")
        return _proto_text(self._service.model_status(spec)) + "\n"

    def _predict(self, spec: Any, body: bytes) -> str:
        request = PredictBody(body)
        outputs = self._service.predict_arrays(spec, request.signature_name, request.arrays, self._timeout)
        return row_form(outputs) if request.is_rows else column_form(outputs)

    def _judge(self, spec: Any, action: str, body: bytes) -> str:
        name, examples = input_from_json(body, action)
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


def _spec(name: str | None, version: str | None, label: str | None) -> Any:
    """The ModelSpec of a URL; None where its version fits no int64."""
    spec = protos.ModelSpec(name=unquote(name or ""))
    if version is not None:
        if int(version) >= 2**63:
            return None
        spec.version.value = int(version)
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
