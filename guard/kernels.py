"""The compiled kernels (`guard/_kernels.c`), or None where Guard was built without a C compiler.

Everything they do, numpy does, too, beside where they are used: what comes out is the same but for the last bits.
"""

from typing import Any

try:
    from guard import _kernels as found
except ImportError:
    found = None

compiled: Any = found
