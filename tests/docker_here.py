"""Tests that need a Docker engine are left out where none answers, and the header says so."""

import functools

import pytest

from tfs_helpers.launch import backends


@functools.cache
def obstacle() -> str:
    """Why Docker cannot be used here, in one line; empty where it can."""
    found = backends.obstacle("docker", "none/at-all:ever")
    return "" if found is None or "has no image" in found.what else found.what


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "docker: needs a Docker engine on this Linux machine; left out where there is none"
    )


def pytest_report_header() -> str:
    return f"docker: left out. {obstacle()}" if obstacle() else "docker: an engine answers"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if obstacle() and item.get_closest_marker("docker")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
