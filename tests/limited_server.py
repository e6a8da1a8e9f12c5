"""The embedded server with other limits than its own, for tests that cannot wait for those.

`python limited_server.py '{"header_seconds": 0.5}' --port=8500 ...`
"""

import json
import sys

from tfs_helpers.embedded.doors.limits import Limits
from tfs_helpers.embedded.log import start_logging
from tfs_helpers.embedded.options import parse_flags
from tfs_helpers.embedded.server import serve

if __name__ == "__main__":
    start_logging()
    serve(parse_flags(sys.argv[2:]), Limits(**json.loads(sys.argv[1])))
