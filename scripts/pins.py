"""Resolve requirements.txt anew from pyproject.toml, and carry its versions over to environment.yml.

    python scripts/pins.py [--upgrade]

Needs `uv` on PATH. Without --upgrade only what pyproject.toml asks for changes.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements.txt"
ENVIRONMENT = ROOT / "environment.yml"
CONDA_PYTHON = "3.12"


def pins(text: str) -> list[Requirement]:
    """The pins of a requirements.txt, with their markers, without their hashes."""
    joined = text.replace("\\\n", " ")
    lines = [line.split(" --hash", 1)[0].strip() for line in joined.splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def versions(text: str, python: str) -> dict[str, str]:
    """What is installed from a requirements.txt on Linux (x86_64) by that Python: name to version."""
    here = {
        "python_version": python,
        "python_full_version": f"{python}.20",
        "sys_platform": "linux",
        "os_name": "posix",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    return {
        canonicalize_name(pin.name): str(pin.specifier).removeprefix("==")
        for pin in pins(text)
        if pin.marker is None or pin.marker.evaluate(here)
    }


def carry_over(environment: str, requirements: str) -> str:
    """An environment.yml with each `- name==version` at the version that requirements.txt has.

    Raises:
        KeyError: requirements.txt does not pin that name.
    """
    wanted = versions(requirements, CONDA_PYTHON)

    def pinned(match: re.Match[str]) -> str:
        return f"- {match['name']}=={wanted[canonicalize_name(match['name'])]}"

    return re.sub(r"- (?P<name>[\w.-]+)==(?P<version>[\w.]+)", pinned, environment)


def main() -> None:
    uv = shutil.which("uv")
    if uv is None:
        sys.exit(
            "uv is not on PATH. It resolves for all Pythons and platforms at once; pip install uv, then run again."
        )
    command = [uv, "pip", "compile", "pyproject.toml", "--all-extras", "--universal", "--generate-hashes"]
    command += ["--python-version", "3.10", "--no-python-downloads", "--custom-compile-command", "make pins"]
    command += ["--quiet", "--output-file", REQUIREMENTS.name, *sys.argv[1:]]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit("requirements.txt is as it was.")
    ENVIRONMENT.write_text(carry_over(ENVIRONMENT.read_text(), REQUIREMENTS.read_text()))
    print(f"{REQUIREMENTS.name}: {len(pins(REQUIREMENTS.read_text()))} pins; {ENVIRONMENT.name} agrees")


if __name__ == "__main__":
    main()
