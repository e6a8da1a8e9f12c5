"""A JSON parser that fails as the real server's does: RapidJSON 1.1.0, iterative, with NaN and infinities.

The standard library's parser is quicker and reads nearly every body; this one
is for the rest, and says where a body goes wrong, and how, in RapidJSON's words.
Numbers come out as there, where the last digit of a double may be off.
"""

import math
import re
from typing import Any

__all__ = ["JsonError", "Members", "members", "parse"]

_SPACE = re.compile(rb"[ \t\r\n]*")
_DIGITS = re.compile(rb"[0-9]*")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_HEX4 = re.compile(rb"[0-9a-fA-F]{4}")
_ESCAPES = {0x22: b'"', 0x5C: b"\\", 0x2F: b"/", 0x62: b"\b", 0x66: b"\f", 0x6E: b"\n", 0x72: b"\r", 0x74: b"\t"}
_LITERALS: dict[int, tuple[bytes, object]] = {0x74: (b"true", True), 0x66: (b"false", False), 0x6E: (b"null", None)}


_TENTH_OF_MOST = 1.7976931348623157e307
_SIGNIFICANT = 17
_EXPONENT_DIGITS = 9


class JsonError(Exception):
    """What is wrong, and at which byte."""

    def __init__(self, words: str, offset: int) -> None:
        super().__init__(f"{words} at offset: {offset}")


class Members(dict[str, Any]):
    """An object in which a name comes more than once: the first of each name, and `pairs`, all of them in order."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(reversed(pairs))
        self.pairs = pairs


def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these members; of two of one name the first counts."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else Members(pairs)


def parse(text: bytes) -> Any:
    """The first value of a text; what follows it is not looked at.

    Objects are made by `members`. Strings come as str, bytes that are no UTF-8 as surrogate escapes.

    Raises:
        JsonError: it is no JSON.
    """
    return _Parser(text).document()


def _scaled(number: float, power: int) -> float:
    """A number times a power of ten, rounded as RapidJSON's quick way rounds it."""
    if power < -308:
        number, power = number / 1e308, power + 308
        if power < -308:
            return 0.0
    return number * float(f"1e{power}") if power >= 0 else number / float(f"1e{-power}")


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
        for byte in _BYTE_ORDER_MARK:
            self._at += self._peek() == byte
        self._skip_space()
        if self._peek() in b"\0]},:":  # anything else is taken for a value
            raise self._fail("The document is empty.")
        stack: list[tuple[list[Any], str | None]] = []
        key: str | None = None  # of the member that is being read; None in a list
        while True:
            byte = self._peek()
            if byte in b"[{" and byte:
                self._at += 1
                self._skip_space()
                if self._peek() != (0x5D if byte == 0x5B else 0x7D):
                    stack.append(([], key))
                    key = self._member_name() if byte == 0x7B else None
                    continue
                self._at += 1
                value: Any = [] if byte == 0x5B else {}
            else:
                value = self._scalar()
            while True:
                if not stack:
                    return value
                items, outer = stack[-1]
                items.append(value if key is None else (key, value))
                is_list = key is None
                if self._goes_on(is_list):
                    key = None if is_list else self._member_name()
                    break
                stack.pop()
                value, key = items if is_list else members(items), outer

    def _goes_on(self, is_list: bool) -> bool:
        """Past a comma, to the next element; or past the closing bracket."""
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
        """A number as RapidJSON reads it when it is not told to be exact: by arithmetic on doubles."""
        start = self._at
        sign = -1 if self._take(b"-") else 1
        byte = self._peek()
        if byte in b"IN" and byte:
            number: int | float = self._not_finite()
        elif byte == 0x30:
            self._at += 1
            number = 0
        elif 0x31 <= byte <= 0x39:
            number = self._whole(2**63 if sign < 0 else 2**64 - 1, start)
        else:
            raise self._fail("Invalid value.")
        digits = self._at - start - (sign < 0) - 1
        if self._peek() in (0x2E, 0x65, 0x45):
            if byte in b"IN":
                number, digits = 0, 0  # what came before the point is forgotten
            number = self._decimal(number, digits, start)
        return sign * number

    def _whole(self, limit: int, start: int) -> int | float:
        """Digits: an integer, or a double where they go beyond 64 bits."""
        digits = self._digits()
        end = min(len(digits), 20)
        while int(digits[:end]) > limit:
            end -= 1
        if end == len(digits):
            return int(digits)
        number = float(int(digits[:end]))
        for digit in digits[end:]:
            if number >= _TENTH_OF_MOST:
                raise self._fail("Number too big to be stored in double.", start)
            number = number * 10 + (digit - 0x30)
        return number

    def _decimal(self, whole: int | float, digits: int, start: int) -> float:
        """The rest of a number with a fraction or an exponent; `digits` of the whole part count as significant."""
        number, scale = float(whole), 0
        if self._take(b"."):
            fraction = self._digits()
            if not fraction:
                raise self._fail("Miss fraction part in number.")
            position = 0
            if isinstance(whole, int):
                while position < len(fraction) and whole < 2**53:
                    whole = whole * 10 + fraction[position] - 0x30
                    digits += whole != 0
                    position += 1
                number = float(whole)
            for digit in fraction[position:]:
                if digits >= _SIGNIFICANT:
                    break
                number = number * 10 + (digit - 0x30)
                digits += number > 0
                position += 1
            scale = -position
        return _scaled(number, scale + self._exponent(308 - scale, start))

    def _exponent(self, most: int, start: int) -> int:
        if not self._take(b"eE"):
            return 0
        negative = self._peek() == 0x2D
        self._take(b"+-")
        digits = self._digits()
        if not digits:
            raise self._fail("Miss exponent in number.")
        exponent = int(digits.lstrip(b"0")[:_EXPONENT_DIGITS] or b"0")
        if negative:
            return -exponent
        if exponent > most and len(digits) > 1:
            raise self._fail("Number too big to be stored in double.", start)
        return exponent

    def _take(self, bytes_: bytes) -> bool:
        """Go past one of these bytes, if one is here."""
        found = self._text[self._at : self._at + 1]
        if not found or found not in bytes_:
            return False
        self._at += 1
        return True

    def _digits(self) -> bytes:
        match = _DIGITS.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return match[0]

    def _not_finite(self) -> float:
        if self._peek() == 0x4E:
            self._word(b"NaN")
            return math.nan
        self._word(b"Inf")
        if self._peek() == 0x69:
            self._word(b"inity")
        return math.inf

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
