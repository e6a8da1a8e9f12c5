"""A JSON parser that fails as the real server's does: RapidJSON 1.1.0, iterative, with NaN and infinities.

The standard library's parser is quicker and reads nearly every body; this one
is for the rest, and says where a body goes wrong, and how, in RapidJSON's words.
"""

import math
import re
from typing import Any

__all__ = ["JsonError", "parse"]

_SPACE = re.compile(rb"[ \t\r\n]*")
_DIGITS = re.compile(rb"[0-9]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(rb"[0-9a-fA-F]{4}")
_ESCAPES = {0x22: b'"', 0x5C: b"\\", 0x2F: b"/", 0x62: b"\b", 0x66: b"\f", 0x6E: b"\n", 0x72: b"\r", 0x74: b"\t"}
_LITERALS: dict[int, tuple[bytes, object]] = {0x74: (b"true", True), 0x66: (b"false", False), 0x6E: (b"null", None)}


class JsonError(Exception):
    """What is wrong, and at which byte."""

    def __init__(self, words: str, offset: int) -> None:
        super().__init__(f"{words} at offset: {offset}")


def parse(text: bytes) -> Any:
    """The first value of a text; what follows it is not looked at.

    Of two members of one name the first counts. Strings come as str, bytes that are no UTF-8 as surrogate escapes.

    Raises:
        JsonError: it is no JSON.
    """
    return _Parser(text).document()


class _Parser:
    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0

    def _fail(self, words: str, offset: int | None = None) -> JsonError:
        return JsonError(words, self._at if offset is None else offset)

    def _peek(self) -> int:
        """The byte here; 0 at the end, as RapidJSON's streams have it."""
        return self._text[self._at] if self._at < len(self._text) else 0

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def document(self) -> Any:
        """The whole: containers that are open are kept on a stack, so any depth will do."""
        self._skip_space()
        if self._at >= len(self._text):
            raise self._fail("The document is empty.")
        stack: list[tuple[Any, str]] = []
        key = ""
        value: Any = None
        while True:
            byte = self._peek()
            if byte in b"[{" and byte:
                self._at += 1
                self._skip_space()
                container: Any = [] if byte == 0x5B else {}
                if self._peek() != (0x5D if byte == 0x5B else 0x7D):
                    stack.append((container, key))
                    if byte == 0x7B:
                        key = self._member_name()
                    continue
                self._at += 1
                value = container
            else:
                value = self._scalar()
            while True:
                if not stack:
                    return value
                container, outer = stack[-1]
                if isinstance(container, list):
                    container.append(value)
                else:
                    container.setdefault(key, value)
                if self._goes_on(container):
                    if isinstance(container, dict):
                        key = self._member_name()
                    break
                stack.pop()
                value, key = container, outer

    def _goes_on(self, container: Any) -> bool:
        """Past a comma, to the next element; or past the closing bracket."""
        is_list = isinstance(container, list)
        self._skip_space()
        byte = self._peek()
        if byte == 0x2C:
            self._at += 1
            self._skip_space()
            return True
        if byte == (0x5D if is_list else 0x7D):
            self._at += 1
            return False
        if is_list:
            raise self._fail("Missing a comma or ']' after an array element.")
        raise self._fail("Missing a comma or '}' after an object member.")

    def _member_name(self) -> str:
        if self._peek() != 0x22:
            raise self._fail("Missing a name for object member.")
        name = self._string()
        self._skip_space()
        if self._peek() != 0x3A:
            raise self._fail("Missing a colon after a name of object member.")
        self._at += 1
        self._skip_space()
        return name

    def _scalar(self) -> Any:
        byte = self._peek()
        if byte == 0x22:
            return self._string()
        if byte in _LITERALS:
            word, value = _LITERALS[byte]
            self._word(word)
            return value
        return self._number()

    def _word(self, word: bytes) -> None:
        for byte in word:
            if self._peek() != byte:
                raise self._fail("Invalid value.")
            self._at += 1

    def _number(self) -> int | float:
        start = self._at
        if self._peek() == 0x2D:
            self._at += 1
        byte = self._peek()
        if byte in b"IN" and byte:
            return self._not_finite(start)
        if not 0x30 <= byte <= 0x39:
            raise self._fail("Invalid value.")
        if byte == 0x30:
            self._at += 1
        else:
            self._digits()
        whole = True
        if self._peek() == 0x2E:
            whole = False
            self._at += 1
            if not self._digits():
                raise self._fail("Miss fraction part in number.")
        if self._peek() in (0x65, 0x45):
            whole = False
            self._at += 1
            if self._peek() in (0x2B, 0x2D):
                self._at += 1
            if not self._digits():
                raise self._fail("Miss exponent in number.")
        text = self._text[start : self._at]
        number = float(text)
        if math.isinf(number):
            raise self._fail("Number too big to be stored in double.", start)
        # Beyond 64 bits an integer is a double.
        if whole and len(text) <= 20 and -(2**63) <= int(text) < 2**64:
            return int(text)
        return number

    def _digits(self) -> bool:
        match = _DIGITS.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return bool(match[0])

    def _not_finite(self, start: int) -> float:
        negative = self._text[start] == 0x2D
        if self._peek() == 0x4E:
            self._word(b"NaN")
            return math.nan
        self._word(b"Inf")
        if self._peek() == 0x69:
            self._word(b"inity")
        return -math.inf if negative else math.inf

    def _string(self) -> str:
        self._at += 1
        parts: list[bytes] = []
        while True:
            match = _PLAIN.match(self._text, self._at)
            assert match is not None
            parts.append(match[0])
            self._at = match.end()
            byte = self._peek()
            if byte == 0x22:
                self._at += 1
                return b"".join(parts).decode(errors="surrogateescape")
            if byte == 0x5C:
                parts.append(self._escape())
            elif byte == 0:
                raise self._fail("Missing a closing quotation mark in string.")
            else:
                raise self._fail("Invalid escape character in string.")

    def _escape(self) -> bytes:
        start = self._at
        self._at += 1
        byte = self._peek()
        if byte in _ESCAPES:
            self._at += 1
            return _ESCAPES[byte]
        if byte != 0x75:
            raise self._fail("Invalid escape character in string.", start)
        self._at += 1
        point = self._hex4(start)
        if 0xD800 <= point <= 0xDBFF:
            if self._text[self._at : self._at + 2] != b"\\u":
                raise self._fail("The surrogate pair in string is invalid.", start)
            self._at += 2
            low = self._hex4(start)
            if not 0xDC00 <= low <= 0xDFFF:
                raise self._fail("The surrogate pair in string is invalid.", start)
            point = 0x10000 + (point - 0xD800) * 0x400 + low - 0xDC00
        return chr(point).encode(errors="surrogatepass")

    def _hex4(self, start: int) -> int:
        match = _HEX4.match(self._text, self._at)
        if match is None:
            raise self._fail("Incorrect hex digit after \\u escape in string.", start)
        self._at = match.end()
        return int(match[0], 16)
