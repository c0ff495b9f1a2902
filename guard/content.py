"""What identifies the content of an inspected row, wherever it is stored, and whatever request carried it.

Numbers: SHA-256 of the row's values as little-endian float32, in C order, the channel last: of an image (H, W, C), of
         anything else its values as they lie. The values are those that the model is sent; -0 counts as 0. So whether
         rows are float16, float32 or integers makes no difference, as long as the values are the same; what float32
         cannot tell apart (of FP64 and large integers) is one content.
Images:  of JPEG and PNG in BYTES inputs, SHA-256 of the encoded file, byte for byte: `sha256sum FILE`.

It holds for exact copies. A row that was scaled, augmented or encoded anew is other content. Nothing keys it: whoever
has a digest can tell whether a row that he has is the one.
Cost: SHA-256 over 4 bytes a value.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from guard.types import Array


def digests(x: Array, *, channels_first: bool = False) -> list[str]:
    """(N, ...) numbers -> one hex digest a row; `channels_first`: rows are (C, H, W). Raises ValueError."""
    if x.ndim == 0 or x.dtype.kind not in "biuf":
        raise ValueError(f"rows of numbers have content, not {x.dtype} of {x.ndim} dimensions")
    return [_digest(np.moveaxis(row, 0, -1) if channels_first else row) for row in x]


def _digest(row: Array) -> str:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(row.astype("<f4")) + np.float32(0.0)
    return hashlib.sha256(values.tobytes()).hexdigest()


def encoded_digests(images: Iterable[bytes]) -> list[str]:
    """Encoded images -> one hex digest each."""
    return [hashlib.sha256(image).hexdigest() for image in images]
