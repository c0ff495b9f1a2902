"""glibc's malloc told to keep the memory of large messages instead of giving it back to the kernel after each.

By default a block above 128 kB may be mapped afresh for each use, and freed memory at the heap's end is returned: every
message then pays for page faults, and for the zeroing of its pages. `keep` raises the thresholds of both, for this
process, before it serves.

Cost:   resident memory of the largest messages in flight, some 100 MB at 602 kB each (`python -m bench.allocator`).
Source: mallopt(3). Not for musl and macOS, which have no such function, nor for an allocator that is preloaded.
"""

import ctypes
import logging
import os
from collections.abc import Mapping

MMAP_THRESHOLD_BYTES = 64 * 1024 * 1024
TRIM_THRESHOLD_BYTES = 512 * 1024 * 1024
TOP_PAD_BYTES = 16 * 1024 * 1024
_OPTIONS = {  # mallopt's number, and the values to try: glibc before 2.35 takes no larger mmap threshold than 32 MB
    "trim_threshold": (-1, (TRIM_THRESHOLD_BYTES,)),
    "top_pad": (-2, (TOP_PAD_BYTES,)),
    "mmap_threshold": (-3, (MMAP_THRESHOLD_BYTES, MMAP_THRESHOLD_BYTES // 2)),
}
_log = logging.getLogger(__name__)


def keep(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Which of the three were set. What the environment says (MALLOC_*_, GLIBC_TUNABLES) stays as it is."""
    environ = os.environ if environ is None else environ
    libc = ctypes.CDLL(None)
    mallopt = getattr(libc, "mallopt", None)
    if mallopt is None or not hasattr(libc, "gnu_get_libc_version"):
        _log.info("this C library's allocator takes no settings: the memory of large messages is not kept")
        return ()
    return tuple(
        name
        for name, (number, values) in _OPTIONS.items()
        if not _said(name, environ) and any(mallopt(number, value) for value in values)
    )


def _said(name: str, environ: Mapping[str, str]) -> bool:
    return f"MALLOC_{name.upper()}_" in environ or f"glibc.malloc.{name}=" in environ.get("GLIBC_TUNABLES", "")
