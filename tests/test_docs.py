"""What the documents say of the code, held to it."""

import re
from dataclasses import fields
from pathlib import Path

from tfs_helpers.embedded.doors.limits import Limits
from tfs_helpers.embedded.options import OURS, WITHOUT_EFFECT
from tfs_helpers.flags import FLAGS

ROOT = Path(__file__).parent.parent
SERVER = (ROOT / "docs" / "embedded_server.md").read_text()


def section(title: str) -> str:
    return SERVER.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_flags_without_effect_are_those_of_the_server() -> None:
    table = section("Flags").split("|---|---|\n")[1]
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == WITHOUT_EFFECT.keys()
    assert named <= FLAGS.keys()
    assert f"All {len(FLAGS)} are known" in section("Flags")
    assert all(f"`--{name}" in section("Flags") for name in OURS)


def test_the_limits_are_those_of_the_server() -> None:
    rows = {name: row for row in section("Limits").splitlines() for name in re.findall(r"\(`(\w+)`\)", row)}
    assert rows.keys() == {field.name for field in fields(Limits)}
    for name in ("line_bytes", "headers", "connections", "streams", "calls"):
        assert f"{getattr(Limits(), name):,}" in rows[name], rows[name]


def test_the_rooms_that_are_drawn_are_there() -> None:
    drawn = re.findall(r"(?:tfs_helpers/)?(embedded/\w+(?:/\w+)?\.py)", (ROOT / "ARCHITECTURE.md").read_text())
    assert len(drawn) >= 4
    for path in drawn:
        assert (ROOT / "tfs_helpers" / path).is_file(), path
