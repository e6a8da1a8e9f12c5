"""`python -m benchmarks`: measure, print one table per subject, and write it all as JSON."""

import argparse
import json
import platform

from benchmarks import calls, serving, starting, swapping
from benchmarks.measuring import ROOT

SUBJECTS = {
    "starting": starting.measure,
    "calls": calls.measure,
    "serving": serving.measure,
    "swapping": swapping.measure,
}
RESULTS = ROOT / "build" / "benchmarks.json"


def main() -> None:
    parser = argparse.ArgumentParser(description="Machines are shared and noisy: look at ratios, and at medians.")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"default: all of {', '.join(SUBJECTS)}")
    chosen = parser.parse_args().subjects or list(SUBJECTS)
    machine = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    print(machine)
    results: dict[str, object] = {"machine": machine}
    for name in chosen:
        print(f"\n{name}")
        figures = []
        for figure in SUBJECTS[name]():
            print(f"  {figure}", flush=True)
            figures.append(figure.as_json())
        results[name] = figures
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nAlso in {RESULTS.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
