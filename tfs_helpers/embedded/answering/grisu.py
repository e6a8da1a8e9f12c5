"""Doubles as RapidJSON 1.1.0 writes them: Florian Loitsch's algorithm Grisu2, and plain digits up to 21 places.

Its digits read back as the double, but need not be the fewest or the nearest
that do: 2**64 becomes `18446744073709553000.0`, where `repr` has a 2. Error texts of
the real server show numbers so.
"""

import math
import struct
from fractions import Fraction
from functools import cache

__all__ = ["double_text"]

_MOST_POWERS = 9


def double_text(value: float) -> str:
    """A finite double as RapidJSON writes it: few digits that read back as it, plain up to 21 places."""
    sign = "-" if math.copysign(1, value) < 0 else ""
    if not value:
        return sign + "0.0"
    digits, scale = _grisu2(abs(value))
    point = len(digits) + scale  # how many of them stand before the decimal point
    if scale >= 0 and point <= 21:
        return f"{sign}{digits}{'0' * scale}.0"
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{point - 1}"


def _grisu2(value: float) -> tuple[str, int]:
    """The digits of a positive double and the power of ten to scale them by, by Florian Loitsch's algorithm Grisu2.

    The result lies between the neighbours' boundaries, but need not be the
    shortest or the nearest that does, so `repr` will not do instead.
    """
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    mantissa, exponent = bits & (2**52 - 1), bits >> 52
    mantissa, exponent = (mantissa + 2**52, exponent - 1075) if exponent else (mantissa, -1074)
    # The value and its upper and lower boundary, all with the exponent that fills 64 bits for the upper one.
    shift = 63 - (2 * mantissa + 1).bit_length() + 1
    upper = (2 * mantissa + 1) << shift
    lower = (4 * mantissa - 1) << (shift - 1) if mantissa == 2**52 else (2 * mantissa - 1) << shift
    exponent -= shift + 1
    own_shift = 64 - mantissa.bit_length()
    power = math.ceil((-61 - exponent) * 0.30102999566398114 + 347) // 8 + 1
    factor, factor_exponent = _power_of_ten(8 * power - 348)
    top, bottom = _product(upper, factor) - 1, _product(lower, factor) + 1
    # The value is scaled with its own exponent, which may differ from the boundaries' by one bit.
    middle = _product(mantissa << own_shift, factor)
    return _digits_between(top, bottom, middle, -(exponent + factor_exponent + 64), 348 - 8 * power)


def _digits_between(top: int, bottom: int, middle: int, fraction: int, scale: int) -> tuple[str, int]:
    """Digits from the front, until what is left of `top` is less than its distance from `bottom`."""
    one = 1 << fraction
    delta, distance = top - bottom, top - middle
    whole, rest = top >> fraction, top & (one - 1)
    digits: list[int] = []
    left = len(str(whole))
    while left > 0:
        left -= 1
        digit, whole = divmod(whole, 10**left)
        if digit or digits:
            digits.append(digit)
        remaining = (whole << fraction) + rest
        if remaining <= delta:
            return _rounded(digits, delta, remaining, 10**left << fraction, distance), scale + left
    while True:
        rest, delta = rest * 10, delta * 10
        digit = rest >> fraction
        if digit or digits:
            digits.append(digit)
        rest &= one - 1
        left -= 1
        if rest < delta:
            distance = distance * 10**-left % 2**64 if left > -_MOST_POWERS else 0
            return _rounded(digits, delta, rest, one, distance), scale + left


def _rounded(digits: list[int], delta: int, rest: int, unit: int, distance: int) -> str:
    """The digits as text, the last one lowered while that comes nearer to the value."""
    while (
        rest < distance
        and delta - rest >= unit
        and (rest + unit < distance or distance - rest > rest + unit - distance)
    ):
        digits[-1] -= 1
        rest += unit
    return "".join(map(str, digits))


def _product(left: int, right: int) -> int:
    """The upper 64 bits of a product, rounded."""
    product = left * right
    return (product >> 64) + (product >> 63 & 1)


@cache
def _power_of_ten(power: int) -> tuple[int, int]:
    """A power of ten as an integer of 64 bits and a power of two, rounded to the nearest."""
    exact = Fraction(10) ** power
    exponent = exact.numerator.bit_length() - exact.denominator.bit_length() - 64
    if exact >= Fraction(2) ** (exponent + 64):
        exponent += 1
    return math.floor(exact / Fraction(2) ** exponent + Fraction(1, 2)), exponent
