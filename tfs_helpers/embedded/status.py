"""The canonical status codes, and the error that carries one through the server to either door."""

from enum import IntEnum

__all__ = ["Code", "ServingError", "refused"]


class Code(IntEnum):
    """Canonical codes: the numbers of gRPC, of absl and of TensorFlow's C API alike."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServingError(Exception):
    """A request, a load or a configuration that is refused, in the real server's words."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        """As absl prints a status: `NOT_FOUND: words`."""
        return f"{self.code.name}: {self.message}"


def refused(message: str) -> ServingError:
    """The usual error: INVALID_ARGUMENT."""
    return ServingError(Code.INVALID_ARGUMENT, message)
