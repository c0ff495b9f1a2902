"""One attack on two `guard serve` processes, over gRPC: with one Valkey, what the one sees the other knows."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import guard, valkey
from tests.servers.calls import digits, unary
from tests.stores.attack import MONITORS, QUERIES, attack, model

FEW = 3


@pytest.fixture
def replicas(digits_file: Path, digits_profile: Path, tmp_path: Path):
    """-> a context in which so many processes serve, and their addresses."""
    (tmp_path / "secret").write_text("the same in every replica")
    common = {
        "models": [model(digits_file, digits_profile, *MONITORS)],
        "secret_file": str(tmp_path / "secret"),
        "limits": {"drain_s": 0.0},
    }

    @contextlib.contextmanager
    def serve(count: int, **history: object) -> Iterator[list[str]]:
        with contextlib.ExitStack() as stack:
            homes = [tmp_path / f"{history['store']}-{count}-{i}" for i in range(count)]
            for home in homes:
                home.mkdir()
            yield [stack.enter_context(guard.start(home, common | {"history": history})).address for home in homes]

    return serve


def first_refusals(addresses: list[str]) -> list[int]:
    """At which query of the attack each address, asked in turns, first refuses; QUERIES where it never does."""
    first = dict.fromkeys(addresses, QUERIES)
    for i, (x, address) in enumerate(zip(attack(), itertools.cycle(addresses), strict=False)):
        got = unary(address, "ModelInfer", digits(x[None]).SerializeToString())
        assert got.code in {"OK", "PERMISSION_DENIED"}
        if got.code != "OK":
            first[address] = min(first[address], i)
        if max(first.values()) < QUERIES:
            break
    return list(first.values())


def test_two_replicas_on_one_valkey_refuse_as_soon_as_one(replicas, tmp_path: Path) -> None:
    with valkey.start(tmp_path) as port:
        server = {"addresses": [f"127.0.0.1:{port}"], "timeout_s": 0.5}
        with replicas(2, store="valkey", valkey=server) as two:
            shared = first_refusals(two)
    with replicas(1, store="memory") as one:
        (alone,) = first_refusals(one)
    with replicas(2, store="memory") as two:
        apart = first_refusals(two)
    assert 0 < alone < QUERIES
    assert max(shared) <= alone + FEW
    assert min(apart) > alone + FEW  # each sees every other query
