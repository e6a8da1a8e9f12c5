"""Configuration files in protobuf's text format."""

from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfs_helpers import protos
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["read_text_proto"]


def read_text_proto(path: str, message: Any) -> Any:
    """Fill `message` from a file in text format.

    Raises:
        ServingError: NOT_FOUND or INVALID_ARGUMENT, in the real server's words.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ServingError(Code.NOT_FOUND, f"{path}; No such file or directory") from None
    except OSError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path}; {error.strerror}") from None
    except UnicodeDecodeError:
        log.error("Error parsing text-format %s: %s is not UTF-8", message.DESCRIPTOR.full_name, path)
        raise ServingError(Code.INVALID_ARGUMENT, f"Invalid protobuf file: '{path}'") from None
    try:
        return text_format.Parse(text, message, descriptor_pool=protos.pool())
    except text_format.ParseError as error:
        log.error("Error parsing text-format %s: %s", message.DESCRIPTOR.full_name, error)
        raise ServingError(Code.INVALID_ARGUMENT, f"Invalid protobuf file: '{path}'") from None
