"""A real cluster: three masters that share the slots out, and replicas."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from tests.servers import valkey

SHARES = ((0, 5460), (5461, 10922), (10923, 16383))
NODE_TIMEOUT_MS = 1000


@dataclass(frozen=True)
class Node:
    """One server of it."""

    port: int
    bus: int
    client: redis.Redis
    life: contextlib.ExitStack

    def ask(self, *words: object) -> str:
        """What it answers, as text."""
        return self.client.execute_command(*words, NEVER_DECODE=True).decode()

    @property
    def name(self) -> str:
        return self.ask("CLUSTER", "MYID")

    @property
    def written(self) -> int:
        """How much a master has told its replicas, or a replica has heard."""
        told = self.client.info("replication")
        return int(told["slave_repl_offset"] if told["role"] == "slave" else told["master_repl_offset"])

    def kill(self) -> None:
        """SIGKILL."""
        self.life.close()

    def pause(self) -> None:
        """It says nothing from now on, and takes connections all the same."""
        os.kill(self.client.info("server")["process_id"], signal.SIGSTOP)


@contextlib.contextmanager
def start(directory: Path, *options: str, replicas: int = 0) -> Iterator[list[Node]]:
    """The masters, in the order of their slots, then the replicas: of the first master, of the second, ..."""
    with contextlib.ExitStack() as stack:
        nodes = [_node(stack, directory / str(i), options) for i in range(len(SHARES) + replicas)]
        masters, others = nodes[: len(SHARES)], nodes[len(SHARES) :]
        for i, (node, share) in enumerate(zip(masters, SHARES, strict=True)):
            node.ask("CLUSTER", "ADDSLOTSRANGE", *share)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        for node in nodes[1:]:
            nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)
        _await(lambda: all(f"cluster_known_nodes:{len(nodes)}" in node.ask("CLUSTER", "INFO") for node in nodes))
        for master, replica in zip(masters, others, strict=False):
            _await(lambda master=master, replica=replica: master.name in replica.ask("CLUSTER", "NODES"))
            replica.ask("CLUSTER", "REPLICATE", master.name)
        _await(lambda: all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in nodes))
        _await(lambda: all(node.client.info("replication").get("master_link_status") == "up" for node in others))
        yield nodes


def _node(stack: contextlib.ExitStack, directory: Path, options: tuple[str, ...]) -> Node:
    directory.mkdir()
    bus, life = valkey.free_port(), stack.enter_context(contextlib.ExitStack())
    own = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", str(NODE_TIMEOUT_MS))
    lenient = ("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0")
    port = life.enter_context(valkey.start(directory, *own, *lenient, *options))
    return Node(port, bus, life.enter_context(redis.Redis(port=port)), life)


def _await(condition, timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("the cluster does not come up")
        time.sleep(0.05)
