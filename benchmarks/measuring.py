"""Processes and calls, timed in turn with their floor, so that a slow moment of the machine hits both."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        bound: what the project promises.
    """

    name: str
    value: float
    unit: str
    floor: float | None = None
    floor_name: str = ""
    bound: str = ""

    def __str__(self) -> str:
        text = f"{self.name:<52} {self.value:9.3f} {self.unit:<3}"
        if self.floor:
            text += f"  = {self.value / self.floor:5.2f} x {self.floor_name} ({self.floor:.3f} {self.unit})"
        return text + (f"   [promised: {self.bound}]" if self.bound else "")


def process(code: str, *arguments: str) -> tuple[float, float]:
    """Run Python code in a process of its own: seconds to its end, and its peak resident memory in MB."""
    started = time.perf_counter()
    command = [sys.executable, "-c", f"{code}\n{_TELL_PEAK}", *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started, float(done.stdout.split()[-1])


def peak_of(pid: int) -> float:
    """The peak resident memory of a running process in MB; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return 0.0
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


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
