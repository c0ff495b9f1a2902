"""JPEG and PNG files without what no pixel needs, so that nothing of it reaches a decoder.

Source: JPEG (ITU-T T.81, annex B) and PNG (W3C, chunk layout).
Answers: attacks on metadata parsers (EXIF, XMP, colour profiles, texts, animations, further pictures in one file),
         files of a million tiny parts, and JPEGs of thousands of scans, each a pass over all pixels for a few bytes.
Choices: JPEG keeps APP0 and APP14, which say how colours are stored; PNG keeps critical chunks, so transparency goes.
Cost:    one step a part; files of many small parts are refused.
"""

MAX_JPEG_SCANS = 100  # encoders make about ten
SPARE_PARTS = 64
BYTES_PER_PART = 1024  # on average, past the spare ones; libpng writes 8192

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_SCAN, _FILL = b"\xff\xda", b"\xff\xff"
_METADATA = {*range(0xE1, 0xEE), 0xEF, 0xFE}  # APP1 to APP13, APP15, COM
_ANCILLARY = 0x20  # this bit of a chunk's first letter


class Broken(ValueError):
    """The file's parts do not add up, or are too many."""


def bare_jpeg(data: bytes) -> bytes:
    """The file without metadata before its first scan; what follows is left to the decoder. Raises Broken."""
    kept, at = [data[:2]], 2
    for _ in range(_most_parts(data)):
        head = data[at : at + 2]
        if head == _FILL:
            at += 1
            continue
        if head == _SCAN and data.count(_SCAN, at) <= MAX_JPEG_SCANS:
            return b"".join([*kept, data[at:]])
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if head[:1] != b"\xff" or head == _SCAN or not at + 4 <= stop <= len(data):
            raise Broken
        if head[1] not in _METADATA:
            kept.append(data[at:stop])
        at = stop
    raise Broken


def bare_png(data: bytes) -> bytes:
    """The file with its critical chunks only. Raises Broken."""
    kept, at = [data[: len(PNG_START)]], len(PNG_START)
    for _ in range(_most_parts(data)):
        head = data[at : at + 8]
        stop = at + 12 + int.from_bytes(head[:4], "big")
        if stop > len(data):
            raise Broken
        if not head[4] & _ANCILLARY:
            kept.append(data[at:stop])
        at = stop
        if head[4:] == b"IEND":
            return b"".join(kept)
    raise Broken


def _most_parts(data: bytes) -> int:
    return SPARE_PARTS + len(data) // BYTES_PER_PART
