"""The server's log, on stderr, in the form of TensorFlow's own lines, which stand between ours.

Two of TensorFlow's variables hold for both: `TF_CPP_MIN_LOG_LEVEL` (1 leaves out what is only told, 2 warnings as well)
and `TF_CPP_VMODULE` (`http_server=1` tells of every request by REST).
"""

import logging
import os
import time
from pathlib import Path
from typing import ClassVar

__all__ = ["log", "start_logging", "verbosity"]

log = logging.getLogger("tfs_helpers.embedded")

_HERE = Path(__file__).parent
_SEVERITIES = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)


class _Form(logging.Formatter):
    """`2026-01-31 12:00:00.123456: I tfs_helpers/embedded/models/manager.py:88] words`."""

    letters: ClassVar = dict(zip(_SEVERITIES, "IWEF", strict=True))

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        micros = int(record.created % 1 * 1_000_000)
        letter = self.letters.get(record.levelno, "I")
        place = f"tfs_helpers/embedded/{Path(record.pathname).relative_to(_HERE)}:{record.lineno}"
        line = f"{moment}.{micros:06d}: {letter} {place}] {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def start_logging() -> None:
    """Send the log to stderr, as much of it as `TF_CPP_MIN_LOG_LEVEL` asks for."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Form())
    log.addHandler(handler)
    log.setLevel(_SEVERITIES[min(_number("TF_CPP_MIN_LOG_LEVEL"), len(_SEVERITIES) - 1)])
    log.propagate = False


def verbosity(module: str) -> int:
    """How much is to be told of what a module of the real server does: 0 is nothing.

    Args:
        module: the name of its source file without ending, such as `http_server`.
    """
    named = dict(pair.partition("=")[::2] for pair in os.environ.get("TF_CPP_VMODULE", "").split(","))
    return max(_whole(named.get(module, "")), _number("TF_CPP_MAX_VLOG_LEVEL"))


def _number(variable: str) -> int:
    return _whole(os.environ.get(variable, ""))


def _whole(text: str) -> int:
    """A number, 0 where it is none, as TensorFlow reads it."""
    return int(text) if text.isdecimal() else 0
