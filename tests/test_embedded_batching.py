"""Server-side batching: how calls are gathered, run and answered together, and what is said where they cannot be."""

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from served_models import DTYPES, export_graph
from test_embedded_server import answers, process, run, until

from tfs_helpers import dtypes, protos
from tfs_helpers.client import GrpcClient, RestClient
from tfs_helpers.embedded.batching.options import BatchingOptions, batching_options
from tfs_helpers.embedded.batching.scheduler import BatchScheduler
from tfs_helpers.embedded.batching.session import BatchingSession
from tfs_helpers.embedded.graphs.runner import Runner
from tfs_helpers.embedded.graphs.session import Session
from tfs_helpers.embedded.status import Code, ServingError
from tfs_helpers.errors import CallError

Answer = dict[str, np.ndarray]
Calling = Future[Answer]
FOR_EVER = "batch_timeout_micros { value: 60000000 }"
FULL = "The batch scheduling queue to which this task was submitted is full; "


def options(text: str = "") -> BatchingOptions:
    parameters: Any = text_format.Parse(text, protos.BatchingParameters(), descriptor_pool=protos.pool())
    return batching_options(parameters)


def ask(session: Runner, signature: str, inputs: Mapping[str, Any], timeout: float | None = None) -> Answer:
    """Run a signature by its names; floats unless they are arrays."""
    definition = session.signatures[signature].definition
    feeds = {
        definition.inputs[key].name: value if isinstance(value, np.ndarray) else np.array(value, "f4")
        for key, value in inputs.items()
    }
    fetched = session.run(feeds, [info.name for info in definition.outputs.values()], timeout)
    return dict(zip(definition.outputs, fetched, strict=True))


class Gate:
    """Sees the batches of a session, and may hold the thread that is about to run one."""

    def __init__(self, order: "list[tuple[Gate, int]] | None" = None) -> None:
        self.order = [] if order is None else order
        self.open = threading.Event()
        self.open.set()
        self.batches: list[tuple[int, int]] = []
        self.requests: list[tuple[int, int]] = []
        self.queued: list[float] = []
        self.runs = 0

    def request(self, size: int, tensors: int) -> None:
        self.requests.append((size, tensors))

    def queuing(self, seconds: float) -> None:
        self.queued.append(seconds)

    def batch(self, processed_size: int, padding: int) -> None:
        self.batches.append((processed_size, padding))
        self.order.append((self, processed_size))
        assert self.open.wait(20)

    def run(self) -> None:
        self.runs += 1


class Scheduler(BatchScheduler):
    """Says when a task has come into its queue, or could not."""

    def __init__(self, by: BatchingOptions) -> None:
        super().__init__(by)
        self.caller = threading.local()

    def schedule(self, *arguments: Any) -> Any:
        try:
            return super().schedule(*arguments)
        finally:
            if came := getattr(self.caller, "came", None):
                came.set()


class Batching:
    """A scheduler, and threads that call its sessions."""

    def __init__(self, text: str) -> None:
        self.options = options(text)
        self.scheduler = Scheduler(self.options)
        self.callers = ThreadPoolExecutor(64)

    def session(self, folder: Path, gate: Gate | None = None) -> BatchingSession:
        return BatchingSession(Session(str(folder)), self.scheduler, self.options, gate)

    def start(self, function: Callable[..., Any], *arguments: Any) -> "Future[Any]":
        """A call that has come into its queue, or is over."""
        came = threading.Event()

        def work() -> Any:
            self.scheduler.caller.came = came
            return function(*arguments)

        calling = self.callers.submit(work)
        calling.add_done_callback(lambda _: came.set())
        assert came.wait(20)
        return calling

    def call(self, *arguments: Any) -> Calling:
        """`start` of `ask`."""
        return self.start(ask, *arguments)

    def hold(self, gate: Gate, *arguments: Any) -> Calling:
        """A call that is about to be run, and is not until the gate is opened."""
        count = len(gate.batches)
        gate.open.clear()
        calling = self.callers.submit(ask, *arguments)
        until(lambda: len(gate.batches) > count)
        return calling


@contextmanager
def batching(text: str = "") -> Iterator[Batching]:
    it = Batching(text)
    try:
        yield it
    finally:
        it.scheduler.close()
        it.callers.shutdown()


def _whole(v1: Any) -> Any:
    """What shows each request the whole batch."""
    x = v1.placeholder("float32", (None,), name="x")
    text = v1.placeholder("string", (None,), name="text")
    total = v1.reduce_sum(x)
    joined = v1.strings.reduce_join(text, separator=" ")
    return {
        "serving_default": ({"x": x}, {"total": v1.zeros_like(x) + total}),
        "joined": ({"text": text}, {"joined": v1.fill(v1.shape(text), joined)}),
        "one": ({"x": x}, {"one": v1.reshape(total, (1,))}),
        "none": ({"x": x}, {"none": v1.identity(total)}),
    }


Folders = Callable[[str], Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, rich_models: Path) -> Folders:
    """From a model's name to the folder of its version 1."""
    own = tmp_path_factory.mktemp("batching")
    export_graph(own / "whole" / "1", _whole)
    return lambda name: (own if name == "whole" else rich_models) / name / "1"


def total(calling: Calling) -> list[float]:
    values: list[float] = calling.result(20)["total"].tolist()
    return values


# ---- what the configuration says


def test_defaults_are_the_real_ones() -> None:
    plain = options()
    assert (plain.max_batch_size, plain.batch_timeout_micros, plain.max_enqueued_batches) == (1000, 0, 10)
    assert (plain.thread_pool_name, plain.allowed_batch_sizes) == ("batch_threads", ())
    assert not plain.pad_variable_length_inputs
    assert not plain.enable_large_batch_splitting
    assert plain.num_batch_threads >= 1
    assert batching_options(None).thread_pool_name == "model_server_batch_threads"
    assert options("max_batch_size { value: 7 }").max_execution_batch_size == 7


def test_no_threads_are_refused_at_the_start() -> None:
    with pytest.raises(ServingError, match=r"^INVALID_ARGUMENT: num_batch_threads must be positive; was 0$"):
        BatchScheduler(options("num_batch_threads { value: 0 }"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max_batch_size { value: 0 }", "input_batch_size_limit must be positive; was 0"),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
        (
            "max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]",
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; expected 8",
        ),
        (
            "enable_large_batch_splitting { value: true } max_enqueued_batches { value: 0 }",
            "max_enqueued_batches must be positive; was 0",
        ),
        (
            (
                "enable_large_batch_splitting { value: true } "
                "max_batch_size { value: 4 } max_execution_batch_size { value: 8 }"
            ),
            (
                "When enable_large_batch_splitting is true, input_batch_size_limit must be greater than or equal to "
                "max_execution_batch_size.148"
            ),
        ),
        (
            "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 0 }",
            "max_execution_batch_size must be positive; was 0",
        ),
    ],
)
def test_what_no_model_can_be_batched_by_is_refused_when_one_is_loaded(folders: Folders, text: str, words: str) -> None:
    with batching(text) as it, pytest.raises(ServingError) as caught:
        it.session(folders("whole"))
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, words)


@pytest.mark.parametrize("text", ["max_batch_size { value: -1 }", "max_enqueued_batches { value: 0 }"])
def test_what_the_real_server_lets_pass_is_served(folders: Folders, text: str) -> None:
    with batching(text) as it:
        assert total(it.call(it.session(folders("whole")), "serving_default", {"x": [1, 2]})) == [3, 3]


# ---- when a batch runs


def test_a_full_batch_runs_at_once(folders: Folders) -> None:
    gate = Gate()
    with batching(f"max_batch_size {{ value: 4 }} {FOR_EVER}") as it:
        session = it.session(folders("whole"), gate)
        calls = [it.call(session, "serving_default", {"x": values}) for values in ([1], [2, 3], [4])]
        assert [total(each) for each in calls] == [[10], [10, 10], [10]]
    assert gate.batches == [(4, 0)]
    assert gate.requests == [(1, 1), (2, 1), (1, 1)]
    assert (len(gate.queued), gate.runs) == (3, 1)


def test_what_does_not_fit_closes_the_batch_and_opens_another(folders: Folders) -> None:
    gate = Gate()
    with batching(f"max_batch_size {{ value: 4 }} {FOR_EVER}") as it:
        session = it.session(folders("whole"), gate)
        first = it.call(session, "serving_default", {"x": [1, 2, 3]})
        second = it.call(session, "serving_default", {"x": [4, 5]})
        assert total(first) == [6, 6, 6]
        assert not second.done()
        third = it.call(session, "serving_default", {"x": [6, 7]})
        assert total(second) == total(third) == [22, 22]
    assert gate.batches == [(3, 0), (4, 0)]


def test_a_batch_waits_no_longer_than_its_time(folders: Folders) -> None:
    with batching("batch_timeout_micros { value: 50000 }") as it:
        session = it.session(folders("whole"))
        started = time.monotonic()
        assert total(it.call(session, "serving_default", {"x": [1]})) == [1]
        assert 0.05 <= time.monotonic() - started < 10


def test_without_waiting_a_batch_is_what_came_while_the_threads_were_busy(folders: Folders) -> None:
    gate = Gate()
    with batching("num_batch_threads { value: 1 }") as it:
        session = it.session(folders("whole"), gate)
        held = it.hold(gate, session, "serving_default", {"x": [100]})
        calls = [it.call(session, "serving_default", {"x": [number]}) for number in range(5)]
        gate.open.set()
        assert total(held) == [100]
        assert [total(each) for each in calls] == [[10]] * 5
    assert gate.batches == [(1, 0), (5, 0)]


def test_as_many_batches_run_at_once_as_there_are_threads(folders: Folders) -> None:
    gate = Gate()
    with batching("num_batch_threads { value: 3 } max_batch_size { value: 1 }") as it:
        session = it.session(folders("whole"), gate)
        held = [it.hold(gate, session, "serving_default", {"x": [number]}) for number in range(3)]
        waiting = it.call(session, "serving_default", {"x": [3]})
        assert len(gate.batches) == 3
        gate.open.set()
        assert [total(each) for each in [*held, waiting]] == [[0], [1], [2], [3]]


def test_calls_that_feed_or_fetch_other_tensors_do_not_share_a_batch(folders: Folders) -> None:
    gate = Gate()
    with batching(f"max_batch_size {{ value: 2 }} {FOR_EVER}") as it:
        session = it.session(folders("mixed"), gate)
        x = {
            "features:0": np.ones((1, 2), "f4"),
            "count:0": np.array([3], "i4"),
            "label:0": np.array([b"a"], object),
        }
        calls = [
            it.callers.submit(session.run, x, fetches)
            for fetches in (["mul:0", "Equal:0"], ["mul:0"], ["Equal:0", "mul:0"], ["mul:0"])
        ]
        assert [[array.tolist() for array in each.result(20)] for each in calls] == [
            [[6.0], [False]], [[6.0]], [[False], [6.0]], [[6.0]]
        ]  # fmt: skip
    assert gate.batches == [(2, 0), (2, 0)]
    assert set(gate.requests) == {(1, 3)}


def test_queues_take_turns(folders: Folders) -> None:
    """One model's long queue holds up another by one batch at most."""
    order: list[tuple[Gate, int]] = []
    busy, calm = Gate(order), Gate(order)
    with batching("num_batch_threads { value: 1 } max_batch_size { value: 1 }") as it:
        one, other = it.session(folders("whole"), busy), it.session(folders("whole"), calm)
        held = it.hold(busy, one, "serving_default", {"x": [0]})
        many = [it.call(one, "serving_default", {"x": [number]}) for number in range(1, 9)]
        single = it.call(other, "serving_default", {"x": [9]})
        busy.open.set()
        assert [total(each) for each in [held, *many, single]] == [[number] for number in range(10)]
        assert [owner for owner, _ in order[:4]].count(calm) == 1


def test_a_model_that_is_stuck_leaves_the_other_threads_to_others(folders: Folders) -> None:
    gate = Gate()
    with batching("num_batch_threads { value: 2 } max_batch_size { value: 1 }") as it:
        stuck, free = it.session(folders("whole"), gate), it.session(folders("whole"))
        held = it.hold(gate, stuck, "serving_default", {"x": [1]})
        for number in range(20):
            assert total(it.call(free, "serving_default", {"x": [number]})) == [number]
        gate.open.set()
        assert total(held) == [1]


def test_who_is_run_by_no_caller_does_not_wait_for_a_thread_that_is_busy(folders: Folders) -> None:
    gate = Gate()
    with batching("num_batch_threads { value: 2 } batch_timeout_micros { value: 50000 }") as it:
        stuck, free = it.session(folders("whole"), gate), it.session(folders("whole"))
        gate.open.clear()
        held, waits = (it.call(each, "serving_default", {"x": [1]}) for each in (stuck, free))
        assert total(waits) == [1]
        assert not held.done()
        gate.open.set()
        assert total(held) == [1]


def test_no_caller_runs_a_batch_that_it_is_not_in(folders: Folders) -> None:
    gate = Gate()
    with batching(f"max_batch_size {{ value: 4 }} num_batch_threads {{ value: 2 }} {FOR_EVER}") as it:
        session = it.session(folders("whole"), gate)
        gate.open.clear()
        first = it.call(session, "serving_default", {"x": [1, 2, 3]})
        second = it.call(session, "serving_default", {"x": [4, 5]})
        until(lambda: gate.batches == [(3, 0)])
        gate.open.set()
        third = it.call(session, "serving_default", {"x": [6, 7]})
        assert [total(each) for each in (first, second, third)] == [[6] * 3, [22] * 2, [22] * 2]


def test_callers_in_a_hurry_leave_others_their_turn(folders: Folders) -> None:
    order: list[tuple[Gate, int]] = []
    busy, calm = Gate(order), Gate(order)
    with batching("num_batch_threads { value: 1 } max_batch_size { value: 1 }") as it:
        one, other = it.session(folders("whole"), busy), it.session(folders("whole"), calm)
        stop = threading.Event()

        def hurry() -> None:
            while not stop.is_set():
                ask(one, "serving_default", {"x": [1]})

        hurrying = [it.callers.submit(hurry) for _ in range(3)]
        passed = []
        for number in range(30):
            waits = it.call(other, "serving_default", {"x": [number]})
            came = len(order)
            assert total(waits) == [number]
            turn = max(index for index, (owner, _) in enumerate(list(order)) if owner is calm)
            passed.append(turn - came)
        stop.set()
        assert [each.result(20) for each in hurrying] == [None] * 3
    assert max(passed) <= 2


def test_waiting_costs_no_processor_time(folders: Folders) -> None:
    with batching(FOR_EVER) as it:
        session = it.session(folders("whole"))
        calls = [it.call(session, name, {"x": [1]}) for name in ("serving_default", "one")]
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1
        session.close()
        assert [len(each.result(20)) for each in calls] == [1, 1]


def test_waiting_for_a_free_thread_costs_no_processor_time(folders: Folders) -> None:
    gate = Gate()
    text = "max_batch_size { value: 2 } num_batch_threads { value: 1 } batch_timeout_micros { value: 200000 }"
    with batching(text) as it:
        session, other = it.session(folders("whole"), gate), it.session(folders("whole"))
        waits = it.call(other, "serving_default", {"x": [1]})
        held = it.hold(gate, session, "serving_default", {"x": [1, 2]})
        time.sleep(0.25)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1
        assert not waits.done()
        gate.open.set()
        assert (total(held), total(waits)) == ([3, 3], [1])


# ---- what is refused


def refusal(calling: Calling) -> tuple[Code, str]:
    with pytest.raises(ServingError) as caught:
        calling.result(20)
    return caught.value.code, caught.value.message


def test_inputs_that_cannot_be_batched_are_refused(folders: Folders) -> None:
    with batching("max_batch_size { value: 4 }") as it:
        session = it.session(folders("mixed"))
        one, two = np.ones(1, "i4"), np.ones(2, "i4")
        for feeds, words in [
            ({}, "Batching Run() must have at least one input tensor"),
            ({"count:0": np.array(1, "i4")}, "Batching Run() input tensors must have at least one dimension"),
            ({"a:0": one, "count:0": two}, "Batching Run() input tensors must have equal 0th-dimension size"),
            ({"count:0": np.ones(5, "i4")}, "Task size 5 is larger than maximum input batch size 4"),
        ]:
            with pytest.raises(ServingError) as caught:
                session.run(feeds, ["Equal:0"])
            assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, words)


def test_a_full_queue_refuses_and_goes_on(folders: Folders) -> None:
    gate = Gate()
    with batching("num_batch_threads { value: 1 } max_batch_size { value: 2 } max_enqueued_batches { value: 2 }") as it:
        session = it.session(folders("whole"), gate)
        held = it.hold(gate, session, "serving_default", {"x": [1]})
        queued = [it.call(session, "serving_default", {"x": [number, number]}) for number in (2, 3)]
        refused = it.call(session, "serving_default", {"x": [4]})
        assert refusal(refused) == (
            Code.UNAVAILABLE,
            FULL + "currently 2 batches enqueued and max_enqueued_batches is 2",
        )
        gate.open.set()
        assert [total(each) for each in [held, *queued]] == [[1], [4, 4], [6, 6]]
        assert total(it.call(session, "serving_default", {"x": [5]})) == [5]


def test_no_queued_batches_means_one(folders: Folders) -> None:
    gate = Gate()
    with batching("num_batch_threads { value: 1 } max_batch_size { value: 1 } max_enqueued_batches { value: 0 }") as it:
        session = it.session(folders("whole"), gate)
        calls = [it.hold(gate, session, "serving_default", {"x": [1]}), it.call(session, "serving_default", {"x": [2]})]
        refused = it.call(session, "serving_default", {"x": [3]})
        assert refusal(refused)[1] == FULL + "currently 1 batches enqueued and max_enqueued_batches is 1"
        gate.open.set()
        assert [total(each) for each in calls] == [[1], [2]]


def test_who_waits_too_long_is_told_so_unless_the_batch_is_run_for_another(folders: Folders) -> None:
    gate = Gate()
    with batching("num_batch_threads { value: 1 }") as it:
        session = it.session(folders("whole"), gate)
        held = it.hold(gate, session, "serving_default", {"x": [1]})
        late = [it.call(session, "serving_default", {"x": [2]}, 0.01), it.call(session, "one", {"x": [2]}, 0.01)]
        patient = it.call(session, "serving_default", {"x": [3]}, 30)
        time.sleep(0.02)
        gate.open.set()
        assert (total(held), total(late[0]), total(patient)) == ([1], [5], [5])
        assert refusal(late[1]) == (
            Code.RESOURCE_EXHAUSTED,
            "Run() timeout exceeded while waiting in batching queue",
        )
    assert gate.runs == 2


def test_unequal_shapes_fail_the_whole_batch(folders: Folders) -> None:
    with batching(f"max_batch_size {{ value: 2 }} {FOR_EVER}") as it:
        session = it.session(folders("identity_float32"))
        calls = [it.call(session, "grid", {"x": values}) for values in ([[1, 2]], [[1, 2, 3]])]
        words = (
            "Tensors with name 'grid:0' from different tasks have different shapes and padding is turned off. Set "
            "pad_variable_length_inputs to true, or ensure that all tensors with the same name have equal dimensions "
            "starting with the first dim."
        )
        assert [refusal(each) for each in calls] == [(Code.FAILED_PRECONDITION, words)] * 2


def test_unequal_types_fail_the_whole_batch(folders: Folders) -> None:
    with batching(f"max_batch_size {{ value: 2 }} {FOR_EVER}") as it:
        session = it.session(folders("whole"))
        calls = [it.call(session, "serving_default", {"x": np.ones(1, dtype)}) for dtype in ("f4", "i4")]
        words = (
            "Tensor concat operation failed: INVALID_ARGUMENT: Cannot concatenate tensors that have different data "
            "types. Got float and int32."
        )
        assert [refusal(each) for each in calls] == [(Code.INTERNAL, words)] * 2


def test_a_graph_that_fails_fails_the_whole_batch_in_tensorflows_words(folders: Folders) -> None:
    with batching(f"max_batch_size {{ value: 2 }} {FOR_EVER}") as it:
        session = it.session(folders("oddities"))
        calls = [it.call(session, "positive_only", {"x": [value]}) for value in (4, -1)]
        for each in calls:
            code, words = refusal(each)
            assert code == Code.INVALID_ARGUMENT
            assert "x must be positive" in words
        calls = [it.call(session, "positive_only", {"x": [value]}) for value in (4, 9)]
        assert [each.result(20)["root"].tolist() for each in calls] == [[2], [3]]


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        ("none", "Batched output tensor has 0 dimensions"),
        (
            "one",
            (
                "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input "
                "tensors"
            ),
        ),
    ],
)
def test_outputs_that_are_no_batch_are_refused(folders: Folders, signature: str, words: str) -> None:
    with batching() as it:
        session = it.session(folders("whole"))
        assert refusal(it.call(session, signature, {"x": [1, 2]})) == (Code.FAILED_PRECONDITION, words)
        assert it.call(session, "one", {"x": [1]}).result(20)["one"].tolist() == [1]


def test_what_breaks_in_a_batch_is_an_answer_and_the_threads_go_on(folders: Folders) -> None:
    gate = Gate()
    with batching("num_batch_threads { value: 1 }") as it:
        session = it.session(folders("whole"), gate)
        held = it.hold(gate, session, "serving_default", {"x": [1]})
        odd = it.call(session, "serving_default", {"x": np.zeros(1, "M8[s]")})
        gate.open.set()
        code, words = refusal(odd)
        assert (code, words[:20]) == (Code.INTERNAL, "InputError in a batc")
        assert total(held) == total(it.call(session, "serving_default", {"x": [1]})) == [1]


# ---- padding


def test_a_batch_is_padded_to_an_allowed_size_with_the_last_tasks_first_row(folders: Folders) -> None:
    gate = Gate()
    with batching("max_batch_size { value: 8 } allowed_batch_sizes: [3, 8] num_batch_threads { value: 1 }") as it:
        session = it.session(folders("whole"), gate)
        held = it.hold(gate, session, "serving_default", {"x": [7]})
        calls = [it.call(session, "serving_default", {"x": values}) for values in ([1, 2], [10, 20])]
        gate.open.set()
        assert total(held) == [21]
        assert [total(each) for each in calls] == [[73, 73], [73, 73]]
        three = it.call(session, "serving_default", {"x": [1, 2, 3]})
        assert total(three) == [6, 6, 6]
    assert gate.batches == [(3, 2), (8, 4), (3, 0)]


def test_strings_are_padded_too(folders: Folders) -> None:
    with batching("max_batch_size { value: 4 } allowed_batch_sizes: 4") as it:
        session = it.session(folders("whole"))
        text = np.array([b"a", b"", "é".encode()], object)
        joined = it.call(session, "joined", {"text": text}).result(20)["joined"]
        assert joined.tolist() == ["a  é a".encode()] * 3


def test_a_batch_whose_last_task_is_empty_is_padded_all_the_same(folders: Folders) -> None:
    """The real server dies of it."""
    gate = Gate()
    text = "max_batch_size { value: 4 } allowed_batch_sizes: 4 num_batch_threads { value: 1 }"
    with batching(text) as it:
        session = it.session(folders("whole"), gate)
        assert total(it.call(session, "serving_default", {"x": []})) == []
        held = it.hold(gate, session, "serving_default", {"x": [5]})
        calls = [it.call(session, "serving_default", {"x": values}) for values in ([1, 2], [])]
        gate.open.set()
        assert (total(held), total(calls[0]), total(calls[1])) == ([20], [5, 5], [])
    assert gate.batches == [(0, 0), (4, 3), (4, 2)]


@pytest.mark.parametrize(
    ("given_arrays", "seen"),
    [
        (([[1, 2, 3]], [[4]]), ([[1, 2, 3]], [[4, 4, 4]])),
        (([[[1], [2]]], [[[3, 4]]]), ([[[1, 1], [2, 1]]], [[[3, 4], [3, 3]]])),
        (([[1, 2]], np.empty((0, 3), "f4")), ([[1, 2, 1]], [])),
    ],
)
def test_shorter_inputs_are_padded_with_their_first_element(
    folders: Folders, given_arrays: Sequence[Any], seen: Sequence[Any]
) -> None:
    with batching(f"pad_variable_length_inputs: true max_batch_size {{ value: 9 }} {FOR_EVER}") as it:
        session = it.session(folders("any_rank"))
        x = [np.asarray(values, "f4") for values in given_arrays]
        calls = [it.start(session.run, {"x:0": array}, ["Identity:0"]) for array in x]
        session.close()
        assert [each.result(20)[0].tolist() for each in calls] == list(seen)


def test_shorter_strings_are_padded_with_their_first(folders: Folders) -> None:
    with batching(f"pad_variable_length_inputs: true max_batch_size {{ value: 2 }} {FOR_EVER}") as it:
        session = it.session(folders("identity_string"))
        calls = [it.call(session, "grid", {"x": np.array([row], object)}) for row in ([b"a"], [b"b", b"c"])]
        assert [each.result(20)["x"].tolist() for each in calls] == [[[b"a", b"a"]], [[b"b", b"c"]]]


@pytest.mark.parametrize(
    ("shapes", "code", "words"),
    [
        ([(1,) * 7], Code.INVALID_ARGUMENT, "Only tensors with rank from 1 to 6 can be padded."),
        ([(1, 0), (1, 2)], Code.INVALID_ARGUMENT, "Got empty tensor in batch of non-empty tensors."),
        (
            [(1, 2), (1, 2, 3)],
            Code.FAILED_PRECONDITION,
            "Tensors with name 'x:0' from different tasks have different ranks, which padding cannot make equal.",
        ),
    ],
)
def test_what_cannot_be_padded_is_refused(
    folders: Folders, shapes: Sequence[tuple[int, ...]], code: Code, words: str
) -> None:
    text = f"pad_variable_length_inputs: true max_batch_size {{ value: {len(shapes)} }} {FOR_EVER}"
    with batching(text) as it:
        session = it.session(folders("any_rank"))
        calls = [it.call(session, "serving_default", {"x": np.ones(shape, "f4")}) for shape in shapes]
        assert [refusal(each) for each in calls] == [(code, words)] * len(shapes)


# ---- large requests


SPLITTING = "enable_large_batch_splitting { value: true } num_batch_threads { value: 1 } "


def test_a_large_request_is_spread_over_batches(folders: Folders) -> None:
    gate = Gate()
    text = SPLITTING + "max_batch_size { value: 10 } max_execution_batch_size { value: 4 }"
    with batching(text) as it:
        session = it.session(folders("whole"), gate)
        held = it.hold(gate, session, "serving_default", {"x": [50]})
        small = it.call(session, "serving_default", {"x": [1]})
        large = it.call(session, "serving_default", {"x": list(range(10))})
        gate.open.set()
        assert (total(held), total(small)) == ([50], [4])
        assert total(large) == [4] * 3 + [18] * 4 + [24] * 3
        refused = it.call(session, "serving_default", {"x": [0] * 11})
        assert refusal(refused)[1] == "Task size 11 is larger than maximum input batch size 10"
    assert gate.batches == [(1, 0), (4, 0), (4, 0), (3, 0)]
    assert gate.requests == [(1, 1), (1, 1), (10, 1), (11, 1)]


def test_a_large_request_that_finds_no_room_is_refused_whole(folders: Folders) -> None:
    gate = Gate()
    text = SPLITTING + (
        "max_batch_size { value: 8 } max_execution_batch_size { value: 4 } max_enqueued_batches { value: 2 }"
    )
    with batching(text) as it:
        session = it.session(folders("whole"), gate)
        held = it.hold(gate, session, "serving_default", {"x": [1]})
        queued = it.call(session, "serving_default", {"x": [1, 1]})
        refused = it.call(session, "serving_default", {"x": [1] * 7})
        assert refusal(refused) == (
            Code.UNAVAILABLE,
            FULL + "task size is 7 but scheduling capacity is only 6 (num_enqueued_batches=1, "
            "max_enqueued_batches=2, open_batch_size=2, max_execution_batch_size=4)",
        )
        fits = it.call(session, "serving_default", {"x": [2] * 6})
        gate.open.set()
        assert (total(held), total(queued), total(fits)) == ([1], [6, 6], [6, 6, 8, 8, 8, 8])


def test_a_large_request_fails_with_any_of_its_parts(folders: Folders) -> None:
    text = SPLITTING + "max_batch_size { value: 8 } max_execution_batch_size { value: 2 }"
    with batching(text) as it:
        session = it.session(folders("oddities"))
        assert "x must be positive" in refusal(it.call(session, "positive_only", {"x": [1, 1, 1, 1, 1, -1]}))[1]
        assert it.call(session, "positive_only", {"x": [1, 4, 9]}).result(20)["root"].tolist() == [1, 2, 3]


# ---- the end


def test_closing_a_session_runs_what_waits_and_takes_nothing_more(folders: Folders) -> None:
    with batching(FOR_EVER) as it:
        session, other = it.session(folders("whole")), it.session(folders("whole"))
        calls = [it.call(session, "serving_default", {"x": [1]}) for _ in range(3)]
        stays = it.call(other, "serving_default", {"x": [2]})
        session.close()
        assert all(each.done() for each in calls)
        assert [total(each) for each in calls] == [[3]] * 3
        with pytest.raises(ServingError, match=r"^UNAVAILABLE: The model is being unloaded$"):
            ask(session, "serving_default", {"x": [1]})
        assert not stays.done()
        other.close()
        assert total(stays) == [2]


def test_closing_a_session_waits_for_what_runs(folders: Folders) -> None:
    gate = Gate()
    with batching() as it:
        session = it.session(folders("whole"), gate)
        held = it.hold(gate, session, "serving_default", {"x": [1]})
        closing = it.callers.submit(session.close)
        time.sleep(0.05)
        assert not closing.done()
        gate.open.set()
        closing.result(20)
        assert total(held) == [1]


def test_threads_start_when_needed_are_named_and_end_with_the_scheduler(folders: Folders) -> None:
    def names() -> set[str]:
        return {thread.name for thread in threading.enumerate() if thread.name.startswith("my_threads")}

    text = f'num_batch_threads {{ value: 2 }} thread_pool_name {{ value: "my_threads" }} {FOR_EVER}'
    with batching(text) as it:
        assert names() == set()
        for _ in range(5):
            session = it.session(folders("whole"))
            calls = [it.call(session, name, {"x": [1]}) for name in ("serving_default", "one") for _ in range(2)]
            session.close()
            assert len([each.exception(20) for each in calls]) == 4
        assert names() <= {"my_threads_0", "my_threads_1"}
        waits = it.call(session := it.session(folders("whole")), "serving_default", {"x": [1]})
        it.scheduler.close()
        assert names() == set()
        assert total(waits) == [1]
        with pytest.raises(ServingError, match=r"^UNAVAILABLE: The server is stopping$"):
            ask(session, "serving_default", {"x": [1]})


# ---- whatever comes, each caller has its own


@pytest.fixture(scope="module")
def identities(rich_models: Path) -> dict[str, Session]:
    return {dtype: Session(str(rich_models / f"identity_{dtype}" / "1")) for dtype in DTYPES}


def values(dtype: str, size: int, seed: int) -> np.ndarray:
    """Any bytes at all, as numbers of that type."""
    random = np.random.default_rng(seed)
    if dtype == "string":
        array = np.empty(size, object)
        array[:] = [random.bytes(int(random.integers(0, 40))) for _ in range(size)]
        return array
    if dtype == "bool":
        return np.frombuffer(random.bytes(size), np.uint8) > 127
    kind = next(each for each in dtypes.DTYPES if each.numpy == dtype).type
    return np.frombuffer(random.bytes(size * kind.itemsize), kind)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(DTYPES), min_size=1, max_size=3),
    wanted=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=1, max_size=24),
    most=st.integers(9, 20),
    allowed=st.lists(st.integers(1, 8), max_size=3),
    micros=st.sampled_from([0, 0, 300, 2000]),
    threads=st.integers(1, 4),
    pad=st.booleans(),
    execution=st.none() | st.integers(1, 9),
)
def test_each_caller_has_what_it_would_have_alone(
    identities: dict[str, Session],
    kinds: list[str],
    wanted: list[tuple[int, int]],
    most: int,
    allowed: list[int],
    micros: int,
    threads: int,
    pad: bool,
    execution: int | None,
) -> None:
    by = BatchingOptions(
        max_batch_size=most,
        batch_timeout_micros=micros,
        max_enqueued_batches=1000,
        num_batch_threads=threads,
        allowed_batch_sizes=(*allowed, most) if allowed else (),
        pad_variable_length_inputs=pad,
        enable_large_batch_splitting=execution is not None,
        max_execution_batch_size=execution or most,
    )
    scheduler = BatchScheduler(by)
    sessions = {dtype: BatchingSession(session, scheduler, by) for dtype, session in identities.items()}
    jobs = [(kinds[kind % len(kinds)], size, seed) for seed, (kind, size) in enumerate(wanted)]
    with ThreadPoolExecutor(len(jobs)) as callers:
        asked = [values(*job) for job in jobs]
        calls = [
            callers.submit(ask, sessions[dtype], "serving_default", {"x": x})
            for (dtype, _, _), x in zip(jobs, asked, strict=True)
        ]
        for (dtype, _, _), x, call in zip(jobs, asked, calls, strict=True):
            alone = ask(identities[dtype], "serving_default", {"x": x})["x"]
            together = call.result(20)["x"]
            assert together.dtype == alone.dtype
            assert together.tolist() == alone.tolist() if dtype == "string" else together.tobytes() == alone.tobytes()
    scheduler.close()


def test_many_callers_of_models_that_come_and_go(folders: Folders) -> None:
    """No call is forgotten: every one is answered, with its own, or told that its model went."""
    with batching(
        "num_batch_threads { value: 3 } max_batch_size { value: 4 } batch_timeout_micros { value: 200 }"
    ) as it:
        current = [it.session(folders("identity_int64")) for _ in range(3)]
        stop = threading.Event()

        def work(index: int) -> int:
            done = 0
            while not stop.is_set():
                x = np.arange(index, index + 1 + done % 4)
                try:
                    assert ask(current[(index + done) % 3], "serving_default", {"x": x})["x"].tolist() == x.tolist()
                    done += 1
                except ServingError as error:
                    if error.message != "The model is being unloaded" and not error.message.startswith(FULL):
                        raise
            return done

        working = [it.callers.submit(work, index) for index in range(12)]
        for number in range(12):
            time.sleep(0.03)
            old, current[number % 3] = current[number % 3], it.session(folders("identity_int64"))
            old.close()
        stop.set()
        assert all(each.result(20) for each in working)
        assert len([thread for thread in threading.enumerate() if thread.name.startswith("batch_threads")]) <= 3


# ---- a server


PARAMETERS = """
max_batch_size { value: 8 } batch_timeout_micros { value: 200000 } max_enqueued_batches { value: 1 }
num_batch_threads { value: 2 } allowed_batch_sizes: 2 allowed_batch_sizes: 8
"""


def models_config(folders: Folders, *names: str) -> str:
    each = (f'config {{ name: "{n}" base_path: "{folders(n).parent}" model_platform: "tensorflow" }}' for n in names)
    return "model_config_list { " + " ".join(each) + " }"


@pytest.fixture(scope="module")
def served(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, GrpcClient, RestClient]]:
    folder = tmp_path_factory.mktemp("batching_server")
    (folder / "batching").write_text(PARAMETERS)
    (folder / "models").write_text(models_config(folders, "whole", "oddities", "scalar"))
    flags = [
        f"--model_config_file={folder}/models",
        "--enable_batching",
        f"--batching_parameters_file={folder}/batching",
        "--rest_api_num_threads=16",
    ]
    with process(folder, *flags) as (_, client, rest):
        until(lambda: answers(client, "whole") and answers(rest, "scalar"))
        yield folder, client, rest


Served = tuple[Path, GrpcClient, RestClient]


def test_a_server_batches_calls_of_both_doors(served: Served) -> None:
    folder, client, rest = served
    assert (folder / "log").read_text().count("Wrapping session to perform batch processing") == 3
    with ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(each.predict, "whole", {"x": np.ones(1, "f4")}) for each in (client, rest) * 4]
        totals = [each.result(20)["total"].tolist() for each in calls]
    # Whoever came too late for the first batch shares a later one, which is padded.
    assert [8.0] in totals
    assert all(each in ([2.0], [8.0]) for each in totals)
    assert client.predict("whole", {"x": np.array([1, 2, 4], "f4")})["total"].tolist() == [12.0] * 3


def test_a_server_says_why_it_cannot_batch(served: Served) -> None:
    _, client, rest = served
    for each in (client, rest):
        with pytest.raises(CallError, match=re.escape("Task size 9 is larger than maximum input batch size 8")):
            each.predict("whole", {"x": np.ones(9, "f4")})
    body = {"inputs": {"a": 1.0, "b": 2.0}}
    answer = requests.post(f"{rest.url}/v1/models/scalar:predict", json=body, timeout=10)
    assert answer.status_code == 400
    assert answer.json() == {"error": "Batching Run() input tensors must have at least one dimension"}


def test_a_full_queue_is_503(served: Served) -> None:
    _, client, rest = served
    url = f"{rest.url}/v1/models/oddities:predict"
    slow = {"signature_name": "slow", "inputs": [60_000.0] * 8}
    with ThreadPoolExecutor(8) as callers:
        calls = [callers.submit(requests.post, url, json=slow, timeout=60) for _ in range(8)]
        answered = [each.result(60) for each in calls]
    assert {each.status_code for each in answered} == {200, 503}
    refused = next(each for each in answered if each.status_code == 503)
    assert refused.json() == {"error": FULL + "currently 1 batches enqueued and max_enqueued_batches is 1"}
    assert client.predict("whole", {"x": np.ones(8, "f4")})["total"].tolist() == [8.0] * 8


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_batch_threads { value: 0 }", "Error: INVALID_ARGUMENT: num_batch_threads must be positive; was 0"),
        (
            "allowed_batch_sizes: 4",
            (
                "INVALID_ARGUMENT: Last entry in allowed_batch_sizes must match max_batch_size; last entry was 4; "
                "expected 1000"
            ),
        ),
        ("batch_timeout_micros { value: -1 }", "batch_timeout_micros must be non-negative; was -1"),
    ],
)
def test_a_server_with_useless_batching_does_not_start(folders: Folders, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "batching").write_text(text)
    base = f"--model_base_path={folders('whole').parent}"
    flags = ["--enable_batching", f"--batching_parameters_file={tmp_path}/batching", "--max_num_load_retries=0"]
    done = run(base, "--model_name=m", "--port=0", f"--grpc_socket_path={tmp_path}/socket", *flags)
    assert done.returncode == 255
    assert words in done.stdout


def test_only_models_that_say_how_are_batched_where_each_says_it(folders: Folders, tmp_path: Path) -> None:
    for name in ("batched", "plain"):
        export_graph(tmp_path / name / "1", _whole)
    (tmp_path / "batched" / "1" / "batching_params.pbtxt").write_text("max_batch_size { value: 2 }")
    (tmp_path / "models").write_text(models_config(lambda name: tmp_path / name / "1", "batched", "plain"))
    flags = ["--enable_batching", "--enable_per_model_batching_parameters", f"--model_config_file={tmp_path}/models"]
    with process(tmp_path, *flags) as (_, client, _rest):
        until(lambda: answers(client, "plain"))
        assert client.predict("plain", {"x": np.ones(3, "f4")})["total"].tolist() == [3.0] * 3
        with pytest.raises(CallError, match="Task size 3 is larger than maximum input batch size 2"):
            client.predict("batched", {"x": np.ones(3, "f4")})
