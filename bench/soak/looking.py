"""A look at a running Guard: what its process holds, and what it says of calls that nothing inspected."""

import statistics
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench.proxy import load

_GRPC = ("event_engine", "grpc", "lifeguard", "timer_manager")


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at the process. at_s: since the beginning. p50_ms, p99_ms: of an honest caller's calls until then.

    threads: but for gRPC's own, a pool that grows when the machine is busy and shrinks again.
    """

    at_s: float
    rss_mb: float
    handles: int
    threads: int
    grpc_threads: int
    p50_ms: float
    p99_ms: float
    calls: int


def look(pid: int, at_s: float, late_s: list[float], calls: int) -> Sample:
    """At a process, while it runs."""
    late = sorted(late_s) or [0.0]
    names = [task.read_text().strip() for task in Path(f"/proc/{pid}/task").glob("*/comm")]
    grpc_own = sum(name.startswith(_GRPC) for name in names)
    return Sample(
        at_s=round(at_s, 1),
        rss_mb=load.resident_mb([pid]),
        handles=sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
        threads=len(names) - grpc_own,
        grpc_threads=grpc_own,
        p50_ms=1e3 * statistics.median(late),
        p99_ms=1e3 * late[int(0.99 * (len(late) - 1))],
        calls=calls,
    )


def uninspected(admin: str) -> dict[str, float]:
    """Calls that were forwarded uninspected, by why, as the metrics have them."""
    with urllib.request.urlopen(f"http://{admin}/metrics", timeout=10) as page:
        families = text_string_to_metric_families(page.read().decode())
    found: dict[str, float] = {}
    for sample in (sample for family in families for sample in family.samples):
        if sample.name == "guard_uninspected_total":
            found[sample.labels["reason"]] = found.get(sample.labels["reason"], 0.0) + sample.value
    return found
