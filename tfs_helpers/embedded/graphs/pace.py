"""How long something takes, by the size of what it is given: what decides whether it may run where others wait."""

import time

__all__ = ["Pace"]

_WINDOW_SECONDS = 5.0


class Pace:
    """The shortest time seen lately for each size, in powers of two.

    The shortest, since that is what the work itself takes: whatever is longer
    waited for a core or a lock. Lately means in this span of five seconds and the
    one before it, so work that has become slower is seen as such. Read and written
    by any thread, without a lock: what is lost when two write at once is an
    observation.
    """

    def __init__(self) -> None:
        self._now: dict[int, float] = {}
        self._before: dict[int, float] = {}
        self._ends = 0.0

    def note(self, size: int, seconds: float) -> None:
        """Something of `size` bytes took so long."""
        moment = time.monotonic()
        if moment > self._ends:
            self._before, self._now, self._ends = self._now, {}, moment + _WINDOW_SECONDS
        power = size.bit_length()
        known = self._now.get(power)
        if known is None or seconds < known:
            self._now[power] = seconds

    def expected(self, size: int) -> float:
        """The seconds that something of `size` bytes takes; infinity where nothing is known."""
        power = size.bit_length()
        return min(self._now.get(power, float("inf")), self._before.get(power, float("inf")))
