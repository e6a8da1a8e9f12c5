"""What the HTTP server says to requests that never reach the REST door; each answer ends its connection."""

from http import HTTPStatus

from aiohttp import web

from tfs_helpers.embedded.answering.json_text import error_text

__all__ = ["BUSY", "LATE_HEADERS", "full", "garbled", "page", "too_large", "too_slow"]

_JSON = {"Content-Type": "application/json"}


def _raw(status: HTTPStatus, words: str) -> bytes:
    """An answer as it goes over the wire, for where aiohttp has none."""
    body = error_text(words).encode()
    return (
        f"HTTP/1.1 {status:d} {status.phrase}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


BUSY = _raw(HTTPStatus.SERVICE_UNAVAILABLE, "The server has as many connections as it takes. Try again later.")
LATE_HEADERS = _raw(HTTPStatus.REQUEST_TIMEOUT, "The request's headers took too long to arrive.")


def too_large(most: int, size: int) -> web.HTTPException:
    """A body of more bytes than may be."""
    words = f"The request's body is larger than {most} bytes, the most that the server takes."
    return _closing(web.HTTPRequestEntityTooLarge(most, size, text=error_text(words), headers=_JSON))


def too_slow(size: int, seconds: float) -> web.HTTPException:
    """A body of which no more has come in this time."""
    words = f"The request's body came too slowly: {size} bytes in {seconds:.0f} s."
    return _closing(web.HTTPRequestTimeout(text=error_text(words), headers=_JSON))


def garbled() -> web.HTTPException:
    """A body in no form that HTTP knows."""
    return _closing(web.HTTPBadRequest(text=error_text("The request's body is no HTTP."), headers=_JSON))


def full(most: int) -> web.HTTPException:
    """There are so many bytes of other bodies."""
    words = f"The server holds {most} bytes of other requests already. Try again later."
    return _closing(web.HTTPServiceUnavailable(text=error_text(words), headers=_JSON))


def page(status: int) -> web.Response:
    """An error page in the form of libevent, on which the real server stands."""
    phrase = HTTPStatus(status).phrase
    body = f"<HTML><HEAD>\n<TITLE>{status:d} {phrase}</TITLE>\n</HEAD><BODY>\n<H1>{phrase}</H1>\n</BODY></HTML>\n"
    answer = web.Response(status=status, body=body.encode(), headers={"Content-Type": "text/html"})
    answer.force_close()
    return answer


def _closing(answer: web.HTTPException) -> web.HTTPException:
    answer.headers["Content-Type"] = "application/json"  # without the charset that aiohttp adds
    answer.force_close()
    return answer
