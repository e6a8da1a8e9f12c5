"""The server's log, on stderr, in the form of TensorFlow's own lines, which stand between ours."""

import logging
import time
from typing import ClassVar

__all__ = ["log", "start_logging"]

log = logging.getLogger("tfs_helpers.embedded")


class _Form(logging.Formatter):
    """`2026-01-31 12:00:00.123456: I tfs_helpers/embedded/manager.py:88] words`."""

    letters: ClassVar = {logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}

    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        micros = int(record.created % 1 * 1_000_000)
        letter = self.letters.get(record.levelno, "I")
        place = f"tfs_helpers/embedded/{record.filename}:{record.lineno}"
        line = f"{moment}.{micros:06d}: {letter} {place}] {record.getMessage()}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def start_logging() -> None:
    """Send the log to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Form())
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
