"""HTTP's framing for the soak: what it can be bent to, on raw sockets."""

import json
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from soak_http import Http, post
from soak_report import MOST_SECONDS, Disorderly, Report, Worker, mutated

_MOST_PARKED = 10
_PARKED_SECONDS = 40.0
_QUIET_SECONDS = 0.3


@dataclass
class Talk:
    """What is said on a connection: bytes, and pauses in seconds between them."""

    kind: str
    says: list[bytes | float]
    answers: list[bytes] = field(default_factory=list)
    """What must come back, in order, where the other side may not do otherwise: parts of the bodies."""
    end: str = "read"
    """`read` to the end of the connection; `quiet`: read until nothing comes, then close our half and read to the end;
    `half` closes our half at once, which may cost us the answer; `reset`; `park` for the server's limits to end it."""


class FramingFuzz(Worker):
    """What HTTP's framing can be bent to, on raw sockets; now and then on the port of gRPC.

    Args:
        request: a path and a right body for it, and a part of the answer to that.
    """

    def __init__(
        self, name: str, report: Report, stop: Any, ports: tuple[int, int], request: tuple[str, bytes, bytes]
    ) -> None:
        super().__init__(name, report, stop)
        self._rest_port, self._grpc_port = ports
        self._path, self._body, self._part = request
        self._parked: list[tuple[float, Talk, Http]] = []

    def step(self) -> None:
        self._look_at_parked()
        if self.rng.random() < 0.15:
            self._strange_to_grpc()
            return
        talk = self._talk()
        said = b"".join(piece for piece in talk.says if isinstance(piece, bytes))
        with self.report.asking(f"HTTP, {talk.kind}", said) as codes:
            http = Http(self._rest_port)
            try:
                codes += self._hold(talk, http)
            finally:
                if talk.end != "park":
                    http.close()

    def _hold(self, talk: Talk, http: Http) -> list[str]:
        connection = http.connect()
        try:
            for piece in talk.says:
                if isinstance(piece, float):
                    time.sleep(piece)
                else:
                    connection.sendall(piece)
            if talk.end == "half":
                connection.shutdown(socket.SHUT_WR)
        except OSError:
            if talk.answers:
                raise
        connection.settimeout(MOST_SECONDS)
        if talk.end == "park":
            self._parked.append((time.monotonic(), talk, http))
            return ["parked"]
        if talk.end == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return ["reset"]
        answers = []
        if talk.end == "quiet":
            connection.settimeout(_QUIET_SECONDS)
            with suppress(TimeoutError):
                while (answer := http.read()) is not None:
                    answers.append(answer)
            connection.settimeout(MOST_SECONDS)
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        while (answer := http.read()) is not None:
            answers.append(answer)
        if talk.answers:
            bodies = [answer.body for answer in answers]
            if len(bodies) != len(talk.answers) or any(
                part not in body for part, body in zip(talk.answers, bodies, strict=True)
            ):
                raise Disorderly(f"{bodies!r:.500}, not {talk.answers!r:.500}")
        return [str(answer.status) for answer in answers] or ["closed"]

    def _look_at_parked(self) -> None:
        """Half requests are closed by the server's own clock: 20 s, and then some."""
        if self._parked and time.monotonic() - self._parked[0][0] > _PARKED_SECONDS:
            _, talk, http = self._parked.pop(0)
            said = b"".join(piece for piece in talk.says if isinstance(piece, bytes))
            with self.report.asking("HTTP, half a request after 40 s", said, 5.0) as codes:
                answer = http.read()
                codes.append(str(answer.status) if answer else "closed")
                http.close()

    def _talk(self) -> Talk:
        rng = self.rng
        good = post(self._path, self._body)
        last = post(self._path, self._body, "Connection: close")
        head, _, _ = good.partition(b"\r\n\r\n")
        bare = head[: head.index(b"Content-Length")]
        part = [self._part]
        chunked = self._chunked()
        coming = bare + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        kind = rng.choice(
            ("partial", "partial", "parked", "length", "chunks", "bad chunks", "pipeline", "bad pipeline", "headers",
             "mutated", "mutated", "mutated", "reset", "slow", "half", "preface", "upgrade", "continue", "unread",
             "garbage", "versions", "smuggling")
        )  # fmt: skip
        if kind == "partial":
            return Talk(kind, [good[: rng.randrange(len(good))]], end=rng.choice(("half", "reset")))
        if kind == "parked":
            if len(self._parked) >= _MOST_PARKED:
                kind = "partial"
                return Talk(kind, [good[:30]], end="reset")
            return Talk(kind, [good[: rng.randrange(1, len(good))]], end="park")
        if kind == "length":
            length = rng.choice(
                (0, 1, len(self._body) - 1, len(self._body) + 1, 10**6, 10**12, -1, "x", "+3", "0x10", "1, 2", " ")
            )
            return Talk(kind, [bare + f"Content-Length: {length}\r\n\r\n".encode() + self._body], end="quiet")
        if kind == "chunks":
            return Talk(kind, [coming + chunked], part)
        if kind == "bad chunks":
            return Talk(kind, [coming + mutated(rng, chunked)], end=rng.choice(("quiet", "quiet", "reset")))
        if kind == "pipeline":
            count = rng.choice((2, 5, 30))
            return Talk(kind, [good * (count - 1) + last], part * count)
        if kind == "bad pipeline":
            return Talk(kind, [good * 3 + mutated(rng, good) + last], end="quiet")
        if kind == "headers":
            more = rng.choice(
                (
                    b"X: " + b"a" * 70_000,
                    b"X" * 9000 + b": 1",
                    b"".join(b"X-%d: 1\r\n" % i for i in range(300)) + b"Y: 1",
                )
            )
            return Talk(kind, [bare + more + b"\r\n\r\n"], end="quiet")
        if kind == "mutated":
            return Talk(
                kind, [mutated(rng, head) + b"\r\n\r\n" + self._body], end=rng.choice(("quiet", "quiet", "reset"))
            )
        if kind == "reset":
            return Talk(kind, [good[: rng.randrange(len(good))], rng.choice((0.0, 0.001)), good], end="reset")
        if kind == "slow":
            pieces: list[bytes | float] = []
            step = rng.choice((7, 20, 50))
            for start in range(0, len(last), step):
                pieces += [last[start : start + step], 0.02]
            return Talk(kind, pieces, part)
        if kind == "half":
            return Talk(kind, [good * rng.choice((1, 3))], end="half")
        if kind == "preface":
            return Talk(kind, [rng.choice(_STRANGERS)], end="quiet")
        if kind == "upgrade":
            what = rng.choice((b"websocket", b"h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__", b"TLS/1.2"))
            return Talk(
                kind,
                [
                    bare + b"Connection: Upgrade\r\nUpgrade: " + what + b"\r\nContent-Length: 0\r\n\r\n",
                    rng.randbytes(30),
                ],
                end="quiet",
            )
        if kind == "continue":
            with_expect = last.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n", 1)
            cut = with_expect.index(b"\r\n\r\n") + 4
            return Talk(kind, [with_expect[:cut], 0.05, with_expect[cut:]], part)
        if kind == "unread":
            body = json.dumps({"inputs": [[0.1] * 2] * 50_000}).encode()
            return Talk(
                kind, [post("/v1/models/identity_float32:predict", body), rng.choice((0.0, 0.01, 0.2))], end="reset"
            )
        if kind == "garbage":
            return Talk(kind, [rng.randbytes(rng.choice((1, 10, 1000, 100_000)))], end=rng.choice(("half", "reset")))
        if kind == "versions":
            version = rng.choice(
                (b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/11", b"HTTP/1.1 ", b"", b"ICY")
            )
            return Talk(kind, [good.replace(b"HTTP/1.1", version, 1)], end="quiet")
        both = b"Content-Length: 4\r\nTransfer-Encoding: " + rng.choice(
            (b"chunked", b"gzip, chunked", b"x", b"chunked, chunked")
        )
        return Talk("smuggling", [bare + both + b"\r\n\r\n" + chunked + good], end="quiet")

    def _chunked(self) -> bytes:
        pieces, start = [], 0
        while start < len(self._body):
            size = self.rng.randint(1, 9)
            piece = self._body[start : start + size]
            pieces.append(b"%x%s\r\n%s\r\n" % (len(piece), self.rng.choice((b"", b";x=y")), piece))
            start += size
        return b"".join(pieces) + b"0\r\n" + self.rng.choice((b"", b"X: y\r\n")) + b"\r\n"

    def _strange_to_grpc(self) -> None:
        rng = self.rng
        frame = struct.pack(">I", rng.choice((0, 8, 100, 2**24 - 1)))[1:] + bytes(
            [rng.randrange(12), rng.randrange(256)]
        )
        says = rng.choice(
            (
                mutated(rng, post(self._path, self._body)),
                _PREFACE[: rng.randrange(len(_PREFACE))],
                _PREFACE + mutated(rng, _SETTINGS),
                _PREFACE
                + _SETTINGS
                + frame
                + struct.pack(">I", rng.randrange(2**32))
                + rng.randbytes(rng.choice((0, 8, 100))),
                _PREFACE + _SETTINGS + _SETTINGS * 2000,
                _PREFACE + _SETTINGS + b"".join(_reset_stream(number) for number in range(1, 400, 2)),
                rng.choice(_STRANGERS),
                rng.randbytes(1000),
            )
        )
        with self.report.asking("gRPC's port, no gRPC", says) as codes:
            connection = socket.create_connection(("127.0.0.1", self._grpc_port), MOST_SECONDS)
            with connection, suppress(ConnectionError):
                connection.sendall(says)
                if rng.random() < 0.5:
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(2**16):
                        pass
                else:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            codes.append("closed")

    def close(self) -> None:
        for _, _, http in self._parked:
            http.close()


_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\x00\x00\x0c\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64\x00\x04\x00\x00\xff\xff"
_HELLO = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03" + bytes(range(32)) + b"\x00\x00\x04\x13\x01\x13\x02\x01\x00"
_STRANGERS = (
    _PREFACE,
    _PREFACE + _SETTINGS,
    _HELLO,
    _HELLO[:9],
    b"\x00",
    b"\r\n" * 50,
    b"SSH-2.0-x\r\n",
    b"\x05\x01\x00",
)


def _reset_stream(number: int) -> bytes:
    """A stream that is opened by a HEADERS frame and reset at once."""
    headers = b"\x83\x86\x04\x01/"  # :method POST, :scheme http, :path /
    opened = struct.pack(">I", len(headers))[1:] + b"\x01\x04" + struct.pack(">I", number) + headers
    return opened + b"\x00\x00\x04\x03\x00" + struct.pack(">I", number) + b"\x00\x00\x00\x08"
