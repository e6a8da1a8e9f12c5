"""The HTTP server under the REST door: aiohttp's, with bounds on what strangers may ask of it."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_exceptions import BadHttpMethod, LineTooLong
from aiohttp.streams import StreamReader

from tfs_helpers.embedded.doors import http_refusals
from tfs_helpers.embedded.doors.limits import Limits
from tfs_helpers.embedded.log import log

__all__ = ["HttpServer"]

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

# Who has just had an answer may be about to ask again, and is not closed to make room.
_IDLE_SECONDS = 1.0
# How long somebody who is turned away may read why; and how many may at the same time.
_FAREWELL_SECONDS = 1.0
_MOST_FAREWELLS = 64
# How long the rest of a body that nobody wants is taken, so that its sender reads why.
_LINGER_SECONDS = 5.0


class HttpServer(web.Server):
    """Calls `handler` for each request.

    Args:
        handler: answers it; reads the request's body by `read()`, if at all.
        limits: the bounds.
        most_connections: how many connections there may be.
    """

    def __init__(self, handler: Handler, limits: Limits, most_connections: int) -> None:
        super().__init__(self._handle, request_factory=self._make_request)
        self.limits = limits
        self.bodies_bytes = 0
        self.farewells = 0
        self._handler = handler
        self._most_connections = most_connections
        self._loop = asyncio.get_running_loop()
        bounds = (limits.header_seconds, limits.body_seconds, limits.answer_seconds)
        self._pause = min(1.0, min(bounds) / 4)
        self._timer = self._loop.call_later(self._pause, self._look_around)

    def __call__(self) -> web.RequestHandler:
        """The protocol of a new connection."""
        limits = self.limits
        return _Connection(
            self,
            loop=self._loop,
            logger=log,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.idle_seconds,
            max_line_size=limits.line_bytes,
            max_field_size=limits.line_bytes,
            max_headers=limits.headers,
            lingering_time=_LINGER_SECONDS,
        )

    async def receive(self, seconds: float) -> None:
        """Wait for the bodies that are on the way, at most so long; aiohttp drops them when it shuts down."""
        end = self._loop.time() + seconds
        # An event for what happens once in the server's life would cost every request something.
        while self._loop.time() < end and any(each.receives for each in self._ours()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def shutdown(self, timeout: float | None = None) -> None:
        """Let what is inside finish, for so many seconds, and close all connections."""
        self._timer.cancel()
        await super().shutdown(timeout)

    def has_room(self) -> bool:
        """Whether one more connection may come; closes the one that is idle longest, where that makes room."""
        connections = self._ours()
        if len(connections) < self._most_connections:
            return True
        idle = min(connections, key=lambda each: each.idle_since)
        if idle.idle_since > self._loop.time() - _IDLE_SECONDS:
            return False
        idle.idle_since = float("inf")  # it goes once only
        idle.force_close()
        return True

    def _ours(self) -> list["_Connection"]:
        return cast(list[_Connection], self.connections)

    def _look_around(self) -> None:
        now = self._loop.time()
        for connection in self._ours():
            connection.check(now)
        self._timer = self._loop.call_later(self._pause, self._look_around)

    def _make_request(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        protocol.begin()
        return _Request(message, payload, protocol, writer, task, self._loop)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        assert isinstance(request, _Request)
        try:
            if not request.is_http_1():
                return http_refusals.page(HTTPStatus.BAD_REQUEST)
            return await self._handler(request)
        finally:
            connection.end()


class _Connection(web.RequestHandler):
    """One connection, and since when it waits for what.

    Attributes:
        server: whose it is.
        idle_since: when it had its last request; infinite while it has one.
    """

    __slots__ = (
        "_begun",
        "_body",
        "_body_begun",
        "_body_bytes",
        "_clock",
        "_heard",
        "_held",
        "_refusal",
        "_taken",
        "_turned_away",
        "_unsent",
        "idle_since",
        "server",
    )

    def __init__(self, server: HttpServer, **arguments: Any) -> None:
        super().__init__(server, **arguments)
        self.server = server
        self._clock = arguments["loop"].time
        self.idle_since: float = self._clock()
        self._begun: float | None = None
        self._body: StreamReader | None = None
        self._refusal: web.HTTPException | None = None
        self._body_begun = self._heard = self._taken = 0.0
        self._body_bytes = self._held = self._unsent = 0
        self._turned_away = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self.server.has_room():
            super().connection_made(transport)
            return
        stream = cast(asyncio.Transport, transport)  # uvloop's derives from none
        self.close()  # then it hears no more
        self._turned_away = True
        self.server.farewells += 1
        if self.server.farewells > _MOST_FAREWELLS:
            stream.abort()
            return
        # Closed at once, with the request unread, the answer would be lost on its way.
        stream.write(http_refusals.BUSY)
        stream.write_eof()
        self._loop.call_later(_FAREWELL_SECONDS, stream.abort)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._turned_away:
            self._turned_away = False
            self.server.farewells -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._begun is None and self.idle_since != float("inf"):
            self._begun = self._clock()
        super().data_received(data)
        body = self._body
        if body is not None and self._messages and not body.is_eof():
            # Nothing can follow a body that has not ended: it is aiohttp's note that it cannot go on.
            self._give_up(body, http_refusals.garbled())

    def begin(self) -> None:
        """A request's headers are here."""
        self._begun = None
        self.idle_since = float("inf")

    def end(self) -> None:
        """It is answered."""
        self.idle_since = self._clock()
        self._body = None
        self.server.bodies_bytes -= self._held
        self._held = 0

    def begin_body(self, body: StreamReader) -> None:
        """Its body is on the way."""
        self._body, self._body_bytes = body, body.total_bytes
        self._body_begun = self._heard = self._clock()

    def end_body(self) -> None:
        """Its body is here.

        Raises:
            HTTPException: it is not, and will not be.
        """
        self._body = None
        if self._refusal is not None:
            raise self._refusal

    def hold(self, size: int) -> None:
        """One more piece of its body.

        Raises:
            HTTPException: it is more than the server holds.
        """
        limits = self.server.limits
        self._held += size
        self.server.bodies_bytes += size
        if self._held > limits.message_bytes:
            raise http_refusals.too_large(limits.message_bytes, self._held)
        if self.server.bodies_bytes > limits.bodies_bytes:
            raise http_refusals.full(limits.bodies_bytes)

    @property
    def receives(self) -> bool:
        """Whether a body is on the way."""
        return self._body is not None

    def check(self, now: float) -> None:
        """Give up what took too long."""
        transport = self.transport
        if transport is None:
            return
        limits = self.server.limits
        if self._body is not None:
            self._check_body(self._body, now)
        elif (unsent := transport.get_write_buffer_size()) != self._unsent:
            self._unsent, self._taken = unsent, now
        elif unsent:
            if now - self._taken > limits.answer_seconds:
                transport.abort()
        elif self._begun is not None and now - self._begun > limits.header_seconds:
            transport.write(http_refusals.LATE_HEADERS)
            self.force_close()

    def _check_body(self, body: StreamReader, now: float) -> None:
        limits = self.server.limits
        if body.total_bytes != self._body_bytes:
            self._body_bytes, self._heard = body.total_bytes, now
        may_take = limits.body_seconds + self._body_bytes / limits.body_rate
        if now - self._heard > limits.body_seconds or now - self._body_begun > may_take:
            self._give_up(body, http_refusals.too_slow(self._body_bytes, now - self._body_begun))

    def _give_up(self, body: StreamReader, refusal: web.HTTPException) -> None:
        """Wait for no more of a body: whoever reads it gets `refusal`."""
        self._body, self._refusal = None, refusal
        self.close()  # then it hears no more
        body.feed_eof()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002
    ) -> web.StreamResponse:
        """The answer to what is no HTTP, and to what broke the server."""
        if request.writer.output_size > 0:
            raise ConnectionError("The answer has begun; there is no other now")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and not isinstance(exc, ConnectionError):
            log.error("The request %s broke the server", request.path, exc_info=exc)
        if isinstance(exc, BadHttpMethod) and re.search(r"b'\S+ \S+ HTTP/1\.[01]'", exc.message):
            # A request line in order, whose method nobody knows (libevent).
            status = HTTPStatus.NOT_IMPLEMENTED
        if isinstance(exc, LineTooLong):
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        return http_refusals.page(status)


class _Request(web.BaseRequest):
    """A request whose body is bounded."""

    def is_http_1(self) -> bool:
        """Whether it is HTTP/1; the answer names no version that the server does not speak."""
        major = self._version.major
        self._version = min(max(self._version, HttpVersion10), HttpVersion11)
        return major == 1

    async def read(self) -> bytes:
        """Its body.

        Raises:
            HTTPException: it is too large, too slow, or in no form that HTTP knows.
        """
        connection = self.protocol
        assert isinstance(connection, _Connection)
        body = self.content
        limits = connection.server.limits
        if (self.content_length or 0) > limits.message_bytes:
            raise http_refusals.too_large(limits.message_bytes, self.content_length or 0)
        pieces = []
        try:
            if not body.is_eof():
                if not connection.connected:
                    raise ConnectionResetError("Nobody is there any more")
                if self.headers.get("Expect", "").lower() == "100-continue":
                    await self._continue()
                connection.begin_body(body)
            while piece := await body.readany():
                connection.hold(len(piece))
                pieces.append(piece)
        except web.RequestPayloadError:
            raise http_refusals.garbled() from None
        connection.end_body()
        return b"".join(pieces)

    async def _prepare_hook(self, resp: web.StreamResponse) -> None:
        """Called before the headers go out: the real server does not say which program it is, nor which version."""
        resp.headers.pop("Server", None)

    async def _continue(self) -> None:
        """What a client that asks first waits for."""
        await self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.writer.output_size = 0
