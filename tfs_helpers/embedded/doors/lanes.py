"""Where a request is answered: at once on the event loop, or on a thread of its model.

Handing a request to a thread and its answer back costs 0.1 ms, several times
what a small model takes. So what is known to be quick is answered where it
arrives. Nobody waits behind a slow one: what is quick is known from earlier
requests of the same size to the same version, only graphs without loops
count, and a version that took long by surprise is not trusted for a while. All
others have threads by model, so a model that is slow holds up no other.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from tfs_helpers.embedded.graphs.pace import Pace
from tfs_helpers.embedded.models.servable import Servable, State

__all__ = ["Lanes"]

_QUICK = 0.0003
_QUICK_ALONE = 0.003
_SURPRISE = 0.02
_DISTRUST = 1.0
_AT_ONCE = 0.00015  # a client that had its answer asks again later than that; who asks sooner has waited
_CROWDED = 0.05
_SMALL = 2**13

T = TypeVar("T")


class _Lane:
    """What is known of one version."""

    def __init__(self) -> None:
        self.pace = Pace()
        self.surprises = 0
        self.trusted_from = 0.0

    def surprise(self) -> None:
        """It took long where others waited: not again soon, and later each time."""
        self.surprises += 1
        self.trusted_from = time.monotonic() + _DISTRUST * 4**self.surprises


class Lanes:
    """The ways through the server.

    Args:
        threads: how many requests to one model run at the same time; others wait for their turn.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self._last: dict[str, Servable] = {}
        self._lanes: WeakKeyDictionary[Servable, _Lane] = WeakKeyDictionary()
        self._inside = 0
        self._left = 0.0
        self._crowded_until = 0.0

    async def answer(self, servable: Servable | None, size: int, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` for a request of `size` bytes, to this version if any answers; on the loop or on a thread."""
        if servable is None:
            if size <= _SMALL:
                return function(*arguments)
            return await self._on_thread("other", function, *arguments)
        lane = self._lanes.get(servable)
        if lane is None:
            lane = self._lanes[servable] = _Lane()
        self._inside += 1
        try:
            if await self._may_run_here(servable, lane, size):
                answer = _here(lane, size, function, *arguments)
                self._left = time.monotonic()
                if self._inside > 1:
                    await asyncio.sleep(0)
                return answer
            kind = f"infer-{servable.name}"
            self._last[kind] = servable
            return await self._on_thread(kind, _timed, lane.pace, size, function, *arguments)
        finally:
            self._inside -= 1

    async def _may_run_here(self, servable: Servable, lane: _Lane, size: int) -> bool:
        runner = servable.runner
        now = time.monotonic()
        if runner is None or not runner.is_bounded or now < lane.trusted_from:
            return False
        expected = lane.pace.expected(size)
        if expected > _QUICK_ALONE or (expected > _QUICK and self._is_crowded(now)):
            return False
        # Whoever arrived in the same turn of the loop comes in meanwhile. Then all of them are answered, and only then
        # do the answers go out, which wakes their reader once.
        await asyncio.sleep(0)
        return expected <= _QUICK or self._inside == 1

    def _is_crowded(self, now: float) -> bool:
        """Whether requests come side by side, so that they had better run so too."""
        if self._inside > 1 or now - self._left < _AT_ONCE:
            self._crowded_until = now + _CROWDED
        return now < self._crowded_until

    async def _on_thread(self, kind: str, function: Callable[..., T], *arguments: Any) -> T:
        pool = self._pools.get(kind)
        if pool is None:
            self._drop_ended()
            pool = self._pools[kind] = ThreadPoolExecutor(self._threads, thread_name_prefix=kind)
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)

    def _drop_ended(self) -> None:
        """Let the threads go of models whose version that used them last is not served any more."""
        for kind in [kind for kind, servable in self._last.items() if servable.state == State.END]:
            del self._last[kind]
            self._pools.pop(kind).shutdown(wait=False)

    async def on_thread(self, function: Callable[..., T], *arguments: Any, lane: str = "other") -> T:
        """Call `function` on a thread that belongs to no model."""
        return await self._on_thread(lane, function, *arguments)

    def close(self) -> None:
        """Wait for what is inside, and end the threads."""
        for pool in self._pools.values():
            pool.shutdown()


def _here(lane: _Lane, size: int, function: Callable[..., T], *arguments: Any) -> T:
    started = time.perf_counter()
    try:
        answer = function(*arguments)
        # What is refused is refused quickly, and says nothing of what is not.
        lane.pace.note(size, time.perf_counter() - started)
    finally:
        if time.perf_counter() - started > _SURPRISE:
            lane.surprise()
    return answer


def _timed(pace: Pace, size: int, function: Callable[..., T], *arguments: Any) -> T:
    started = time.perf_counter()
    answer = function(*arguments)
    pace.note(size, time.perf_counter() - started)
    return answer
