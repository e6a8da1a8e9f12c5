"""Configuration files in protobuf's text format."""

import difflib
import re
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from tfs_helpers import protos
from tfs_helpers.embedded.log import log
from tfs_helpers.embedded.status import Code, ServingError

__all__ = ["read_text_proto"]

# Python's protobuf repeats the line in its words; C++'s does not.
_PLACE = re.compile(r"^(\d+:\d+) :(?: '.*':)?", re.DOTALL)
_NO_FIELD = re.compile(r'Message type "(?P<message>[\w.]+)" has no field named "(?P<field>[^"]*)"')
_NO_VALUE = re.compile(r'Enum type "(?P<enum>[\w.]+)" has no value named (?P<value>\w+)')


def read_text_proto(path: str, message: Any, *, secret: bool = False) -> Any:
    """Fill `message` from a file in text format.

    Args:
        path: the file's.
        message: what it is to be, empty.
        secret: whether nothing of its content may reach the log.

    Raises:
        ServingError: NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT, in the real server's words.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise ServingError(Code.NOT_FOUND, f"{path}; No such file or directory") from None
    except PermissionError:
        raise ServingError(Code.PERMISSION_DENIED, f"{path}; Permission denied") from None
    except IsADirectoryError:
        # It can be opened, and not mapped into memory.
        raise ServingError(Code.NOT_FOUND, f"{path}; No such device") from None
    except OSError as error:
        raise ServingError(Code.INVALID_ARGUMENT, f"{path}; {error.strerror}") from None
    if not content:
        # The real server maps the file into memory, which cannot be done with nothing.
        log.error("%s is empty; a file that holds a comment alone is an empty configuration", path)
        raise ServingError(Code.INVALID_ARGUMENT, f"{path}; Invalid argument")
    try:
        return text_format.Parse(content.decode(), message, descriptor_pool=protos.pool())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        log.error(
            "Error parsing text-format %s: %s", message.DESCRIPTOR.full_name, _explained(str(error), secret=secret)
        )
        raise ServingError(Code.INVALID_ARGUMENT, f"Invalid protobuf file: '{path}'") from None


def _explained(words: str, *, secret: bool) -> str:
    """What protobuf said, and the name that was probably meant where it knows none of that name."""
    words = _PLACE.sub(r"\1:", words)
    field, value = _NO_FIELD.search(words), _NO_VALUE.search(words)
    names: list[str] = []
    if field:
        names = [known.name for known in protos.pool().FindMessageTypeByName(field["message"]).fields]
    elif value:
        names = [known.name for known in protos.pool().FindEnumTypeByName(value["enum"]).values]
    wrong = field["field"] if field else value["value"] if value else ""
    near = difflib.get_close_matches(wrong, names, n=1)
    if secret and not near:
        # Even the name may be a line of a key.
        place = re.match(r"\d+:\d+", words)
        return f"{place[0]}: not understood" if place else "not understood"
    if near:
        return f'{words.removesuffix(".")}; did you mean "{near[0]}"?'
    return f"{words.removesuffix('.')}; it has {', '.join(names)}" if names else words
