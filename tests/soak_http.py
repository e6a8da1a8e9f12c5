"""HTTP for the soak: a client that trusts nothing it reads, and bodies and paths that are nearly right."""

import gzip
import json
import random
import re
import socket
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from soak_report import MOST_SECONDS, Disorderly, Report, Worker, mutated

ORDERLY = {200, 400, 403, 404, 408, 409, 413, 429, 431, 499, 501, 503, 504}
_HTML = re.compile(rb"<HTML><HEAD>\n<TITLE>(\d+) ([^<]+)</TITLE>\n</HEAD><BODY>\n<H1>([^<]+)</H1>\n</BODY></HTML>\n")


@dataclass
class Answer:
    """One HTTP answer."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def closes(self) -> bool:
        said = self.headers.get("connection", "").lower()
        return said == "close" or (self.version == "1.0" and said != "keep-alive")


class Http:
    """One connection after another to a port, each kept while the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.socket: socket.socket | None = None
        self._buffer = b""

    def ask(self, request: bytes, *, has_body: bool = True) -> Answer:
        """Send a request and read its answer; on a new connection, where the old one was closed meanwhile."""
        if self.socket is not None:
            self.socket.settimeout(0)
            try:
                if self.socket.recv(1, socket.MSG_PEEK):
                    raise Disorderly("an answer that nobody asked for")
                self.close()
            except BlockingIOError:
                self.socket.settimeout(MOST_SECONDS)
        if self.socket is None:
            self.connect()
        assert self.socket is not None
        # The server may answer and close before it has read all.
        with suppress(ConnectionError):
            self.socket.sendall(request)
        answer = self.read(has_body=has_body)
        if answer is None:
            self.close()
            raise Disorderly("closed without an answer")
        if answer.closes:
            self.close()
        return answer

    def connect(self) -> socket.socket:
        self.socket = socket.create_connection(("127.0.0.1", self._port), MOST_SECONDS)
        self._buffer = b""
        return self.socket

    def read(self, *, has_body: bool = True) -> Answer | None:
        """The next answer, checked; None where the connection ends instead."""
        head = self._until_blank_line()
        if head is None:
            return None
        line, *rest = head.split(b"\r\n")
        match = re.fullmatch(rb"HTTP/(1\.[01]) (\d{3}) [ -~]*", line)
        if match is None:
            raise Disorderly(f"no status line: {line[:200]!r}")
        status = int(match[2])
        if status == 100:
            return self.read(has_body=has_body)
        headers = {}
        for row in rest:
            name, colon, value = row.decode("latin-1").partition(": ")
            if not colon or re.fullmatch(r"[!#-'*+.0-9A-Z^-z|~-]+", name) is None:
                raise Disorderly(f"no header: {row[:200]!r}")
            headers[name.lower()] = value
        length = headers.get("content-length")
        body = b""
        if has_body:
            body = self._take(int(length)) if length is not None else self._all()
        answer = Answer(match[1].decode(), status, headers, body)
        check(answer, has_body=has_body)
        return answer

    def _until_blank_line(self) -> bytes | None:
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                if self._buffer:
                    raise Disorderly(f"the answer breaks off: {self._buffer[:200]!r}")
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        return head

    def _take(self, length: int) -> bytes:
        pieces = bytearray(self._buffer)
        self._buffer = b""
        while len(pieces) < length:
            if not self._more():
                raise Disorderly(f"{len(pieces)} bytes of {length}")
            pieces += self._buffer
            self._buffer = b""
        self._buffer = bytes(pieces[length:])
        return bytes(pieces[:length])

    def _all(self) -> bytes:
        while self._more():
            pass
        body, self._buffer = self._buffer, b""
        return body

    def _more(self) -> bool:
        assert self.socket is not None
        try:
            piece = self.socket.recv(2**16)
        except ConnectionResetError:
            return False
        self._buffer += piece
        return bool(piece)

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def check(answer: Answer, *, has_body: bool = True) -> None:
    """Whether the server may answer so to anything at all.

    Raises:
        Disorderly: it may not.
    """
    status, body = answer.status, answer.body
    kind = answer.headers.get("content-type", "")
    if status == 500 and (b"Internal error" in body or b"error" not in body):
        raise Disorderly(f"500: {body[:500]!r}")
    if status not in ORDERLY | {500}:
        raise Disorderly(f"status {status}: {body[:500]!r}")
    if not has_body or (not body and status in (200, 400)):
        return
    if kind == "application/json":
        document = json.loads(body.decode(errors="surrogateescape"))
        if status != 200 and not (list(document) == ["error"] and isinstance(document["error"], str)):
            raise Disorderly(f"{status} without an error: {body[:500]!r}")
    elif kind == "text/html":
        match = _HTML.fullmatch(body)
        if match is None or int(match[1]) != status or match[2] != match[3]:
            raise Disorderly(f"an unknown page: {body[:500]!r}")
    elif not (kind.startswith("text/plain") and (status == 200 or body.startswith(b"Unexpected path: "))):
        raise Disorderly(f"{status} of type {kind!r}: {body[:500]!r}")


def post(path: str | bytes, body: bytes, *headers: str, method: str = "POST", version: str = "1.1") -> bytes:
    """A request as it goes over the wire."""
    target = path.encode() if isinstance(path, str) else path
    lines = ["Host: localhost", *headers]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return (
        method.encode()
        + b" "
        + target
        + f" HTTP/{version}\r\n".encode()
        + "\r\n".join(lines).encode()
        + b"\r\n\r\n"
        + body
    )


# ---- bodies and paths


class BodyFuzz(Worker):
    """Bodies that are nearly right, to every model.

    Args:
        seeds: right ones, with their paths.
    """

    def __init__(self, name: str, report: Report, stop: Any, port: int, seeds: Sequence[tuple[str, bytes]]) -> None:
        super().__init__(name, report, stop)
        self._http = Http(port)
        self._seeds = seeds

    def step(self) -> None:
        path, body = self.rng.choice(self._seeds)
        kind, body, *headers = self._broken(body)
        request = post(path, body, *headers)
        with self.report.asking(f"REST body, {kind}", request) as codes:
            try:
                codes.append(str(self._http.ask(request).status))
            except BaseException:
                self._http.close()
                raise

    def _broken(self, body: bytes) -> tuple[Any, ...]:
        """The kind of it, the body, and headers."""
        rng = self.rng
        draw = rng.random()
        if draw < 0.5:
            return "mutated", mutated(rng, body)
        if draw < 0.6:
            return "built", json.dumps(_built(rng, body), ensure_ascii=rng.random() < 0.5).encode(errors="replace")
        if draw < 0.68:
            text = body.decode()
            _, key, value = re.fullmatch(r'(\{)("[a-z_]+"): (.*)\}', text, re.DOTALL).groups()  # type: ignore[union-attr]
            return (
                "twice the key",
                f"{{{key}: {mutated(rng, value.encode()).decode(errors='replace')}, {key}: {value}}}".encode(),
            )
        if draw < 0.76:
            deep = rng.choice((10, 254, 255, 256, 1000, 30_000, 300_000))
            opening, closing = rng.choice(((b"[", b"]"), (b'{"x":', b"}"), (b'{"x":[', b"]}")))
            inner = opening * deep + b"1" + closing * rng.choice((deep, deep - 1, 0))
            return "nested", b'{"instances": ' + inner + b"}"
        if draw < 0.84:
            number = rng.choice(
                (b"1" * 5000, b"1e999999999", b"1e-999999999", b"0." + b"0" * 5000 + b"1", b"-" + b"9" * 4301)
            )
            return "huge numbers", re.sub(rb"\d+(\.\d+)?", number, body, count=rng.choice((0, 1)))
        packed = gzip.compress(body)
        if draw < 0.92:
            garbage = rng.choice((mutated(rng, packed), rng.randbytes(50), packed + rng.randbytes(9), packed * 2, b""))
            return "gzip garbage", garbage, f"Content-Encoding: {rng.choice(('gzip', 'x-gzip, gzip', 'deflate', 'br'))}"
        if draw < 0.99 or len(body) > 10_000:
            return "gzip", gzip.compress(mutated(rng, body)), "Content-Encoding: gzip"
        return "gzip bomb", _bomb(rng), "Content-Encoding: gzip"

    def close(self) -> None:
        self._http.close()


def _bomb(rng: random.Random) -> bytes:
    """A few kilobytes that become up to 100 MB, or one byte more."""
    size = rng.choice((2**20, 10 * 2**20, 100 * 2**20, 100 * 2**20 + 1))
    piece, most = rng.choice(((b" ", size), (b"\x00", size), (b"[", 2**19), (b'{"instances":[1.0,1.0', size)))
    packer = zlib.compressobj(1, wbits=31)
    block = piece * (2**16 // len(piece))
    whole, rest = divmod(min(size, most), len(block))
    return b"".join(packer.compress(block) for _ in range(whole)) + packer.compress(block[:rest]) + packer.flush()


def _built(rng: random.Random, body: bytes) -> Any:
    """The document with one value somewhere replaced by another kind of thing."""
    document = json.loads(body)

    def change(value: Any, depth: int) -> Any:
        if rng.random() < 0.25 or depth > 4 or not isinstance(value, (dict, list)) or not value:
            return rng.choice(
                (None, True, 0, -1, 2**31, 2**63, 2**64, 1.5, 1e308, "", "é", "\ud800", [], {}, [[]], [{}],
                 {"b64": "AA=="}, {"b64": "?"}, {"b64": 1}, [[1.0], [1.0, 2.0]], [1, [2]], [1.5] * 300,
                 "serving_default", "x" * 1000)
            )  # fmt: skip
        if isinstance(value, list):
            index = rng.randrange(len(value))
            return [*value[:index], change(value[index], depth + 1), *value[index + 1 :]]
        key = rng.choice(list(value))
        rest = {name: kept for name, kept in value.items() if name != key or rng.random() < 0.8}
        return {**rest, rng.choice((key, key, key, "signature_name", "", "é")): change(value[key], depth + 1)}

    return change(document, 0)


class PathFuzz(Worker):
    """Paths and methods that are nearly right."""

    def __init__(self, name: str, report: Report, stop: Any, port: int, paths: Sequence[str]) -> None:
        super().__init__(name, report, stop)
        self._http = Http(port)
        self._paths = paths

    def step(self) -> None:
        rng = self.rng
        method = rng.choice(
            ("GET", "GET", "POST", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW",
             "get", "G\x01T")
        )  # fmt: skip
        path = self._path()
        body = rng.choice((b"", b'{"instances": [1.0]}', b"{"))
        headers = rng.sample(
            ("Origin: http://here", "Accept-Encoding: gzip", "Content-Type: x/y", "Connection: close"), 2
        )
        request = post(path, body, *headers, method=method)
        with self.report.asking(f"REST path, {method if method.isalpha() else 'no method'}", request) as codes:
            try:
                codes.append(str(self._http.ask(request, has_body=method != "HEAD").status))
            except BaseException:
                self._http.close()
                raise

    def _path(self) -> bytes:
        rng = self.rng
        path = rng.choice(self._paths).encode()
        draw = rng.random()
        if draw < 0.6:
            path = mutated(rng, path)
        elif draw < 0.7:
            path = re.sub(
                rb"versions/\d+|models/\w+",
                lambda found: found[0] + rng.choice((b"9" * 19, b"9" * 5000, b"0" * 4500)),
                path,
            )
        elif draw < 0.8:
            escaped = "".join(f"%{byte:02x}" if rng.random() < 0.3 else chr(byte) for byte in path)
            path = escaped.encode()
        elif draw < 0.85:
            path += rng.choice((b"/" * 3000, b"%" * 7000, b"a" * 8100, b"a" * 9000, b"../" * 9, b"?" + b"x=1&" * 9))
        elif draw < 0.9:
            path = rng.choice(
                (
                    b"*",
                    b"http://elsewhere/v1/models/x",
                    b"//v1/models",
                    b"localhost:80",
                    b"/v1/models/" + rng.randbytes(6),
                )
            )
        # What ends the request line is for the framing.
        return re.sub(rb"[\r\n ]", b"_", path)

    def close(self) -> None:
        self._http.close()
