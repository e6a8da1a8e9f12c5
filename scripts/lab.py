"""Open JupyterLab at the first notebook, on this machine only.

    python scripts/lab.py [options of jupyter lab]

Where there is no browser it prints the address instead; where port 8888 is
taken it takes another one.
"""

import json
import os
import sys
import webbrowser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST = "notebooks/00_start_here.ipynb"
# No pop-up asks the learner about news, and nothing is fetched for it.
SETTINGS = {"@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False}}


def has_browser() -> bool:
    """Whether a window could open: a text browser would take over the terminal."""
    if sys.platform.startswith("linux") and not any(map(os.environ.get, ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def command() -> list[str]:
    """The line that starts JupyterLab."""
    line = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port_retries=50",
        f"--ServerApp.root_dir={ROOT}",
        f"--LabApp.default_url=/lab/tree/{FIRST}",
        "--ServerApp.answer_yes=True",  # Ctrl-C stops it without a question
        "--Application.log_level=WARN",
    ]
    if os.geteuid() == 0:
        line.append("--allow-root")
    if not has_browser():
        line.append("--no-browser")
    return line


def main() -> None:
    settings = Path(sys.prefix) / "share" / "jupyter" / "lab" / "settings"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "overrides.json").write_text(json.dumps(SETTINGS))
    print("Starting JupyterLab; Ctrl-C here stops it.", flush=True)
    if not has_browser():
        print("There is no browser here: open the http:// address below in one. From another machine, first run")
        print("  ssh -L 8888:localhost:8888 THIS_MACHINE        (with the port of that address)", flush=True)
    os.chdir(ROOT)
    os.execv(sys.executable, [*command(), *sys.argv[1:]])


if __name__ == "__main__":
    main()
