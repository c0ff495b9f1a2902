"""The matrix as a page."""

from collections.abc import Mapping

from tests.faults import inside, processes, receivers, stores, upstreams
from tests.faults.matrix import ROWS, Row

PARTS = (upstreams, stores, inside, receivers, processes)
HEAD = """# Faults

What Guard does when something breaks. Each row injects its fault for real (servers and workers are killed, a TCP proxy
falls silent or cuts, disks are full) and asserts what is expected; `make test` runs them all. This page is what one run
saw:

```sh
python -m tests.faults --docs docs/results/faults.md
```

"""


def rows() -> tuple[Row, ...]:
    """All of them; importing the parts has entered them."""
    assert PARTS
    return tuple(ROWS)


def markdown(seen: Mapping[str, str]) -> str:
    """The page, of what was seen by name."""
    lines = ["| part | fault | settings | expected | seen |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| {r.part} | {r.fault} | {r.settings} | {r.expected} | {seen[r.name]} |" for r in ROWS if r.name in seen
    ]
    return HEAD + "\n".join(lines) + "\n"
