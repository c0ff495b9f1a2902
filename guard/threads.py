"""Array libraries told to work on the thread that asks, and on no other.

Answers: queries that wait for a core. BLAS and OpenCV hand even a product of some microseconds to as many threads as
         the machine has cores, and whoever asked waits for them in a busy loop. Beside a model server that uses its
         cores, or with fewer cores than the library counts (a quota, an affinity set later), what takes 0.2 ms on one
         thread takes 40 (`python -m bench.neighbours`). Queries are inspected side by side as it is
         (`limits.inspection_threads`), so there is nothing to be won by it.
Cost:    a batch of large images on an idle machine is inspected on one core.
"""

import cv2
import numpy as np  # noqa: F401 - its BLAS must be there to be told
from threadpoolctl import threadpool_limits


def alone() -> None:
    """From now on, for this process."""
    threadpool_limits(limits=1, user_api="blas")
    cv2.setNumThreads(1)
