"""Which names in a base path are versions, as a server reads them.

The whole name must be a number of 64 bits: `3`, `000003` and `+3` are version
3; `v3`, `3.0` and `3.tmp` are nothing. A server asks no more than that, so a
file or an empty folder named `3` counts as well.
"""

import re
from os import PathLike
from pathlib import Path

__all__ = ["parse_version", "read_candidates", "read_versions"]

# What absl::SimpleAtoi takes for an int64: ASCII digits, perhaps signed, perhaps between ASCII blanks.
_NUMBER = re.compile(r"[ \t\n\v\f\r]*([+-]?)0*([0-9]{1,19})[ \t\n\v\f\r]*")
_INT64 = range(-(2**63), 2**63)


def parse_version(name: str) -> int | None:
    """The version that a server takes `name` for; None if it takes it for none."""
    match = _NUMBER.fullmatch(name)
    if match is None:
        return None
    number = int(match[1] + match[2])
    return number if number in _INT64 else None


def read_candidates(base_path: str | PathLike[str]) -> dict[int, list[Path]]:
    """Everything in a base path that claims to be a version, by number, lowest first.

    Returns:
        For each version its candidates in the order of their names. There is
        one, unless names such as `1` and `01` mean the same; the last counts.

    Raises:
        OSError: the base path is missing, is no folder, or cannot be read.
    """
    found: dict[int, list[Path]] = {}
    for child in sorted(Path(base_path).iterdir(), key=lambda child: child.name):
        version = parse_version(child.name)
        if version is not None:
            found.setdefault(version, []).append(child)
    return dict(sorted(found.items()))


def read_versions(base_path: str | PathLike[str]) -> dict[int, Path]:
    """What a server reads each version from, by number, lowest first.

    Raises:
        OSError: the base path is missing, is no folder, or cannot be read.
    """
    return {version: candidates[-1] for version, candidates in read_candidates(base_path).items()}
