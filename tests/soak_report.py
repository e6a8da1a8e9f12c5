"""What a soak has seen: every answer counted, every disorderly one kept with its request."""

import contextlib
import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

MOST_SECONDS = 20.0
"""How long an answer may take on a busy machine; nothing that is sent asks for more work than a second of it."""

_MOST_FAILURES = 1000
_MOST_FILES = 40


class Disorderly(Exception):
    """An answer that no client should get."""


class Report:
    """Counts and failures, from any thread.

    Args:
        seed: what all random choices come from.
        folder: where the requests go that had disorderly answers; made when there is one.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.folder = folder
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.slowest: dict[str, float] = defaultdict(float)
        self.failures: list[str] = []
        self.ended = False
        self._recent: dict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=20))
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def asking(self, kind: str, request: bytes, most: float = MOST_SECONDS) -> Iterator[list[str]]:
        """One request: its code goes into the list that is given; what is raised, or takes too long, is a failure."""
        codes: list[str] = []
        with self._lock:
            # What nobody heard is not what the server died of.
            if not self.ended:
                self._recent[threading.current_thread().name].append(kind.encode() + b"\n" + request)
        started = time.monotonic()
        try:
            yield codes
        except ConnectionRefusedError as error:
            codes = ["refused"]
            if not self.ended:
                self.ended = True
                self.fail(kind, f"{error}", request)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is told with its request
            self.fail(kind, f"{type(error).__name__}: {error}"[:2000], request)
            codes = [*codes, type(error).__name__]
        took = time.monotonic() - started
        with self._lock:
            self.counts[kind].update(codes or ["nothing"])
            self.slowest[kind] = max(self.slowest[kind], took)
        if took > most:
            self.fail(kind, f"it took {took:.1f} s", request)

    def fail(self, kind: str, why: str, request: bytes = b"") -> None:
        """Something is not as it should be."""
        with self._lock:
            if len(self.failures) >= _MOST_FAILURES:
                return
            self.failures.append(f"{kind}: {why}")
            number = len(self.failures)
            if number > _MOST_FILES or not request:
                return
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{number:02}.txt").write_text(f"seed {self.seed}\n{kind}\n{why}\n\n{request[:400]!r}\n")
            (self.folder / f"{number:02}.request").write_bytes(request)

    def save_recent(self) -> None:
        """Write down what every thread asked last: the server died of one of these."""
        with self._lock:
            for thread, requests in self._recent.items():
                self.folder.mkdir(parents=True, exist_ok=True)
                for age, request in enumerate(reversed(requests)):
                    (self.folder / f"recent-{thread}-{age:02}.request").write_bytes(request)

    def lines(self) -> Iterator[str]:
        """The summary."""
        yield f"{'asked':<28} {'times':>8} {'slowest':>9}  answers"
        for kind, codes in sorted(self.counts.items()):
            answers = ", ".join(f"{code} {count}" for code, count in codes.most_common())
            yield f"{kind:<28} {codes.total():>8} {self.slowest[kind]:>7.2f} s  {answers}"


class Worker(threading.Thread):
    """Does one step after another, all of them drawn from its own random numbers, until it is stopped."""

    def __init__(self, name: str, report: Report, stop: threading.Event) -> None:
        super().__init__(name=name)
        self.report = report
        self.stop = stop
        self.rng = random.Random(f"{report.seed} {name}")
        self.steps = 0

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self.step()
                self.steps += 1
        except Exception as error:
            self.report.fail(self.name, f"the soak itself broke: {type(error).__name__}: {error}")
            raise
        finally:
            self.close()

    def step(self) -> None:
        """Ask one thing."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what is open."""


# ---- mutations


def mutated(rng: random.Random, content: bytes) -> bytes:
    """The content with one to four things done to it."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        changed = rng.choice(_MUTATIONS)(rng, changed)
    return bytes(changed)


def _flip(rng: random.Random, content: bytearray) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 8))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def _cut(rng: random.Random, content: bytearray) -> bytearray:
    return content[: rng.randint(0, len(content))]


def _drop(rng: random.Random, content: bytearray) -> bytearray:
    start = rng.randint(0, len(content))
    del content[start : start + rng.choice((1, 2, 10))]
    return content


def _insert(rng: random.Random, content: bytearray) -> bytearray:
    start = rng.randint(0, len(content))
    content[start:start] = rng.choice((rng.randbytes(rng.randint(1, 8)), rng.choice(_TOKENS)))
    return content


def _repeat(rng: random.Random, content: bytearray) -> bytearray:
    start = rng.randint(0, len(content))
    piece = content[start : start + rng.randint(1, 20)]
    content[start:start] = piece * rng.choice((1, 1, 3, 50))
    return content


def _replace(rng: random.Random, content: bytearray) -> bytearray:
    start = rng.randint(0, len(content))
    token = rng.choice(_TOKENS)
    content[start : start + rng.choice((1, len(token)))] = token
    return content


_MUTATIONS = (_flip, _cut, _drop, _insert, _repeat, _replace)
_TOKENS = (
    b"0", b"-1", b"1e400", b"-0.0", b"NaN", b"-Infinity", b"9" * 25, b"9" * 400, b"1" + b"0" * 4400,
    b"18446744073709551616", b"null", b"true", b"{}", b"[]", b"[[[[[[[[", b"]]]]]]]]", b'{"b64":"', b'"', b"\\",
    b"\\u0000", b"\\ud800", b"\\udc00x", b"\x00", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"\xf0\x9f\x98\x80", b"%", b"%00", b"%2F", b"%FF", b"/", b":", b",",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80" * 11, b"instances", b"inputs", b"signature_name",
    b"examples",
)  # fmt: skip
