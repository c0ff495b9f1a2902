"""Guard and the server behind it as processes of their own: their memory can be weighed, their log read."""

import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.parser import text_string_to_metric_families

from tests.planes.at import TALK, chosen
from tests.proxy.world import INFER, request
from tests.servers import guard
from tests.servers.process import answers, free_port, running

MIB = 1024 * 1024


@dataclass(frozen=True)
class Far:
    """Guard as a process."""

    guarded: guard.Guarded
    plane: str

    @property
    def address(self) -> str:
        return self.guarded.address

    @property
    def rss(self) -> int:
        """Bytes in memory."""
        lines = Path(f"/proc/{self.guarded.process.pid}/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmRSS")).split()[1])

    def count(self, name: str, **labels: str) -> float:
        """A metric: the sum of its series with these labels."""
        with urllib.request.urlopen(f"http://{self.guarded.admin}/metrics", timeout=5) as page:
            families = text_string_to_metric_families(page.read().decode())
        samples = (sample for family in families for sample in family.samples if sample.name == name)
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    @property
    def files(self) -> int:
        """Open files, connections among them."""
        return len(list(Path(f"/proc/{self.guarded.process.pid}/fd").iterdir()))

    @property
    def alive(self) -> bool:
        return self.guarded.process.poll() is None

    def complaints(self) -> list[str]:
        """What is in the log that should not be."""
        lines = self.guarded.log.read_text(errors="replace").splitlines()
        signs = ["Traceback", "ERROR", "CRITICAL", "Exception", "never retrieved", "was destroyed"]
        if self.plane == "grpcio":  # grpc.aio logs a traceback at each text that is none
            signs[:2] = ["ERROR guard"]
        return [line for line in lines if any(sign in line for sign in signs)]

    def honest(self, timeout_s: float = 10.0) -> bytes:
        """One call on a connection of its own. Raises grpc.RpcError."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self.address, options) as channel:
            method: Any = channel.unary_unary(INFER)
            return bytes(method(request(), timeout=timeout_s, wait_for_ready=True))


@contextmanager
def upstream(directory: Path) -> Iterator[str]:
    """The server behind: its address."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "tests.planes.upstream", address]
    ready = lambda: answers(address, INFER, request())
    with running(command, directory / "upstream.log", ready):
        yield address


@contextmanager
def far(plane: str, directory: Path, address: str, *, answered: bool = True, **changes: Any) -> Iterator[Far]:
    """Guard in front of this address. answered: wait until the server behind answers."""
    tree: dict[str, Any] = {
        "upstream": {"address": address, "timeout_s": 3.0},
        "models": [{"name": "m"}],
        "methods": {"allow": [TALK]},
        "limits": {"drain_s": 0.0, "max_request_bytes": 4 * MIB},
        **chosen(plane),
        **changes,
    }
    with guard.start(directory, tree) as guarded:
        made = Far(guarded, plane)
        if answered:
            made.honest()
        yield made
