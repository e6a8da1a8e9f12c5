#!/bin/sh
# Make .venv, the tutorial's own environment, or see that it is up to date.
# This half finds a Python that can; scripts/setup.py does the rest.
#
#   PYTHON=/path/to/python3.12   use this one and no other

set -u
cd "$(dirname "$0")/.." || exit 1

# Whatever environment the caller sits in must not leak into ours.
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP VIRTUAL_ENV __PYVENV_LAUNCHER__

if [ -z "${PYTHON:-}" ] && .venv/bin/python scripts/setup.py --check 2>/dev/null; then
    exit 0
fi

# Runs on any Python, however old: says what is wrong with it, or "ok".
probe='
import sys
said = "%d.%d.%d" % sys.version_info[:3]
if sys.version_info < (3, 10):
    said += ", too old"
elif sys.version_info >= (3, 14):
    said += ", too new"
else:
    import importlib.util, sysconfig
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        said += ", not the standard CPython"
    elif not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
        said += ", without its venv module"
    else:
        said = "ok"
print(said)
'

try() {
    if ! path=$(command -v "$1"); then
        [ -z "${PYTHON:-}" ] || found="
  $1: no such program"
        return
    fi
    said=$("$1" -c "$probe" 2>/dev/null </dev/null) || said="does not run"
    if [ "$said" = ok ]; then
        exec "$1" scripts/setup.py
    fi
    found="$found
  $path: $said"
}

found=
if [ -n "${PYTHON:-}" ]; then
    try "$PYTHON"
else
    for name in python3.12 python3.11 python3.13 python3.10 python3 python; do
        try "$name"
    done
fi

{
    echo "The tutorial needs Python 3.10 to 3.13 with the venv module. Found:${found:- none}"
    case $found in
    *"without its venv module"*) echo "On Debian, Ubuntu and WSL2 that module is a package of its own: sudo apt install python3-venv" ;;
    *) echo "Install one: sudo apt install python3 python3-venv (Debian, Ubuntu, WSL2), brew install python@3.12 (macOS)." ;;
    esac
    echo "If it is not on your PATH, say where it is: make setup PYTHON=/path/to/python3.12"
} >&2
exit 1
