"""Make `.venv`, the tutorial's own environment; `scripts/setup.sh` finds the Python and runs this with it.

    python scripts/setup.py            make it, or do nothing where it is up to date
    python scripts/setup.py --check    exit 0 if it is up to date, 1 if not

A marker file inside `.venv` says what it was made from: it is written last, so
an environment without it is a half-made one and is made anew.
`TFS_SETUP_GB` sets how much free space is asked for.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
MARKER = VENV / "made-from.json"
LOG = VENV / "setup.log"
SPACE_GB = 4.5  # measured: 2.7 to keep, 3.5 while pip holds the downloads, which it may copy to its cache as well

# Of the caller's pip settings, only those that say how an index is reached.
PIP_SETTINGS = re.compile(
    "PIP_(CACHE_DIR|(CLIENT_)?CERT|CONFIG_FILE|(DEFAULT_)?TIMEOUT|FIND_LINKS|(EXTRA_)?INDEX_URL"
    "|KEYRING_PROVIDER|NO_CACHE_DIR|NO_INDEX|PROXY|RETRIES|TRUSTED_HOST)"
)

NO_SPACE = (
    "The disk ran full.",
    f"The environment takes up to {SPACE_GB} GB while it is made, 2.7 GB afterwards.",
    "Free some space, or clone to a larger disk, then run the same command again.",
)
NO_PERMISSION = (
    f"Cannot write in {ROOT}.",
    "The folder, or the .venv in it, belongs to another user (made with sudo?) or is read-only.",
    "Make it yours (sudo chown -R $USER .), or clone to a folder of your own.",
)
# What pip's output says, the first that fits, and what that means.
CAUSES = [
    (r"No space left on device|Disk quota exceeded", NO_SPACE),
    (
        r"DO NOT MATCH THE HASHES",
        (
            "A downloaded package is not the one that requirements.txt names.",
            "The download was damaged, or the package index or a proxy gave another file.",
            "Run the same command again; if it stays so, try another network, and do not install it by hand.",
        ),
    ),
    (
        r"NewConnectionError|NameResolutionError|Timeout|ProxyError|SSLError|ProtocolError|Incomplete|versions: none",
        (
            "The package index cannot be reached, or has nothing for us.",
            "There is no network, or it needs a proxy or a mirror (pip's own settings: HTTPS_PROXY, PIP_INDEX_URL).",
            "Connect, or set those, then run the same command again.",
        ),
    ),
    (r"Permission denied|Read-only file system", NO_PERMISSION),
]


class Stop(Exception):
    """The set-up cannot go on; the message says why and what to do."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def made_from() -> dict[str, str]:
    """What an up-to-date environment is made from. The place counts: its scripts hold it."""
    return {
        "place": str(ROOT),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "pins": digest(ROOT / "requirements.txt"),
        "project": digest(ROOT / "pyproject.toml"),
    }


def marked() -> dict[str, str]:
    """What the present environment says it was made from; nothing if it is half-made or absent."""
    try:
        content = json.loads(MARKER.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


@contextmanager
def lock() -> Iterator[int]:
    """Only one set-up of this checkout at a time; pip holds the lock too, should it outlive us."""
    descriptor = os.open(ROOT, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("Another set-up of this checkout is running; waiting for it to end.")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            say(f"This file system knows no locks ({error.strerror}): start no second set-up meanwhile.")
        yield descriptor
    finally:
        os.close(descriptor)


def check_machine() -> None:
    """Stop where TensorFlow has no build for this machine, or the disk is too small."""
    system, machine = platform.system(), platform.machine()
    musl = system == "Linux" and platform.libc_ver()[0] != "glibc"
    if musl or (system, machine) not in {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}:
        raise Stop(
            f"TensorFlow has no build for this Python: {system}{' without glibc' if musl else ''} on {machine}.\n"
            "There are builds for Linux with glibc (x86_64, aarch64; WSL2 too) and for macOS on Apple silicon.\n"
            "Use one of these; on Apple silicon take a native Python, not one for Intel."
        )
    needed = float(os.environ.get("TFS_SETUP_GB", SPACE_GB))
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < needed:
        raise Stop(
            f"Not enough disk space: {free:.1f} GB are free in {ROOT}, {needed:.1f} GB are needed.\n"
            "TensorFlow and JupyterLab are large, and pip holds the downloads meanwhile.\n"
            "Free some space, or clone to a larger disk, then run the same command again."
        )


def remove() -> None:
    """Remove `.venv`, whatever it is. What a link points to is left alone."""
    if VENV.is_dir() and not VENV.is_symlink():
        shutil.rmtree(VENV)
    else:
        VENV.unlink(missing_ok=True)


def pip(held: int, *arguments: str) -> None:
    """Run the environment's pip, its output going to the log; say every half minute where it is.

    Raises:
        Stop: pip failed.
    """
    scratch = VENV / "tmp"  # beside the environment: /tmp is small on some machines
    scratch.mkdir(exist_ok=True)
    env = {
        name: value for name, value in os.environ.items() if not name.startswith("PIP_") or PIP_SETTINGS.fullmatch(name)
    }
    env |= {"PIP_USER": "0", "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    started = time.monotonic()
    with LOG.open("a") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[held]
        )
        while True:
            try:
                failed = process.wait(timeout=30)
                break
            except subprocess.TimeoutExpired:
                say(f"  {time.monotonic() - started:.0f} s: {doing()}")
            except KeyboardInterrupt:
                process.terminate()
                process.wait()
                raise
    shutil.rmtree(scratch, ignore_errors=True)
    if failed:
        raise Stop(explain())


def doing() -> str:
    """What pip does now, in few words."""
    steps = re.findall(
        r"^ *(Downloading \S+ \(.*?\)|Installing collected packages)", LOG.read_text(errors="replace"), re.M
    )
    return steps[-1] if steps else "waiting for the package index"


def last_lines(count: int) -> list[str]:
    return LOG.read_text(errors="replace").splitlines()[-count:]


def explain() -> str:
    """The known cause of what pip said last, and its cure; else its last words."""
    said = LOG.read_text(errors="replace")
    for pattern, lines in CAUSES:
        if re.search(pattern, said):
            return "\n".join(lines)
    return "\n".join(["Installing the packages failed. pip's last words:", *(f"  {line}" for line in last_lines(12))])


def make(held: int) -> None:
    """Make the environment, or bring it up to date.

    Raises:
        Stop: it cannot be made.
        OSError: the disk is full, or not ours to write.
    """
    wanted, present = made_from(), marked()
    started = time.monotonic()
    if not runs() or any(present.get(key) != wanted[key] for key in ("place", "python", "pins")):
        remove()
        check_machine()
        say(f"Setting up .venv with Python {platform.python_version()}, once: later runs skip this.")
        try:
            venv.EnvBuilder(with_pip=True, symlinks=True).create(VENV)
        except subprocess.CalledProcessError as error:
            output = (error.output or b"").decode(errors="replace")
            raise Stop(f"Python could not make a virtual environment:\n  {output.strip()[-500:]}") from error
        say("Installing TensorFlow, JupyterLab and the rest: about 0.8 GB to download, a minute or two on a fast line.")
        pip(held, "--require-hashes", "--requirement", "requirements.txt")
        MARKER.write_text(json.dumps(wanted | {"project": ""}))
    pip(held, "--no-deps", "--no-build-isolation", "--editable", ".")
    MARKER.write_text(json.dumps(wanted))
    say(f"Set up in {time.monotonic() - started:.0f} s.")


def runs() -> bool:
    """Whether the environment's Python runs: the one it was made from may be gone."""
    try:
        return subprocess.run([PYTHON, "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        return 0 if marked() == made_from() else 1
    with lock() as held:
        if marked() == made_from() and runs():
            return 0
        try:
            make(held)
        except Stop as stop:
            message = str(stop)
        except KeyboardInterrupt:
            message = "Interrupted: the next run begins anew."
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                message = "\n".join(NO_SPACE)
            elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                message = "\n".join(NO_PERMISSION)
            else:
                message = f"The set-up failed: {error}"
        else:
            return 0
        if not marked():  # half-made
            shutil.rmtree(VENV, ignore_errors=True)
        say(f"\n{message}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
