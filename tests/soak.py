"""Ten minutes of everything at once: right calls, wrong ones, bytes that are no calls at all, and changes under load.

    python tests/soak.py [--minutes 10] [--seed N]

Every answer must be orderly, every right call answered as it was before, and the server be what it was at the end:
alive, as large, with as many threads and open files. Where one was not, its request is kept in a file, beside the
seed from which the same requests are drawn again (their order between threads is the machine's).
"""

import argparse
import json
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import grpc
from soak_changes import Changes
from soak_framing import FramingFuzz
from soak_grpc import GrpcFuzz
from soak_http import BodyFuzz, Http, PathFuzz, post
from soak_models import METRICS, Call, GoodClient, Served, Wires, ask, changing_calls, export, right_calls
from soak_report import Disorderly, Report, Worker
from test_embedded_server import answers, process
from waiting import until

OUT = Path(__file__).resolve().parent.parent / "build" / "soak"
_BROKEN = re.compile(
    r"Traceback|broke the server|broke off|never retrieved|never awaited|Exception ignored|[Cc]heck failed|Fatal|"
    r"Segmentation"
)
_MOST_GROWTH = 0.1
_MOST_NEW_THREADS = 12
_QUIET_ROUNDS = 5
_MOST_LEFT = 3.0
_MOST_LOG = 200 * 2**20


class Sample(NamedTuple):
    """The server at one moment: seconds since the start, MB, threads, open files."""

    at: float
    memory: float
    threads: int
    files: int


@dataclass
class Result:
    """How a soak went."""

    report: Report
    samples: list[Sample]


def look_at(pid: int, since: float = 0.0) -> Sample:
    """What a process holds now.

    Raises:
        OSError: it has ended.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    number = {row.split(":")[0]: row.split()[1] for row in status.splitlines() if row.startswith(("VmRSS", "Threads"))}
    if "VmRSS" not in number:
        raise ProcessLookupError(f"process {pid} has ended")
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(time.monotonic() - since, int(number["VmRSS"]) / 1024, int(number["Threads"]), files)


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """By how much of itself the floor of a curve grows from its first third to its end.

    What counts are the lowest values of twenty spans: what is held for a moment shows in the highest. The first third
    is warm-up. The slope over the rest is the median of the slopes between any two of them (Theil-Sen), so no single
    span decides it; and the end is compared with the middle. The smaller of the two is the growth: noise bends one of
    them, a leak both.

    Args:
        samples: seconds and MB.
    """
    start, end = samples[0][0], samples[-1][0]
    spans: dict[int, list[float]] = {}
    for at, value in samples:
        spans.setdefault(min(19, int((at - start) / max(end - start, 1e-9) * 20)), []).append(value)
    floors = [(index, min(values)) for index, values in sorted(spans.items()) if index >= 6]
    slopes = [(b - a) / (j - i) for i, a in floors for j, b in floors if j > i]
    middle = statistics.median(value for index, value in floors if 6 <= index < 13)
    last = statistics.median(value for index, value in floors if index >= 16)
    return min(statistics.median(slopes) * 13, last - middle) / middle


def soak(
    folder: Path, seconds: float, seed: int, out: Path = OUT, only: Sequence[str] = (), *, flat: bool = True
) -> Result:
    """Run all of it against the models that `soak_models.export` wrote into `folder`.

    Args:
        folder: their base paths; `swapped` changes.
        seconds: how long.
        seed: what all random choices come from.
        out: where the requests go that had disorderly answers.
        only: the names of the workers; all where it is empty.
        flat: whether memory must be; in less than some minutes nobody can tell.
    """
    report = Report(seed, out)
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        served = Served(folder)
        (scratch / "models.config").write_text(served.text())
        (scratch / "monitoring.config").write_text("prometheus_config { enable: true }")
        flags = [
            f"--model_config_file={scratch}/models.config",
            f"--monitoring_config_file={scratch}/monitoring.config",
            "--max_num_load_retries=0",
            "--allow_version_labels_for_unavailable_models=true",
            "--rest_api_timeout_in_ms=5000",
            "--enable_grpc_healthcheck_service=true",
        ]
        with process(scratch, *flags) as (child, client, rest):
            until(lambda: child.poll() is not None or answers(client, "mixed"), seconds=60)
            ports = int(rest.url.rpartition(":")[2]), int(client.address.rpartition(":")[2])
            try:
                samples = _under_load(report, served, ports, child.pid, seconds, only, flat=flat)
            except (Disorderly, OSError, grpc.RpcError) as error:
                report.fail("server", f"it does not answer as it should: {error}")
                samples = []
            if child.poll() is not None:
                report.fail("server", f"it ended with {child.returncode}")
                report.save_recent()
            log = (scratch / "log").read_text(errors="replace") + (scratch / "out").read_text(errors="replace")
        for found in list(_BROKEN.finditer(log))[:20]:
            report.fail("log", log[max(0, found.start() - 300) : found.end() + 3000])
        if len(log) > _MOST_LOG:
            report.fail("log", f"{len(log)} characters")
        if report.failures:
            out.mkdir(parents=True, exist_ok=True)
            (out / "log").write_text(log)
    return Result(report, samples)


def _under_load(
    report: Report, served: Served, ports: tuple[int, int], pid: int, seconds: float, only: Sequence[str], *, flat: bool
) -> list[Sample]:
    http = Http(ports[0])
    calls = right_calls(has_metrics=http.ask(post(METRICS, b"", method="GET")).status == 200)
    http.close()
    _record(calls, ports)
    changing = changing_calls()
    _burst(report, ports, calls)
    before = look_at(pid)
    stop = threading.Event()
    workers = [each for each in _workers(report, stop, ports, served, calls, changing) if not only or each.name in only]
    started = time.monotonic()
    samples = []
    for worker in workers:
        worker.start()
    try:
        while time.monotonic() < started + seconds and all(worker.is_alive() for worker in workers):
            samples.append(look_at(pid, started))
            stop.wait(min(1.0, seconds / 50))
    finally:
        stop.set()
        for worker in workers:
            worker.join()
    _afterwards(report, ports, calls + changing, pid)
    if flat and len(samples) > 40 and (grown := growth([(each.at, each.memory) for each in samples])) > _MOST_GROWTH:
        report.fail("memory", f"it grew by {grown:.0%} after the warm-up")
    end = time.monotonic() + 30
    while (now := look_at(pid, started)).files > before.files and time.monotonic() < end:
        time.sleep(0.2)
    if now.files > before.files:
        report.fail("files", f"{before.files} were open before, {now.files} are")
    # Each model's threads come as they are needed, and stay: at the end hardly any is new.
    usual = max(each.threads for each in samples[len(samples) // 3 :][: len(samples) // 3 + 1] or [before])
    if now.threads > usual + _MOST_NEW_THREADS:
        report.fail("threads", f"there were {usual} after the first two thirds, there are {now.threads}")
    return [before, *samples, now]


def _record(calls: Sequence[Call], ports: tuple[int, int]) -> None:
    wires = Wires(ports)
    for call in calls:
        call.answers = [call.ask(wires)]
    wires.close()


def _workers(
    report: Report,
    stop: threading.Event,
    ports: tuple[int, int],
    served: Served,
    calls: Sequence[Call],
    changing: Sequence[Call],
) -> list[Worker]:
    by_rest = [call for call in calls if not call.path]
    by_grpc = [call for call in calls if call.path]
    some = [*changing, *changing, *changing, *changing]
    # Nothing that is mutated may ask for a long run: `slow` would run for as long as its number says.
    rest_seeds = [
        (path, body)
        for path, body in map(_taken_apart, by_rest)
        if body and b'"slow"' not in body and (len(body) < 10_000 or "eye" in path)
    ]
    grpc_seeds = [(call.path, call.request) for call in by_grpc if b"slow" not in call.request]
    seed_paths = sorted({_taken_apart(call)[0] for call in by_rest} | {METRICS, "/", "/v1", "/v1/models"})
    right = ("/v1/models/half_plus_two/versions/1:predict", b'{"instances": [1.0, 2.0, 5.0]}', b"[2.5, 3.0, 4.5")
    return [
        GoodClient("good-grpc", report, stop, ports, [*by_grpc, *(call for call in some if call.path)]),
        GoodClient("good-rest", report, stop, ports, [*by_rest, *(call for call in some if not call.path)]),
        BodyFuzz("bodies", report, stop, ports[0], rest_seeds),
        PathFuzz("paths", report, stop, ports[0], seed_paths),
        FramingFuzz("framing", report, stop, ports, right),
        FramingFuzz("framing-2", report, stop, ports, right),
        GrpcFuzz("grpc", report, stop, ports[1], grpc_seeds),
        Changes("changes", report, stop, ports, served),
    ]


def _taken_apart(call: Call) -> tuple[str, bytes]:
    head, _, body = call.request.partition(b"\r\n\r\n")
    return head.split()[1].decode(), body


def _burst(report: Report, ports: tuple[int, int], calls: Sequence[Call]) -> None:
    """The most that the models' threads can be used for, so that all of these are there before they are counted."""

    def all_of_them(seed: int) -> None:
        wires = Wires(ports)
        for call in random.Random(seed).sample(list(calls), len(calls)):
            ask(report, wires, call)
        wires.close()

    threads = [threading.Thread(target=all_of_them, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _afterwards(report: Report, ports: tuple[int, int], calls: Sequence[Call], pid: int) -> None:
    """It answers as before, and when only one client calls, what its calls leave behind can be seen to the megabyte."""
    wires = Wires(ports)
    memory = []
    for _ in range(_QUIET_ROUNDS):
        for call in calls:
            ask(report, wires, call)
        memory.append(look_at(pid).memory)
    wires.close()
    if (left := memory[-1] - memory[0]) > _MOST_LEFT:
        report.fail("memory", f"{(len(memory) - 1) * len(calls)} right calls left {left:.1f} MB")


def lines(result: Result) -> list[str]:
    """The summary."""
    text = list(result.report.lines())
    text.append("\nminute     MB: min  median     max    threads  open files")
    minutes: dict[int, list[Sample]] = {}
    for sample in result.samples[1:]:
        minutes.setdefault(int(sample.at // 60), []).append(sample)
    for minute, rows in minutes.items():
        memory = [row.memory for row in rows]
        text.append(
            f"{minute:>6} {min(memory):>12.0f} {statistics.median(memory):>7.0f} {max(memory):>7.0f} "
            f"{max(row.threads for row in rows):>10} {max(row.files for row in rows):>11}"
        )
    text += [f"\nFAILED {failure}" for failure in result.report.failures[:50]]
    if result.samples:
        first, last = result.samples[0], result.samples[-1]
        text.append(
            f"\nbefore: {first.memory:.0f} MB, {first.threads} threads, {first.files} open files; "
            f"after: {last.memory:.0f} MB, {last.threads} threads, {last.files} open files"
        )
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None, help="the same requests again; by default others each time")
    parser.add_argument("--only", default="", help="names of workers with commas between, to find out whose work it is")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # then the server goes too
    seed = random.SystemRandom().randrange(10**9) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    shutil.rmtree(OUT, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        export(Path(place))
        result = soak(Path(place), arguments.minutes * 60, seed, only=list(filter(None, arguments.only.split(","))))
    print("\n".join(lines(result)))
    if result.report.failures:
        kinds = json.dumps(len(result.report.failures))
        print(f"\nFAILED: {kinds} disorderly; their requests are in {OUT}; again with --seed {seed}")
        return 1
    print("\nAll answers were orderly.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
