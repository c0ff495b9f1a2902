"""Requests of the largest size from many callers at once: what finds no place costs a window, not its size.

bench/soak/burst.py measures it at the size of a pod; this is a slice. With gRPC's probing for bandwidth, which widens
windows of what nobody reads, a hundred callers made the process hold 350 MB more.
"""

import pytest

from bench.soak import burst

PLACES, CALLERS = 4, 100


@pytest.mark.parametrize("plane", ["grpcio", "fast"])
async def test_who_finds_no_place_costs_little(plane: str) -> None:
    found = await burst.burst(plane, places=PLACES, waiting=PLACES, callers=CALLERS)
    ends = found["ends"]
    assert set(ends) <= {"OK", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}
    assert ends["OK"] >= 2 * PLACES
    assert ends["RESOURCE_EXHAUSTED"] >= CALLERS  # each of whom sent 4 MiB
    assert found["most_mb"] - found["before_mb"] < 220, found
