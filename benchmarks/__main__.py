"""`python -m benchmarks`: measure, and print one table per subject."""

import argparse
import platform

from benchmarks import calls, starting

SUBJECTS = {"starting": starting.measure, "calls": calls.measure}


def main() -> None:
    parser = argparse.ArgumentParser(description="Machines are shared and noisy: look at ratios, and at medians.")
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"default: all of {', '.join(SUBJECTS)}")
    chosen = parser.parse_args().subjects or list(SUBJECTS)
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in chosen:
        print(f"\n{name}")
        for figure in SUBJECTS[name]():
            print(f"  {figure}", flush=True)


if __name__ == "__main__":
    main()
