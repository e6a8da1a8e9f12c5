"""`python -m tfs_helpers.embedded`: the embedded server, on the command line of `tensorflow_model_server`."""

import os
import sys

from tfs_helpers import __version__
from tfs_helpers.embedded.log import log, start_logging
from tfs_helpers.embedded.options import BadFlag, hint, parse_flags, usage
from tfs_helpers.embedded.status import ServingError
from tfs_helpers.errors import TfsError
from tfs_helpers.versions import TENSORFLOW

__all__ = ["main"]

_FAILED = 255
_PROGRAM = "python -m tfs_helpers.embedded"


def main() -> int:
    """Run the server. Returns its exit status: 0 after a signal, 255 where it cannot start."""
    try:
        options = parse_flags(sys.argv[1:])
    except BadFlag as error:
        print(error, file=sys.stderr)
        print(usage(_PROGRAM))
        return _FAILED
    if options.unknown[:1] == ["--help"]:
        print(usage(_PROGRAM))
        return _FAILED
    if options.flag("version"):
        print(f"TensorFlow ModelServer: {TENSORFLOW} (embedded server of tfs_helpers {__version__})")
        print(f"TensorFlow Library: {TENSORFLOW}")
        return 0
    start_logging()
    for argument in options.unknown:
        print(f"unknown argument: {argument}", flush=True)
        log.warning("unknown argument: %s has no effect%s", argument, f"; {said}" if (said := hint(argument)) else "")
    if options.unknown:
        print(usage(_PROGRAM), flush=True)
    from tfs_helpers.embedded.server import serve

    try:
        serve(options)
    except ServingError as error:
        print(f"Failed to start server. Error: {error}", flush=True)
        return _FAILED
    except TfsError as error:
        print(error, file=sys.stderr)
        return _FAILED
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: the interpreter's own end waits for threads, and one that loads a model may hang.
    os._exit(status)
