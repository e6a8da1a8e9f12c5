"""Run the checks, all of them even after one has failed, and say at the end which did.

    python scripts/check.py [lint] [package] [notebooks]

Without a name: all three.
"""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKS = {
    "lint": {
        "ruff check": ["ruff", "check", "."],
        "ruff format": ["ruff", "format", "--check", "."],
        "mypy": ["mypy"],
    },
    "package": {"package tests": ["pytest", "tests", "-n", "auto", "--maxprocesses", "4", "--dist", "loadfile"]},
    "notebooks": {"notebooks": ["pytest", "--nbval", "--nbval-current-env", "notebooks"]},
}


def main() -> int:
    names = sys.argv[1:] or list(CHECKS)
    if unknown := set(names) - set(CHECKS):
        print(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    results: dict[str, tuple[bool, float]] = {}
    for name in names:
        for title, arguments in CHECKS[name].items():
            print(f"\n=== {title}: {' '.join(arguments)}", flush=True)
            started = time.monotonic()
            done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, check=False)
            results[title] = done.returncode == 0, time.monotonic() - started
    print()
    for title, (good, seconds) in results.items():
        print(f"{'ok    ' if good else 'FAILED'}  {title:<14} {seconds:6.1f} s")
    bad = [title for title, (good, _) in results.items() if not good]
    print(f"\nFAILED: {', '.join(bad)}" if bad else f"\nAll {len(results)} checks are green.")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
