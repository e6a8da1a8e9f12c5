"""Where requests run: quick ones at once, slow ones where they hold up nobody."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tfs_helpers import RunningServer
from tfs_helpers.embedded.doors.lanes import Lanes
from tfs_helpers.embedded.graphs import pace
from tfs_helpers.embedded.graphs.pace import Pace
from tfs_helpers.embedded.graphs.session import Session
from tfs_helpers.embedded.loading.loader import Loader, LoadOptions
from tfs_helpers.embedded.models.core import ServerCore
from tfs_helpers.embedded.models.manager import ManagerOptions
from tfs_helpers.embedded.models.model_config import single_model
from tfs_helpers.embedded.models.servable import Servable
from tfs_helpers.embedded.status import Code, ServingError
from tfs_helpers.errors import DeadlineExceeded


def loaded(folder: Path) -> Session:
    return Session(str(folder))


# ---- the pace


def test_the_shortest_time_of_each_size_counts() -> None:
    known = Pace()
    assert known.expected(10) == float("inf")
    for seconds in (0.5, 0.2, 0.9):
        known.note(10, seconds)
    assert known.expected(10) == known.expected(15) == 0.2
    assert known.expected(16) == known.expected(7) == float("inf")


def test_what_was_quick_long_ago_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_WINDOW_SECONDS", 0.05)
    known = Pace()
    known.note(10, 0.001)
    for _ in range(4):
        time.sleep(0.06)
        known.note(10, 1.0)
    assert known.expected(10) == 1.0


# ---- what is trusted


def test_graphs_with_loops_are_never_trusted_to_be_quick(rich_models: Path, models: Path) -> None:
    assert loaded(models / "half_plus_two" / "1").is_bounded
    assert loaded(models / "eye1_encoder" / "1").is_bounded
    assert not loaded(rich_models / "oddities" / "1").is_bounded  # it holds a while loop


def test_a_run_on_the_callers_thread_gives_the_same(models: Path) -> None:
    session = loaded(models / "eye1_encoder" / "1")
    signature = session.signatures["serving_default"]
    feeds = {signature.inputs["input_1"]: np.random.default_rng(0).random((1, 128, 128, 1), dtype="f4")}
    fetches = list(signature.outputs.values())
    first = session.run(feeds, fetches)  # nothing is known yet: on TensorFlow's threads
    for timeout in (None, 30.0):
        for _ in range(3):
            np.testing.assert_allclose(session.run(feeds, fetches, timeout)[0], first[0], rtol=1e-5)


class Lane:
    """Lanes with one loaded version, and the threads that its requests ran on."""

    def __init__(self, core: ServerCore) -> None:
        self.lanes = Lanes(4)
        servable = core.manager.latest("m")
        assert servable is not None
        self.servable: Servable = servable

    async def thread_of(self, seconds: float = 0.0, size: int = 10) -> str:
        def work() -> str:
            time.sleep(seconds)
            return threading.current_thread().name

        return await self.lanes.answer(self.servable, size, work)


@pytest.fixture
def core(models: Path) -> Iterator[ServerCore]:
    core = ServerCore({"tensorflow": Loader(LoadOptions())}, ManagerOptions())
    core.start()
    core.reload(single_model("m", str(models / "half_plus_two")))
    yield core
    core.close()


def test_the_first_request_of_a_size_goes_to_a_thread_and_the_next_stay(core: ServerCore) -> None:
    async def story() -> list[str]:
        lane = Lane(core)
        names = [await lane.thread_of() for _ in range(3)] + [await lane.thread_of(size=100_000)]
        lane.lanes.close()
        return names

    first, second, third, larger = asyncio.run(story())
    assert first.startswith("infer-m_")
    assert second == third == "MainThread"
    assert larger.startswith("infer-m_")


def test_what_takes_long_goes_to_a_thread_and_who_surprised_is_not_trusted(core: ServerCore) -> None:
    async def story() -> list[str]:
        lane = Lane(core)
        await lane.thread_of()
        names = [await lane.thread_of(0.05), await lane.thread_of()]
        lane.lanes.close()
        return names

    surprising, after = asyncio.run(story())
    assert surprising == "MainThread"
    assert after.startswith("infer-m_")


def test_what_is_refused_says_nothing_of_what_is_not(core: ServerCore) -> None:
    async def story() -> str:
        lane = Lane(core)

        def refuse() -> None:
            raise ServingError(Code.INVALID_ARGUMENT, "no")

        for _ in range(3):
            with pytest.raises(ServingError):
                await lane.lanes.answer(lane.servable, 10, refuse)
        name = await lane.thread_of()
        lane.lanes.close()
        return name

    assert asyncio.run(story()).startswith("infer-m_")


# ---- the server


def test_a_slow_model_holds_up_no_other(rich_server: RunningServer) -> None:
    slow_calls = 40  # more than any one model has threads
    clients = rich_server.grpc(), rich_server.rest()
    identity = np.ones(3, "f4")
    for client in clients:
        client.predict("identity_float32", identity)

    def slow(_: int) -> bool:
        with pytest.raises(DeadlineExceeded):
            rich_server.grpc().predict("oddities", [1e12], signature="slow", timeout=3)
        return True

    with ThreadPoolExecutor(slow_calls) as callers:
        inside = [callers.submit(slow, index) for index in range(slow_calls)]
        time.sleep(0.5)
        assert not any(call.done() for call in inside)
        for client in clients:
            for _ in range(10):
                client.predict("identity_float32", identity, timeout=1)
                client.status("oddities", timeout=1)
        assert not any(call.done() for call in inside)
        assert all(call.result() for call in inside)
