"""The floor of inference: `Session.run` through TensorFlow's C library, in a process that does nothing else.

    python -m benchmarks.bare VERSION_FOLDER ROWS COLUMNS ...

The arguments say the shape of one float input. Prints the median seconds of one
run, and the runs in a second of eight threads.
"""

import statistics
import sys
import threading
import time

import numpy as np

from tfs_helpers.embedded.graphs.session import Session

RUNS = 400
THREADS = 8


def main() -> None:
    session = Session(sys.argv[1])
    session.is_bounded = False  # then it asks the C API for nothing special
    definition = session.signatures["serving_default"].definition
    ((_, given),) = definition.inputs.items()
    ((_, taken),) = definition.outputs.items()
    array = np.random.default_rng(0).random([int(size) for size in sys.argv[2:]], dtype="f4")

    def run() -> float:
        started = time.perf_counter()
        session.run({given.name: array}, [taken.name])
        return time.perf_counter() - started

    for _ in range(20):
        run()
    alone = statistics.median(run() for _ in range(RUNS))
    threads = [threading.Thread(target=lambda: [run() for _ in range(RUNS // 4)]) for _ in range(THREADS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(alone, THREADS * (RUNS // 4) / (time.perf_counter() - started))


if __name__ == "__main__":
    main()
