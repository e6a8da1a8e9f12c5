"""A short soak, and whether a soak sees what it is there for."""

import json
import random
from pathlib import Path

import pytest
import soak
import soak_http
from soak_http import Answer
from soak_report import Disorderly, Report, mutated


def test_the_server_stays_what_it_is_under_load_garbage_and_change(tmp_path: Path) -> None:
    soak.export(tmp_path / "models")
    result = soak.soak(tmp_path / "models", seconds=6, seed=20, out=tmp_path / "out", flat=False)
    assert not result.report.failures, "\n".join(soak.lines(result))
    # Everything had its turn.
    counts = result.report.counts
    kinds = {kind.partition(",")[0] for kind in counts}
    assert kinds >= {"HTTP", "REST body", "REST path", "REST good", "gRPC good", "gRPC", "gRPC's port", "change"}
    assert sum(codes.total() for codes in counts.values()) > 400


def test_a_leak_is_told_from_noise() -> None:
    rng = random.Random(1)

    def curve(leak: float) -> list[tuple[float, float]]:
        """Ten minutes: two of warm-up, up to 200 MB held for moments, and `leak` MB a minute lost."""
        return [
            (at, 250 + 80 * min(1, at / 120) + leak * at / 60 + rng.choice((0, 3, 10, 200 * rng.random())))
            for at in range(600)
        ]

    assert soak.growth(curve(0)) < 0.02
    assert soak.growth(curve(12)) > 0.1


@pytest.mark.parametrize(
    "answer",
    [
        Answer("1.1", 500, {"content-type": "application/json"}, b'{"error": "Internal error: ValueError"}'),
        Answer("1.1", 302, {"content-type": "application/json"}, b'{"error": "x"}'),
        Answer("1.1", 400, {"content-type": "application/json"}, b'{"error": "x"'),
        Answer("1.1", 400, {"content-type": "application/json"}, b'{"message": "x"}'),
        Answer("1.1", 400, {"content-type": "text/plain"}, b"Bad Request"),
        Answer("1.1", 400, {"content-type": "text/html"}, b"<html>400 Bad Request</html>"),
        Answer("1.1", 404, {"content-type": "application/json"}, b""),
    ],
)
def test_a_disorderly_answer_is_seen(answer: Answer) -> None:
    with pytest.raises((Disorderly, json.JSONDecodeError)):
        soak_http.check(answer)


def test_a_failure_leaves_its_request_and_seed(tmp_path: Path) -> None:
    report = Report(7, tmp_path / "out")
    with report.asking("REST body, mutated", b"POST \xff"):
        raise Disorderly("closed without an answer")
    assert (tmp_path / "out" / "01.request").read_bytes() == b"POST \xff"
    assert (tmp_path / "out" / "01.txt").read_text().startswith("seed 7\nREST body, mutated\nDisorderly: closed")
    assert report.failures == ["REST body, mutated: Disorderly: closed without an answer"]


def test_a_seed_draws_the_same_again() -> None:
    first, second = ([mutated(random.Random(seed), b'{"instances": [1.0]}') for seed in range(50)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 40
