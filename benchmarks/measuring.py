"""Processes and calls, timed in turn with their floor, so that a slow moment of the machine hits both."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Not getrusage on Linux: its peak begins with that of the process that started this one.
_TELL_PEAK = """
import pathlib, resource, sys
status = pathlib.Path("/proc/self/status")
if status.exists():
    print(int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10))
"""


@dataclass(frozen=True)
class Figure:
    """One figure beside its floor.

    Attributes:
        name: what was measured.
        value, floor: in `unit`; the floor is None where the figure stands alone.
        floor_name: what the floor is.
        at_most, at_least: what the project promises of the ratio to the floor; of the value, where there is no floor.
    """

    name: str
    value: float
    unit: str
    floor: float | None = None
    floor_name: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.value / self.floor if self.floor else None

    @property
    def kept(self) -> bool | None:
        """Whether the promise is kept; None where nothing is promised."""
        measured = self.value if self.floor is None else self.ratio
        if measured is None or (self.at_most is None and self.at_least is None):
            return None
        return (self.at_most is None or measured <= self.at_most) and (
            self.at_least is None or measured >= self.at_least
        )

    @property
    def bar(self) -> str:
        unit = f" {self.unit}" if self.floor is None else " x"
        if self.at_most is not None:
            return f"at most {self.at_most:g}{unit}"
        return f"at least {self.at_least:g}{unit}" if self.at_least is not None else ""

    def __str__(self) -> str:
        text = f"{self.name:<46} {self.value:10.3f} {self.unit:<4}"
        ratio = f"= {self.ratio:6.3f} x {self.floor:.3f} ({self.floor_name})" if self.ratio else ""
        mark = {None: "", True: "  ok", False: "  MISSED"}[self.kept]
        return f"{text} {ratio:<66} {self.bar}{mark}".rstrip()

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "ratio": self.ratio, "kept": self.kept}


def process(code: str, *arguments: str) -> tuple[float, float]:
    """Run Python code in a process of its own: seconds to its end, and its peak resident memory in MB."""
    started = time.perf_counter()
    command = [sys.executable, "-c", f"{code}\n{_TELL_PEAK}", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started, float(done.stdout.split()[-1])


def peak_of(pid: int) -> float:
    """The peak resident memory of a running process in MB; 0 where the system does not say."""
    return _memory(pid, "VmHWM:")


def resident_of(pid: int) -> float:
    """The resident memory of a running process in MB; 0 where the system does not say."""
    return _memory(pid, "VmRSS:")


def _memory(pid: int, what: str) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    return int(status.split(what)[1].split()[0]) / 1024


def in_turn(calls: Sequence[Callable[[], object]], rounds: int, warm_up: int = 3) -> list[float]:
    """The median seconds of each call, the calls taking turns."""
    for call in calls:
        for _ in range(warm_up):
            call()
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, seconds in zip(calls, times, strict=True):
            started = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - started)
    return [statistics.median(seconds) for seconds in times]
