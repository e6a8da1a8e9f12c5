"""Which names are versions: the rule told a second time, against names of every kind."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tfs_helpers.version_folders import parse_version, read_candidates, read_versions


def as_server(name: str) -> int | None:
    """The rule another way: strip blanks, one sign, ASCII digits, 64 bits."""
    text = name.strip(" \t\n\v\f\r")
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits or any(digit not in "0123456789" for digit in digits):
        return None
    number = 0
    for digit in digits:
        number = 10 * number + "0123456789".index(digit)
    number = -number if text[0] == "-" else number
    return number if -(2**63) <= number < 2**63 else None


numbers = st.one_of(st.integers(-20, 20), st.integers(-(2**63) - 5, 2**63 + 5))
blanks = st.text(st.sampled_from(" \t\n\v\f\r\xa0\x1c"), max_size=2)
decorated = st.tuples(blanks, st.sampled_from(["", "+", "0", "000", "-"]), numbers.map(str), blanks).map("".join)
names = st.one_of(
    st.text(st.sampled_from("+-0123456789 ._v\t\u0661\uff11"), min_size=1, max_size=24),
    decorated,
    numbers.map(str),
).filter(lambda name: name not in (".", ".."))


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("1", 1),
        ("0", 0),
        ("-0", 0),
        ("000123", 123),
        ("0" * 30 + "7", 7),
        ("20240101120000", 20240101120000),
        ("-1", -1),
        ("+1", 1),
        (" 7\n", 7),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", None),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", None),
        ("9" * 10_000, None),  # more than Python's int() takes
        ("", None),
        ("+", None),
        ("+-1", None),
        ("- 1", None),
        ("1 2", None),
        ("1.0", None),
        ("v1", None),
        ("2.tmp", None),
        ("1_000", None),
        ("0x10", None),
        (".1", None),
        ("\xa01", None),  # a blank, but none of ASCII's
        ("\x1c1", None),  # a blank to Python only
        ("\u0661", None),  # an Arabic digit
        ("\uff11", None),  # a full-width one
    ],
)
def test_a_name_is_a_version_as_the_server_has_it(name: str, version: int | None) -> None:
    assert parse_version(name) == version


@given(names)
def test_the_rule_told_two_ways(name: str) -> None:
    assert parse_version(name) == as_server(name)


@given(st.sets(names, max_size=8))
@example({"1", "01", "+1", "001"})
@example({"10", "9", "-3", "0"})
@example({str(2**63 - 1), str(2**63), str(-(2**63))})
def test_a_base_path_is_read_lowest_first_and_the_last_name_counts(entries: set[str]) -> None:
    expected: dict[int, list[str]] = {}
    for name in entries:
        if (number := as_server(name)) is not None:
            expected.setdefault(number, []).append(name)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for name in entries:
            (base / name).mkdir()
        for path in (base, folder):
            found = read_versions(path)
            assert list(found) == sorted(expected)
            assert found == {number: base / max(same) for number, same in expected.items()}
            candidates = read_candidates(path)
            assert list(candidates) == sorted(expected)
            assert candidates == {number: [base / name for name in sorted(same)] for number, same in expected.items()}


def test_files_and_links_to_nothing_count_because_the_server_would_try_them(tmp_path: Path) -> None:
    (tmp_path / "4").write_text("")
    (tmp_path / "5").symlink_to("nowhere")
    (tmp_path / "notes").mkdir()
    assert read_versions(tmp_path) == {4: tmp_path / "4", 5: tmp_path / "5"}


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert read_versions(tmp_path) == {}
    with pytest.raises(FileNotFoundError):
        read_versions(tmp_path / "missing")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        read_candidates(tmp_path / "file")
